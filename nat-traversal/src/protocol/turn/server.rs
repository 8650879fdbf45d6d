//! The server's side of TURN: lends addresses to those who show credentials that we gave out, for as long as these hold.
//!
//! ```text
//!             Allocate             handle_opened              Refresh of 0, lifetime, the client's end
//!  (nothing) ──────────► Opening ─────────────────► Open ──────────────────────────► (nothing; Close)
//! ```
//!
//! There is no table of users: a name says until when it is good, and its password is a MAC of it. Everything is bounded
//! ([`RelayRules`]), peers are only reached where [`TargetPolicy`] lets them, and who has shown nothing yet gets at most three times
//! its bytes, twenty times a second.

mod allocation;
mod policy;
mod rules;
mod secret;
mod traffic;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ring::hmac;

pub use policy::{Cidr, ParseCidrError, TargetPolicy};
pub use rules::{RelayRules, RelayStats};
pub use secret::RelaySecret;

use self::{
    allocation::{Allocation, lifetime, peers},
    traffic::Bucket,
};
use super::channel;
use crate::protocol::stun::{Class, Message, MessageBuilder, Method, StunServer, attribute};

/// A TURN server for one address, without sockets: bytes in, [`RelayOrder`]s out.
#[derive(Debug)]
pub struct RelayServer {
    rules: RelayRules,
    secret: RelaySecret,
    /// An instant, and what the wall clock said then, in seconds since 1970.
    began: (Instant, u64),
    allocations: BTreeMap<RelayClient, Allocation>,
    relays: BTreeMap<RelayId, RelayClient>,
    next_relay: u64,
    strangers: BTreeMap<IpAddr, (Instant, u32)>,
    orders: VecDeque<RelayOrder>,
    stats: RelayStats,
}

/// Who asks: TURN tells clients apart by where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelayClient {
    /// By datagrams from this address.
    Datagrams(SocketAddr),
    /// Over a TCP connection, which the caller has given a number.
    Stream(u64, SocketAddr),
}

/// One address lent out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayId(u64);

/// What is to be done for a [`RelayServer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayOrder {
    /// Send this to a client.
    Answer(RelayClient, Vec<u8>),
    /// Bind a UDP socket, and say by [`RelayServer::handle_opened`] what came of it.
    Open(RelayId),
    /// Send this from such a socket.
    Send(RelayId, SocketAddr, Vec<u8>),
    /// Close it.
    Close(RelayId),
}

/// Who has shown credentials with a request.
struct User {
    username: String,
    key: hmac::Key,
    expires: Instant,
}

/// What is answered to a good request; nothing yet while a socket is opened.
type Reply = Option<Box<dyn FnOnce(MessageBuilder) -> MessageBuilder>>;

impl RelayServer {
    /// A server that gives out addresses to whom `secret` made credentials for. `unix_now` is what the wall clock says at `now`,
    /// in seconds since 1970; later changes of the clock do not count.
    #[must_use]
    pub fn new(now: Instant, unix_now: u64, secret: RelaySecret, rules: RelayRules) -> Self {
        Self {
            rules,
            secret,
            began: (now, unix_now),
            allocations: BTreeMap::new(),
            relays: BTreeMap::new(),
            next_relay: 0,
            strangers: BTreeMap::new(),
            orders: VecDeque::new(),
            stats: RelayStats::default(),
        }
    }

    /// Takes one message of a client, STUN or ChannelData.
    pub fn handle_client(&mut self, now: Instant, client: RelayClient, bytes: &[u8]) {
        if channel::is_channel_data(bytes) {
            return self.pass_channel_data(now, client, bytes);
        }
        let Ok(message) = Message::decode(bytes) else { return };
        match (message.class(), message.method()) {
            (Class::Indication, Method::SEND) => self.pass_indication(now, client, &message),
            (Class::Request, _) if self.may_ask(now, client) => self.answer(now, client, &message),
            _ => {}
        }
    }

    /// A client's connection is over, or it is not to be served any more.
    pub fn handle_gone(&mut self, client: RelayClient) {
        if let Some(allocation) = self.allocations.remove(&client) {
            self.relays.remove(&allocation.relay);
            self.orders.push_back(RelayOrder::Close(allocation.relay));
        }
    }

    /// What came of [`RelayOrder::Open`]: the address at which peers reach the socket.
    pub fn handle_opened(&mut self, now: Instant, relay: RelayId, opened: Option<SocketAddr>) {
        let Some(&client) = self.relays.get(&relay) else { return };
        let Some(allocation) = self.allocations.get_mut(&client) else { return };
        allocation.relayed = opened;
        let key = allocation.key.clone();
        let transaction = allocation.made_by;
        let answer = |class| MessageBuilder::new(class, Method::ALLOCATE, transaction);
        let answer = match opened {
            Some(relayed) => {
                let lifetime = allocation.end.saturating_duration_since(now);
                allocated(answer(Class::Success), relayed, lifetime, client.addr())
            }
            None => {
                self.handle_gone(client);
                answer(Class::Error).error_code(508, "")
            }
        };
        self.orders.push_back(RelayOrder::Answer(client, answer.integrity(&key).finish()));
    }

    /// Ends what has not been refreshed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let over = |(client, one): (&RelayClient, &Allocation)| (one.end <= now).then_some(*client);
        for client in self.allocations.iter().filter_map(over).collect::<Vec<_>>() {
            self.handle_gone(client);
        }
        for allocation in self.allocations.values_mut() {
            allocation.permissions.retain(|_, end| *end > now);
            allocation.channels.retain(|_, (_, end)| *end > now);
        }
    }

    /// When to call [`RelayServer::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.allocations.values().map(|allocation| allocation.end).min()
    }

    /// What to do next, until `None`.
    pub fn poll_order(&mut self) -> Option<RelayOrder> {
        self.orders.pop_front()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        RelayStats { allocations: self.allocations.len(), ..self.stats }
    }

    /// Whether a client holds an address.
    #[must_use]
    pub fn serves(&self, client: RelayClient) -> bool {
        self.allocations.contains_key(&client)
    }

    /// Strangers could make us answer somebody else.
    fn may_ask(&mut self, now: Instant, client: RelayClient) -> bool {
        let RelayClient::Datagrams(from) = client else { return true };
        if self.allocations.contains_key(&client) {
            return true;
        }
        if self.strangers.len() >= StunServer::MAX_COUNTED {
            // Beginning anew gives a flooded victim 20 more answers for 4,096 requests, which is no amplification.
            self.strangers.clear();
        }
        let (since, count) = self.strangers.entry(from.ip()).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        from.port() != 0 && *count <= StunServer::MAX_ANSWERS
    }

    fn answer(&mut self, now: Instant, client: RelayClient, message: &Message<'_>) {
        let answer = |class| MessageBuilder::new(class, message.method(), message.transaction());
        let bytes = if message.method() == Method::BINDING {
            answer(Class::Success).mapped_address(client.addr()).finish()
        } else {
            match self.authenticate(now, client, message) {
                Err(code) => {
                    self.stats.refused_credentials += u64::from(code == WRONG && has_integrity(message));
                    let nonce = self.secret.nonce(self.unix(now), client.addr());
                    answer(Class::Error)
                        .error_code(code, "")
                        .attribute(attribute::REALM, REALM)
                        .attribute(attribute::NONCE, nonce.as_bytes())
                        .finish()
                }
                Ok(user) => match self.carry_out(now, client, message, &user) {
                    Ok(None) => return,
                    Ok(Some(add)) => add(answer(Class::Success)).integrity(&user.key).finish(),
                    Err(code) => {
                        self.stats.count_refusal(code);
                        answer(Class::Error).error_code(code, "").integrity(&user.key).finish()
                    }
                },
            }
        };
        self.orders.push_back(RelayOrder::Answer(client, bytes));
    }

    /// RFC 8489, section 9.2.4.
    fn authenticate(&self, now: Instant, client: RelayClient, message: &Message<'_>) -> Result<User, u16> {
        let text = |kind| message.find(kind).and_then(|found| std::str::from_utf8(found.value).ok());
        if !has_integrity(message) {
            return Err(WRONG);
        }
        let (Some(username), Some(nonce)) = (text(attribute::USERNAME), text(attribute::NONCE)) else {
            return Err(400);
        };
        let unix = self.unix(now);
        if !self.secret.knows_nonce(unix, client.addr(), nonce) {
            return Err(438);
        }
        let left = self.secret.time_left(unix, username).ok_or(WRONG)?;
        let key = self.secret.credentials_of(username).classic_key(REALM);
        if !message.has_integrity(&key) {
            return Err(WRONG);
        }
        let other = |allocation: &Allocation| allocation.username != username;
        if self.allocations.get(&client).is_some_and(other) {
            return Err(441);
        }
        Ok(User { username: username.to_owned(), key, expires: now + left })
    }

    fn carry_out(
        &mut self,
        now: Instant,
        client: RelayClient,
        message: &Message<'_>,
        user: &User,
    ) -> Result<Reply, u16> {
        if message.attributes().any(|found| found.is_required() && !KNOWN.contains(&found.kind)) {
            return Err(420);
        }
        if message.method() == Method::ALLOCATE {
            return self.allocate(now, client, message, user);
        }
        let rules = &self.rules;
        let allocation = self.allocations.get_mut(&client).ok_or(437_u16)?;
        allocation.relayed.ok_or(437_u16)?;
        match message.method() {
            Method::REFRESH => {
                let lifetime = lifetime(now, message, user.expires)?;
                (allocation.end, allocation.expires) = (now + lifetime, user.expires);
                if lifetime.is_zero() {
                    self.handle_gone(client);
                }
                Ok(Some(Box::new(move |answer| answer.attribute(attribute::LIFETIME, &seconds(lifetime)))))
            }
            Method::CREATE_PERMISSION => {
                let peers = peers(message, rules)?;
                allocation.permit(now, &peers, rules)?;
                Ok(Some(Box::new(|answer| answer)))
            }
            Method::CHANNEL_BIND => {
                let number = message.find(attribute::CHANNEL_NUMBER).and_then(|found| found.value.get(..2));
                let number = number.map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]])).ok_or(400_u16)?;
                let peers = peers(message, rules)?;
                allocation.bind(now, number, peers[0], rules)?;
                Ok(Some(Box::new(|answer| answer)))
            }
            _ => Err(400),
        }
    }

    fn allocate(
        &mut self,
        now: Instant,
        client: RelayClient,
        message: &Message<'_>,
        user: &User,
    ) -> Result<Reply, u16> {
        if let Some(known) = self.allocations.get(&client) {
            // Asked again since the answer was lost, or has not been given yet.
            let lifetime = known.end.saturating_duration_since(now);
            return match (known.made_by == message.transaction(), known.relayed) {
                (false, _) => Err(437),
                (true, None) => Ok(None),
                (true, Some(relayed)) => {
                    Ok(Some(Box::new(move |answer| allocated(answer, relayed, lifetime, client.addr()))))
                }
            };
        }
        let wanted = |kind| message.find(kind).and_then(|found| found.value.first().copied());
        match wanted(attribute::REQUESTED_TRANSPORT) {
            Some(UDP) => {}
            Some(_) => return Err(442),
            None => return Err(400),
        }
        let family = if self.rules.relays_at().is_ipv4() { IPV4 } else { IPV6 };
        if wanted(attribute::REQUESTED_ADDRESS_FAMILY).unwrap_or(IPV4) != family {
            return Err(440);
        }
        let lifetime = lifetime(now, message, user.expires)?;
        let same = |of: &dyn Fn(&RelayClient, &Allocation) -> bool| {
            self.allocations.iter().filter(|(client, allocation)| of(client, allocation)).count()
        };
        let subject = secret::subject(&user.username);
        if same(&|_, one| secret::subject(&one.username) == subject) >= self.rules.per_user()
            || same(&|other, _| other.addr().ip() == client.addr().ip()) >= self.rules.per_address()
            || self.allocations.len() >= self.rules.in_all()
        {
            return Err(486);
        }
        let relay = RelayId(self.next_relay);
        self.next_relay += 1;
        let allocation = Allocation {
            relay,
            username: user.username.clone(),
            key: user.key.clone(),
            made_by: message.transaction(),
            relayed: None,
            end: now + lifetime,
            expires: user.expires,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            bucket: Bucket::new(now, self.rules.rate()),
        };
        self.allocations.insert(client, allocation);
        self.relays.insert(relay, client);
        self.orders.push_back(RelayOrder::Open(relay));
        Ok(None)
    }

    fn unix(&self, now: Instant) -> u64 {
        self.began.1.saturating_add(now.saturating_duration_since(self.began.0).as_secs())
    }
}

impl RelayClient {
    /// Where it comes from.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        match self {
            Self::Datagrams(from) | Self::Stream(_, from) => *from,
        }
    }
}

fn allocated(
    answer: MessageBuilder,
    relayed: SocketAddr,
    lifetime: Duration,
    client: SocketAddr,
) -> MessageBuilder {
    answer
        .xor_address(attribute::XOR_RELAYED_ADDRESS, relayed)
        .attribute(attribute::LIFETIME, &seconds(lifetime))
        .mapped_address(client)
}

fn has_integrity(message: &Message<'_>) -> bool {
    message.find(attribute::MESSAGE_INTEGRITY).is_some()
}

fn seconds(time: Duration) -> [u8; 4] {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).to_be_bytes()
}

/// The realm is part of the key, and of the challenge, which has to be short.
const REALM: &[u8] = b"crust";
/// Unauthenticated (RFC 8489, section 14.8).
const WRONG: u16 = 401;
/// The protocol number of UDP, and the families of addresses (RFC 8656, sections 18.8 and 18.6).
const UDP: u8 = 17;
const IPV4: u8 = 1;
const IPV6: u8 = 2;
/// What is understood of the attributes that must be.
const KNOWN: [u16; 12] = [
    attribute::USERNAME,
    attribute::MESSAGE_INTEGRITY,
    attribute::MESSAGE_INTEGRITY_SHA256,
    attribute::PASSWORD_ALGORITHM,
    attribute::CHANNEL_NUMBER,
    attribute::LIFETIME,
    attribute::XOR_PEER_ADDRESS,
    attribute::DATA,
    attribute::REALM,
    attribute::NONCE,
    attribute::REQUESTED_ADDRESS_FAMILY,
    attribute::REQUESTED_TRANSPORT,
];

#[cfg(test)]
mod tests;
