//! The introducer's side: who is attached, who calls whom, and how much of it anybody may do.
//!
//! ```text
//!            Attach               Knock ─► receiver rings                    both ends: End, or the call's time is up
//! connected ────────► attached    ────────────────────────► call: Notes each way ───────────────► forgotten
//! ```
//!
//! A call is known by a number of each client's own; the board translates. It sees keys, lengths and times, and nothing of
//! what the messages say.

pub(crate) mod frame;
mod quota;
mod still;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use transport::PublicKey;

use self::{
    frame::{EndReason, Frame},
    quota::{Quota, Rate},
    still::Stills,
};

/// How much an introducer does, for all and for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Peers connected at a time.
    pub(crate) clients: usize,
    /// The same from one address; for IPv6, from one /64.
    pub(crate) clients_per_address: usize,
    /// Calls in progress towards one peer.
    pub(crate) calls_per_receiver: usize,
    /// Calls that one key may make.
    pub(crate) knocks_per_key: Rate,
    /// Calls that one address may make.
    pub(crate) knocks_per_address: Rate,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            clients: 4_096,
            // Half a company may sit behind one address.
            clients_per_address: 128,
            // A call lasts as long as the meeting, mostly half a second.
            calls_per_receiver: 32,
            knocks_per_key: Rate { burst: 8, every: Duration::from_secs(1) },
            knocks_per_address: Rate { burst: 64, every: Duration::from_millis(125) },
        }
    }
}

/// A connected peer, for as long as its stream lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientId(u64);

/// What is to be done with a client's stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Send(Frame),
    /// It broke a rule, or somebody with its key has come anew.
    Close,
}

/// The pure introducer.
#[derive(Debug)]
pub(crate) struct Switchboard {
    bounds: Bounds,
    stun_port: u16,
    clients: BTreeMap<ClientId, Client>,
    attached: BTreeMap<PublicKey, ClientId>,
    calls: BTreeMap<u32, Call>,
    stills: Stills,
    by_key: Quota<PublicKey>,
    by_address: Quota<IpAddr>,
    orders: VecDeque<(ClientId, Order)>,
    next_client: u64,
    next_call: u32,
    /// When to look for what has had its time, if there is anything.
    sweep_at: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    key: PublicKey,
    /// From where it comes.
    address: IpAddr,
    /// What quotas count it to.
    source: IpAddr,
    /// One that neither attaches nor calls has nothing to do here.
    idle_since: Instant,
}

#[derive(Debug)]
struct Call {
    dialer: ClientId,
    /// The dialer's own number for it. The receiver's is the board's.
    number: u32,
    receiver: ClientId,
    /// How many notes are still carried, to each.
    left: [u8; 2],
    /// Whether the address of each has been told to the other, as it wished.
    vouched: [bool; 2],
    until: Instant,
}

impl Switchboard {
    /// An empty board; `stun_port` is where the introducer answers STUN, 0 if nowhere.
    pub(crate) fn new(bounds: Bounds, stun_port: u16) -> Self {
        Self {
            bounds,
            stun_port,
            clients: BTreeMap::new(),
            attached: BTreeMap::new(),
            calls: BTreeMap::new(),
            stills: Stills::default(),
            by_key: Quota::new(bounds.knocks_per_key),
            by_address: Quota::new(bounds.knocks_per_address),
            orders: VecDeque::new(),
            next_client: 0,
            next_call: 0,
            sweep_at: None,
        }
    }

    /// Takes a peer in that has proved its key, if there is room.
    pub(crate) fn connect(&mut self, now: Instant, key: PublicKey, source: IpAddr) -> Option<ClientId> {
        let (address, source) = (source.to_canonical(), prefix(source));
        let beside = self.clients.values().filter(|client| client.source == source).count();
        if self.clients.len() >= self.bounds.clients || beside >= self.bounds.clients_per_address {
            return None;
        }
        let id = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(id, Client { key, address, source, idle_since: now });
        self.sweep_at.get_or_insert(now + SWEEP_EVERY);
        Some(id)
    }

    /// A client's stream has ended.
    pub(crate) fn disconnect(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        if self.attached.get(&client.key) == Some(&id) {
            self.attached.remove(&client.key);
        }
        self.stills.forget(id);
        let ended = self.calls.extract_if(.., |_, call| call.dialer == id || call.receiver == id);
        let ended: Vec<_> = ended.collect();
        for (number, call) in ended {
            if call.dialer == id {
                self.send(call.receiver, Frame::End { call: number, reason: EndReason::Gone });
            } else {
                self.send(call.dialer, Frame::End { call: call.number, reason: EndReason::Gone });
            }
        }
    }

    /// Takes what a client sent.
    pub(crate) fn handle_frame(&mut self, now: Instant, id: ClientId, frame: Frame) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.idle_since = now;
        self.stills.heard(now, id);
        self.sweep_at.get_or_insert(now + SWEEP_EVERY);
        match frame {
            Frame::Attach => self.attach(id),
            Frame::Knock { call, key, knock } => self.knock(now, id, call, key, knock),
            Frame::Note { call, note } => self.note(id, call, note),
            Frame::End { call, reason } => self.end(id, call, reason),
            Frame::Vouch { call, source: None } => self.vouch(id, call),
            Frame::Rest { seconds } => self.rest(now, id, seconds),
            // It is we who say this.
            Frame::Attached { .. }
            | Frame::Relay(_)
            | Frame::Still
            | Frame::Vouch { source: Some(_), .. } => {
                self.close(id);
            }
        }
    }

    /// Forgets calls whose time is up and clients that want nothing; tells those who wait for it that we are there.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.stills.poll(now) {
            self.send(id, Frame::Still);
        }
        if self.sweep_at.is_some_and(|due| due <= now) {
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let late: Vec<_> = self.calls.extract_if(.., |_, call| call.until <= now).collect();
        for (number, call) in late {
            self.send(call.dialer, Frame::End { call: call.number, reason: EndReason::TimedOut });
            self.send(call.receiver, Frame::End { call: number, reason: EndReason::TimedOut });
        }
        let dialling: BTreeSet<ClientId> = self.calls.values().map(|call| call.dialer).collect();
        let wanting =
            |id, client: &Client| dialling.contains(&id) || self.attached.get(&client.key) == Some(&id);
        let idle: Vec<_> = self.clients.iter().filter(|&(&id, client)| !wanting(id, client)).collect();
        let all_want = idle.is_empty();
        let late = idle.into_iter().filter(|(_, client)| client.idle_since + IDLE <= now);
        for id in late.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.close(id);
        }
        self.sweep_at = (!all_want || !self.calls.is_empty()).then(|| now + SWEEP_EVERY);
    }

    /// When to call `handle_timeout`: within a second of when a call or a client has had its time, so that nobody counts thousands of
    /// clients for each packet.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.sweep_at.into_iter().chain(self.stills.poll_timeout()).min()
    }

    /// What to do next, until `None`.
    pub(crate) fn poll_order(&mut self) -> Option<(ClientId, Order)> {
        self.orders.pop_front()
    }

    /// How many peers are attached.
    #[cfg(test)]
    pub(crate) fn attached(&self) -> usize {
        self.attached.len()
    }

    fn attach(&mut self, id: ClientId) {
        let key = self.clients[&id].key;
        // The newer stream is the live one: the older may be of a network that is gone.
        if let Some(older) = self.attached.insert(key, id)
            && older != id
        {
            self.close(older);
        }
        self.send(id, Frame::Attached { stun_port: self.stun_port });
    }

    /// Only who is to be called need be kept in touch with.
    fn rest(&mut self, now: Instant, id: ClientId, seconds: u16) {
        if self.attached.get(&self.clients[&id].key) == Some(&id) {
            self.stills.set(now, id, silence(seconds));
        }
    }

    fn knock(&mut self, now: Instant, id: ClientId, number: u32, key: PublicKey, knock: Vec<u8>) {
        if number & DIALLED == 0 {
            return self.close(id);
        }
        if let Err(reason) = self.ring(now, id, number, key, knock) {
            self.send(id, Frame::End { call: number, reason });
        }
    }

    fn ring(
        &mut self,
        now: Instant,
        id: ClientId,
        number: u32,
        key: PublicKey,
        knock: Vec<u8>,
    ) -> Result<(), EndReason> {
        let Client { key: dialer, source, .. } = self.clients[&id];
        if !self.by_key.take(now, dialer) || !self.by_address.take(now, source) {
            return Err(EndReason::Busy);
        }
        let receiver = *self.attached.get(&key).ok_or(EndReason::Unknown)?;
        if self.find(id, number).is_some() {
            return Err(EndReason::Busy);
        }
        if self.calls.values().filter(|call| call.receiver == receiver).count()
            >= self.bounds.calls_per_receiver
        {
            return Err(EndReason::Busy);
        }
        // Calls end within seconds, so a number comes round long after its last use.
        let call = self.next_call;
        self.next_call = (call + 1) & !DIALLED;
        let left = [NOTES_PER_CALL; 2];
        self.calls.insert(
            call,
            Call { dialer: id, number, receiver, left, vouched: [false; 2], until: now + CALL_TIME },
        );
        self.send(receiver, Frame::Knock { call, key: dialer, knock });
        Ok(())
    }

    /// Carries a note to the other end of the call.
    fn note(&mut self, id: ClientId, number: u32, note: Vec<u8>) {
        let Some((call, from_dialer)) = self.find(id, number) else { return };
        let entry = self.calls.get_mut(&call).expect("it was just found");
        let left = &mut entry.left[usize::from(from_dialer)];
        if *left == 0 {
            return self.close(id);
        }
        *left -= 1;
        let (to, number) = if from_dialer { (entry.receiver, call) } else { (entry.dialer, entry.number) };
        self.send(to, Frame::Note { call: number, note });
    }

    /// Tells the other end of the call where this one comes from. Only if it wants that: who refuses a dialer stays hidden.
    fn vouch(&mut self, id: ClientId, number: u32) {
        let Some((call, from_dialer)) = self.find(id, number) else { return };
        let source = Some(self.clients[&id].address);
        let entry = self.calls.get_mut(&call).expect("it was just found");
        if std::mem::replace(&mut entry.vouched[usize::from(from_dialer)], true) {
            return;
        }
        let (to, number) = if from_dialer { (entry.receiver, call) } else { (entry.dialer, entry.number) };
        self.send(to, Frame::Vouch { call: number, source });
    }

    fn end(&mut self, id: ClientId, number: u32, reason: EndReason) {
        let Some((call, from_dialer)) = self.find(id, number) else { return };
        let entry = self.calls.remove(&call).expect("it was just found");
        let (to, number) = if from_dialer { (entry.receiver, call) } else { (entry.dialer, entry.number) };
        self.send(to, Frame::End { call: number, reason });
    }

    /// The call that a client names by this number, and whether it is its dialer.
    fn find(&self, id: ClientId, number: u32) -> Option<(u32, bool)> {
        if number & DIALLED == 0 {
            return self.calls.get(&number).filter(|call| call.receiver == id).map(|_| (number, false));
        }
        let mut calls = self.calls.iter();
        calls.find(|(_, call)| call.dialer == id && call.number == number).map(|(&call, _)| (call, true))
    }

    fn close(&mut self, id: ClientId) {
        self.orders.push_back((id, Order::Close));
        self.disconnect(id);
    }

    fn send(&mut self, to: ClientId, frame: Frame) {
        if self.clients.contains_key(&to) {
            self.orders.push_back((to, Order::Send(frame)));
        }
    }
}

/// How long an attached peer that asks for so many seconds is left alone.
pub(crate) fn silence(seconds: u16) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()).clamp(SHORTEST_SILENCE, LONGEST_SILENCE))
}

/// What one subscriber has: an IPv4 address, an IPv6 /64.
fn prefix(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// In the numbers of calls: set in those that a dialer chooses, clear in those that ring.
pub(crate) const DIALLED: u32 = 1 << 31;
/// From the knock to the last note; a map of a socket by a slow STUN server takes three seconds.
const CALL_TIME: Duration = Duration::from_secs(15);
/// An answer or an offer, and addresses found late.
const NOTES_PER_CALL: u8 = 8;
/// How long a client may want nothing.
const IDLE: Duration = Duration::from_secs(30);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// No NAT should be asked more often (RFC 8085, section 3.5).
const SHORTEST_SILENCE: Duration = Duration::from_secs(15);
/// Who is gone is to be noticed some time.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests;
