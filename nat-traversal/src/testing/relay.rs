use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::hmac;

use super::{Net, NodeId};
use crate::protocol::stun::{Class, Message, MessageBuilder, Method, TransactionId, attribute};
use crate::protocol::turn::TurnCredentials;
use crate::protocol::{Datagram, Machine, SocketIndex, Transmit};

/// A TURN server on a host of a [`Net`], for one user, over datagrams.
///
/// ```
/// use std::time::Duration;
/// use nat_traversal::protocol::{Seed, SocketIndex};
/// use nat_traversal::protocol::turn::{AddressFamily, TurnClient, TurnCredentials, TurnEvent, TurnLink};
/// use nat_traversal::testing::{Link, Nat, Net, Relay, RelayRules, Running};
///
/// let mut net = Net::new(Seed::from(1));
/// let server = net.host(None, "203.0.113.20", Link::delay(Duration::from_millis(20)));
/// let credentials = TurnCredentials::new("user", "secret");
/// let mut relay = Running::new(Relay::new(&mut net, server, credentials.clone(), RelayRules::default()));
/// let nat = net.nat(None, "198.51.100.2", Link::default(), Nat::hard());
/// let laptop = net.host(Some(nat), "192.168.1.11", Link::default());
/// net.bind(laptop, 4000);
/// let address = "203.0.113.20:3478".parse()?;
/// let (link, family) = (TurnLink::Datagrams, AddressFamily::V4);
/// let client = TurnClient::new(net.now(), address, link, family, credentials, Seed::from(2));
/// let mut client = Running::until(client, |_| true);
/// net.run(&mut [(server, &mut relay), (laptop, &mut client)], Duration::from_secs(1));
/// assert!(matches!(client.events()[0].1, TurnEvent::Allocated { .. }));
/// assert_eq!(net.elapsed(), Duration::from_millis(80), "a challenge and an answer");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct Relay {
    ip: IpAddr,
    rules: RelayRules,
    key: hmac::Key,
    /// The nonce's number, and since when it is in use.
    nonce: (u32, Option<Instant>),
    allocations: BTreeMap<SocketAddr, Allocation>,
    transmits: VecDeque<Transmit>,
}

/// How a [`Relay`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayRules {
    /// How long an allocation lives without a refresh.
    pub lifetime: Duration,
    /// How long a nonce is good.
    pub nonce_lifetime: Duration,
    /// Allocations at a time, at most [`Relay::PORTS`].
    pub quota: usize,
}

impl Default for RelayRules {
    /// As coturn has them.
    fn default() -> Self {
        let lifetime = Duration::from_secs(600);
        Self { lifetime, nonce_lifetime: lifetime, quota: usize::from(Relay::PORTS) }
    }
}

#[derive(Debug)]
struct Allocation {
    made_by: TransactionId,
    socket: SocketIndex,
    end: Instant,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
}

impl Relay {
    /// A server at port 3478 of a host without sockets; it relays at the ports from 49,152 on.
    pub fn new(net: &mut Net, host: NodeId, credentials: TurnCredentials, rules: RelayRules) -> Self {
        net.bind(host, 3478);
        for port in FIRST_PORT..FIRST_PORT + Self::PORTS {
            net.bind(host, port);
        }
        Self {
            ip: net.address(host),
            rules,
            key: credentials.classic_key(REALM),
            nonce: (0, None),
            allocations: BTreeMap::new(),
            transmits: VecDeque::new(),
        }
    }

    /// Ports to relay at.
    pub const PORTS: u16 = 64;

    /// Allocations that have not ended at `now`.
    #[must_use]
    pub fn allocations(&self, now: Instant) -> usize {
        self.allocations.values().filter(|allocation| now < allocation.end).count()
    }

    /// Forgets everything, as a server does that restarts.
    pub fn restart(&mut self) {
        self.allocations.clear();
    }

    fn handle_client(&mut self, now: Instant, client: SocketAddr, bytes: &[u8]) {
        if let Some((channel, data)) = channel_data(bytes) {
            let allocation = self.allocations.get(&client).filter(|allocation| now < allocation.end);
            let bound = allocation.and_then(|found| Some((found.socket, found.channels.get(&channel)?)));
            if let Some((socket, (peer, end))) = bound
                && now < *end
            {
                self.send(socket, *peer, data.to_vec());
            }
            return;
        }
        let Ok(message) = Message::decode(bytes) else { return };
        match message.class() {
            Class::Indication if message.method() == Method::SEND => self.pass_on(now, client, &message),
            Class::Request => {
                let answer = self.answer(now, client, &message);
                self.send(SocketIndex::MAIN, client, answer);
            }
            _ => {}
        }
    }

    fn pass_on(&mut self, now: Instant, client: SocketAddr, message: &Message<'_>) {
        let Some(allocation) = self.allocations.get(&client).filter(|allocation| now < allocation.end) else {
            return;
        };
        let Some(peer) = message.xor_address(attribute::XOR_PEER_ADDRESS) else { return };
        let permitted = allocation.permissions.get(&peer.ip()).is_some_and(|end| now < *end);
        if let Some(data) = message.find(attribute::DATA).filter(|_| permitted) {
            self.send(allocation.socket, peer, data.value.to_vec());
        }
    }

    fn answer(&mut self, now: Instant, client: SocketAddr, message: &Message<'_>) -> Vec<u8> {
        let answer = |class| MessageBuilder::new(class, message.method(), message.transaction());
        if message.method() == Method::BINDING {
            return answer(Class::Success).mapped_address(client).finish();
        }
        let nonce = self.nonce(now);
        let fresh = message.find(attribute::NONCE).map(|found| found.value == nonce.as_bytes());
        let code = if !message.has_integrity(&self.key) { 401 } else { 438 };
        if code == 401 || fresh != Some(true) {
            return answer(Class::Error)
                .error_code(code, "challenge")
                .attribute(attribute::REALM, REALM)
                .attribute(attribute::NONCE, nonce.as_bytes())
                .finish();
        }
        match self.carry_out(now, client, message) {
            Ok(add) => add(answer(Class::Success)).integrity(&self.key).finish(),
            Err(code) => answer(Class::Error).error_code(code, "").integrity(&self.key).finish(),
        }
    }

    fn carry_out(
        &mut self,
        now: Instant,
        client: SocketAddr,
        message: &Message<'_>,
    ) -> Result<Box<dyn FnOnce(MessageBuilder) -> MessageBuilder>, u16> {
        self.allocations.retain(|_, allocation| now < allocation.end);
        if message.method() == Method::ALLOCATE {
            return self.allocate(now, client, message.transaction());
        }
        let lifetime = self.rules.lifetime;
        let allocation = self.allocations.get_mut(&client).ok_or(437_u16)?;
        let peer = message.xor_address(attribute::XOR_PEER_ADDRESS);
        match (message.method(), peer) {
            (Method::REFRESH, _) => {
                let ends = message.find(attribute::LIFETIME).is_some_and(|asked| asked.value == [0; 4]);
                let lifetime = if ends { Duration::ZERO } else { lifetime };
                allocation.end = now + lifetime;
                Ok(Box::new(move |builder| builder.attribute(attribute::LIFETIME, &seconds(lifetime))))
            }
            (Method::CREATE_PERMISSION, Some(peer)) => {
                allocation.permissions.insert(peer.ip(), now + PERMISSION);
                Ok(Box::new(|builder| builder))
            }
            (Method::CHANNEL_BIND, Some(peer)) => {
                let number = message.find(attribute::CHANNEL_NUMBER).ok_or(400_u16)?.value;
                let number = u16::from_be_bytes([*number.first().ok_or(400_u16)?, number[1]]);
                let resting = |(known, (other, _)): (&u16, &(SocketAddr, Instant))| {
                    (*known == number) != (*other == peer)
                };
                if allocation.channels.iter().any(resting) {
                    return Err(400);
                }
                allocation.channels.insert(number, (peer, now + CHANNEL));
                allocation.permissions.insert(peer.ip(), now + PERMISSION);
                Ok(Box::new(|builder| builder))
            }
            _ => Err(400),
        }
    }

    fn allocate(
        &mut self,
        now: Instant,
        client: SocketAddr,
        transaction: TransactionId,
    ) -> Result<Box<dyn FnOnce(MessageBuilder) -> MessageBuilder>, u16> {
        let socket = match self.allocations.get(&client) {
            // Asked again because the answer got lost.
            Some(known) if known.made_by == transaction => known.socket,
            Some(_) => return Err(437),
            None => self.insert(now, client, transaction)?,
        };
        let relayed = SocketAddr::new(self.ip, FIRST_PORT + socket.0 - 1);
        let lifetime = self.rules.lifetime;
        Ok(Box::new(move |builder| {
            builder
                .xor_address(attribute::XOR_RELAYED_ADDRESS, relayed)
                .attribute(attribute::LIFETIME, &seconds(lifetime))
                .mapped_address(client)
        }))
    }

    fn insert(
        &mut self,
        now: Instant,
        client: SocketAddr,
        made_by: TransactionId,
    ) -> Result<SocketIndex, u16> {
        if self.allocations.len() >= self.rules.quota {
            return Err(486);
        }
        let taken = |socket: &SocketIndex| self.allocations.values().any(|other| other.socket == *socket);
        let socket = (1..=Self::PORTS).map(SocketIndex).find(|socket| !taken(socket)).ok_or(508_u16)?;
        let end = now + self.rules.lifetime;
        let (permissions, channels) = (BTreeMap::new(), BTreeMap::new());
        self.allocations.insert(client, Allocation { made_by, socket, end, permissions, channels });
        Ok(socket)
    }

    fn handle_peer(&mut self, now: Instant, socket: SocketIndex, peer: SocketAddr, data: &[u8]) {
        let of_socket = |(_, allocation): &(&SocketAddr, &Allocation)| allocation.socket == socket;
        let Some((client, allocation)) = self.allocations.iter().find(of_socket) else { return };
        let permitted = allocation.permissions.get(&peer.ip()).is_some_and(|end| now < *end);
        if !permitted || allocation.end <= now {
            return;
        }
        let bound = allocation.channels.iter().find(|(_, (other, end))| *other == peer && now < *end);
        let bytes = match bound {
            Some((channel, _)) => {
                let length = u16::try_from(data.len()).expect("a datagram");
                [&channel.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
            }
            None => MessageBuilder::new(Class::Indication, Method::DATA, TransactionId([0; 12]))
                .xor_address(attribute::XOR_PEER_ADDRESS, peer)
                .attribute(attribute::DATA, data)
                .finish(),
        };
        let client = *client;
        self.send(SocketIndex::MAIN, client, bytes);
    }

    fn nonce(&mut self, now: Instant) -> String {
        let (number, since) = &mut self.nonce;
        if since.is_none_or(|since| since + self.rules.nonce_lifetime <= now) {
            *number += 1;
            *since = Some(now);
        }
        format!("nonce {number}")
    }

    fn send(&mut self, socket: SocketIndex, destination: SocketAddr, bytes: Vec<u8>) {
        self.transmits.push_back(Transmit { socket, destination, bytes, hops: None });
    }
}

impl Machine for Relay {
    type Event = Infallible;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        if datagram.socket == SocketIndex::MAIN {
            self.handle_client(now, datagram.source, datagram.bytes);
        } else {
            self.handle_peer(now, datagram.socket, datagram.source, datagram.bytes);
        }
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<Infallible> {
        None
    }
}

fn channel_data(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>().filter(|(head, _)| head[0] >> 4 == 4)?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    Some((u16::from_be_bytes([head[0], head[1]]), rest.get(..length)?))
}

fn seconds(time: Duration) -> [u8; 4] {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).to_be_bytes()
}

const REALM: &[u8] = b"testing";
const FIRST_PORT: u16 = 49_152;

/// RFC 8656, sections 9 and 12.
const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);
