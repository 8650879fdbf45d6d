//! The ways to one peer, and which of them carries the datagrams.
//!
//! QUIC knows nothing of it: a connection has one made-up address for its life ([`MadeUpAddresses`]). A way is one of our
//! sockets and an address at the other end. What comes by an unknown way moves nothing: a *path check*, an authenticated
//! STUN request, goes back there, and only its answer from there proves the way. Until then it gets no more than three
//! times the bytes that came from it (RFC 9000 §8.1).
//!
//! ```text
//!  unknown ──datagram──► Checking ──answered──► proven ──► carries, if
//!  offered ─────────────►    │                               * it was offered here: at once
//!                            └─ never: left alone            * the peer has left the present way: we accepted, the answer says
//!                                                              that the dialer uses this one, and nothing came by the present
//!                                                              one since the check began
//!                                                            * the present way is dead: its own check went unanswered
//! ```
//!
//! The dialer of the connection goes where it is told and does not follow as long as its way lives; the acceptor follows.
//! So two that move at the same time do not chase each other. That the dialer says which way it uses stands for the packet
//! numbers of RFC 9000 §9.3, which the engine does not show: a datagram that was overtaken on an old way, or held back by
//! somebody, has that way checked, and its answer moves nothing.

mod check;
mod made_up;
mod silence;

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use nat_traversal::protocol::{Due, Random, Retry, Seed, stun::TransactionId};

use self::silence::Silence;
pub(crate) use self::{
    check::{CheckKeys, CheckTag, Checked, peek_tag},
    made_up::MadeUpAddresses,
    silence::Awaited,
};

/// A way to the peer: the number of our socket, and the address at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UdpSource {
    pub(crate) socket: usize,
    pub(crate) addr: SocketAddr,
}

/// How a datagram came, or is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) source: UdpSource,
    /// Our address, where it was chosen; else the system's choice.
    pub(crate) local: Option<IpAddr>,
}

/// The ways of one connection.
#[derive(Debug)]
pub(crate) struct Paths {
    /// Known once the handshake is over; nothing moves before.
    keys: Option<CheckKeys>,
    /// Whether it goes where the peer goes: the acceptor does.
    follows: bool,
    random: Random,
    /// The first one carries.
    ways: Vec<KnownWay>,
    silence: Silence,
    /// When a way that was offered was last taken: the dialer may be on its way there.
    took: Option<Instant>,
    outgoing: VecDeque<(Way, Vec<u8>)>,
    moves: VecDeque<Move>,
}

/// The datagrams take another way from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) to: Way,
    /// Whether only the peer's port is new, as after its NAT forgot it: the path itself is the same then (RFC 9000 §9.4).
    pub(crate) same_path: bool,
    /// How long the check took, if one answer tells.
    pub(crate) round_trip: Option<Duration>,
}

#[derive(Debug)]
struct KnownWay {
    way: Way,
    offered: bool,
    proven: bool,
    /// Its last check went unanswered.
    is_dead: bool,
    received_bytes: u64,
    sent_bytes: u64,
    /// When the last datagram of QUIC came by it; checks do not count, as the peer may just be looking around.
    heard: Option<Instant>,
    /// When it last proved itself.
    answered: Option<Instant>,
    /// Boxed, since there is seldom one.
    check: Option<Box<Check>>,
    /// No further check before.
    next_check: Option<Instant>,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
struct Check {
    begun: Instant,
    retry: Retry,
    asked: Vec<(TransactionId, Instant)>,
}

impl Paths {
    /// Begins with the way that the handshake takes.
    pub(crate) fn new(way: Way, follows: bool, seed: Seed) -> Self {
        let mut first = KnownWay::new(way);
        first.proven = true;
        Self {
            keys: None,
            follows,
            random: Random::new(seed),
            ways: vec![first],
            silence: Silence::default(),
            took: None,
            outgoing: VecDeque::new(),
            moves: VecDeque::new(),
        }
    }

    /// The handshake is over, and both sides can prove who they are.
    pub(crate) fn connected(&mut self, keys: CheckKeys) {
        self.keys = Some(keys);
    }

    /// The way that carries.
    pub(crate) fn active(&self) -> Way {
        self.ways[0].way
    }

    /// The system has no use for our address on the present way any more.
    pub(crate) fn forget_local(&mut self) {
        self.ways[0].way.local = None;
    }

    /// Addresses of ours are gone, as after a change of network: the system knows what to send from instead.
    pub(crate) fn forget_locals(&mut self, is_gone: impl Fn(IpAddr) -> bool) {
        for known in &mut self.ways {
            known.way.local = known.way.local.filter(|local| !is_gone(*local));
        }
    }

    /// A QUIC datagram of this connection came.
    pub(crate) fn handle_datagram(&mut self, now: Instant, way: Way, bytes: usize) {
        if self.ways[0].way.source == way.source {
            self.ways[0].heard = Some(now);
            self.silence.ended();
            return;
        }
        let Some(index) = self.find_or_add(way) else { return };
        self.ways[index].received(bytes);
        self.ways[index].heard = Some(now);
        self.begin_check(now, index);
        if !self.follows {
            self.begin_check(now, 0);
        }
    }

    /// A STUN message came that says it is of this connection; tells whether it was.
    pub(crate) fn handle_check(&mut self, now: Instant, way: Way, bytes: &[u8]) -> bool {
        let Some(keys) = &self.keys else { return false };
        let Some((id, checked)) = keys.decode(bytes) else { return false };
        let is_used = !self.follows && self.active().source == way.source;
        let answer = keys.answer(id, way.source.addr, is_used);
        let Some(index) = self.find_or_add(way) else { return true };
        match checked {
            Checked::Request => {
                self.ways[index].received(bytes.len());
                self.send(index, answer);
            }
            Checked::Answer { is_used } => self.handle_answer(now, index, id, is_used),
        }
        true
    }

    fn handle_answer(&mut self, now: Instant, index: usize, id: TransactionId, is_used: bool) {
        let known = &mut self.ways[index];
        let asked = known.check.as_ref().and_then(|check| check.asked.iter().find(|(asked, _)| *asked == id));
        let (Some(&(_, asked)), Some(check)) = (asked, &known.check) else { return };
        let begun = check.begun;
        known.proven = true;
        known.answered = Some(now);
        known.round_trip = Some(now.saturating_duration_since(asked));
        known.check = None;
        if index == 0 {
            self.silence.ended();
            return;
        }
        let left = is_used && self.ways[0].heard.is_none_or(|heard| heard < begun);
        let settles = self.took.is_some_and(|took| now < took + SETTLING);
        let dead = self.ways[0].is_dead || self.silence.is_cut_off();
        if self.ways[index].offered {
            self.took = Some(now);
            self.move_to(index);
        } else if self.follows && left && !settles || dead {
            self.move_to(index);
        }
    }

    /// Tries a way that was found out here, and takes it if it works.
    pub(crate) fn offer(&mut self, now: Instant, way: Way) {
        if self.ways[0].way.source == way.source {
            // It is the way that carries, if it does: one of ours has moved back, say, or the hole was closed meanwhile.
            self.ways[0].way.local = way.local;
            self.ways[0].next_check = None;
            return self.begin_check(now, 0);
        }
        let Some(index) = self.find_or_add(way) else { return };
        self.ways[index].offered = true;
        self.ways[index].next_check = None;
        self.begin_check(now, index);
    }

    /// Finds out at once which ways still lead to the peer.
    pub(crate) fn check_all(&mut self, now: Instant) {
        for index in 0..self.ways.len() {
            self.ways[index].next_check = None;
            self.begin_check(now, index);
        }
    }

    /// QUIC datagrams went out.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.silence.sent(now);
    }

    fn find_or_add(&mut self, way: Way) -> Option<usize> {
        if let Some(index) = self.ways.iter().position(|known| known.way.source == way.source) {
            let known = &mut self.ways[index].way;
            // Where the peer reached us last is where we are.
            known.local = way.local.or(known.local);
            return Some(index);
        }
        // A connection within this host has datagrams larger than any network carries.
        let near = |way: Way| way.source.addr.ip().to_canonical().is_loopback();
        if near(way) != near(self.active()) {
            return None;
        }
        if self.ways.len() >= MAX_WAYS {
            // Whoever makes sources up pushes out others of its kind; a way that has proved itself goes only if all have.
            let others = || self.ways.iter().enumerate().skip(1).filter(|(_, known)| !known.offered);
            let made_up = others().find(|(_, known)| !known.proven);
            let (stale, _) = made_up.or_else(|| others().min_by_key(|(_, known)| known.answered))?;
            self.ways.remove(stale);
        }
        self.ways.push(KnownWay::new(way));
        Some(self.ways.len() - 1)
    }

    fn begin_check(&mut self, now: Instant, index: usize) {
        let known = &mut self.ways[index];
        let too_early = known.next_check.is_some_and(|next| now < next);
        if self.keys.is_none() || known.check.is_some() || too_early {
            return;
        }
        let wait = known.round_trip.map_or(FIRST_WAIT, |round_trip| round_trip * 3 / 2);
        let retry = Retry::with(now, wait.clamp(SHORTEST_WAIT, LONGEST_WAIT), CHECKS, LONGEST_WAIT);
        known.check = Some(Box::new(Check { begun: now, retry, asked: Vec::new() }));
        known.next_check = Some(now + CHECK_GAP);
        known.is_dead = false;
        self.go_on(now, index);
    }

    /// Sends the next request of a check that is due.
    fn go_on(&mut self, now: Instant, index: usize) {
        let heard = self.ways[index].heard;
        let Some(check) = &mut self.ways[index].check else { return };
        let due = check.retry.poll(now);
        let begun = check.begun;
        let in_vain = heard.is_none_or(|heard| heard < begun) && check.asked.len() >= LOST_REQUESTS;
        if index == 0 && in_vain && due != Due::Nothing {
            self.silence.cut_off();
            // Another may have shown meanwhile that it works.
            let answered = |known: &KnownWay| known.answered.is_some_and(|answered| answered >= begun);
            if let Some(other) = self.ways.iter().skip(1).position(answered) {
                return self.move_to(other + 1);
            }
        }
        let Some(check) = &mut self.ways[index].check else { return };
        match due {
            Due::Nothing => {}
            Due::Send => {
                let id = TransactionId::draw(&mut self.random);
                check.asked.push((id, now));
                if let Some(keys) = &self.keys {
                    let request = keys.request(id);
                    self.send(index, request);
                }
            }
            Due::GiveUp => {
                let known = &mut self.ways[index];
                known.check = None;
                known.is_dead = true;
                known.proven &= index == 0;
                known.offered = false;
                if index == 0 {
                    self.leave_dead_way();
                }
            }
        }
    }

    /// The present way does not answer; one that has just answered does better.
    fn leave_dead_way(&mut self) {
        let proven = self.ways.iter().enumerate().skip(1).filter(|(_, known)| known.proven && !known.is_dead);
        if let Some((index, _)) = proven.max_by_key(|(_, known)| known.answered) {
            self.move_to(index);
        }
    }

    fn move_to(&mut self, index: usize) {
        let before = self.ways[0].way.source;
        let known = &mut self.ways[index];
        known.offered = false;
        let (to, round_trip) = (known.way, known.round_trip);
        let same_path = to.source.socket == before.socket && to.source.addr.ip() == before.addr.ip();
        self.ways.swap(0, index);
        self.ways[0].is_dead = false;
        // Two that find several at once are not to go from one to the other.
        self.ways.iter_mut().for_each(|known| known.offered = false);
        self.silence.ended();
        self.moves.push_back(Move { to, same_path, round_trip });
    }

    /// Sends, unless the other end might be somebody who must not get more than it sent.
    fn send(&mut self, index: usize, bytes: Vec<u8>) {
        let known = &mut self.ways[index];
        let length = bytes.len() as u64;
        let allowed = known.received_bytes.saturating_mul(AMPLIFICATION);
        if !known.proven && !known.offered && known.sent_bytes.saturating_add(length) > allowed {
            return;
        }
        known.sent_bytes = known.sent_bytes.saturating_add(length);
        self.outgoing.push_back((known.way, bytes));
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, awaited: Awaited) {
        for index in 0..self.ways.len() {
            // A move changes places; a place looked at twice has nothing due the second time.
            self.go_on(now, index);
        }
        let is_silent = self.silence.look(now, awaited);
        if self.keys.is_some() && (is_silent || awaited.has_stalled) {
            self.ways[0].round_trip = Some(awaited.round_trip);
            for index in 0..self.ways.len() {
                self.begin_check(now, index);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let checks = self.ways.iter().filter_map(|known| Some(known.check.as_ref()?.retry.timeout()));
        checks.chain(self.silence.timer().filter(|_| self.keys.is_some())).min()
    }

    /// Whether the peer does not answer by the present way, and no other is known.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.silence.is_cut_off()
    }

    /// Whether it has just become so; once.
    pub(crate) fn poll_cut_off(&mut self) -> bool {
        self.silence.poll_cut_off()
    }

    /// Whether the peer, of whom it was doubtful, has just answered; once.
    pub(crate) fn poll_answered_again(&mut self) -> bool {
        self.silence.poll_over()
    }

    /// A message to send, and by which way.
    pub(crate) fn poll_transmit(&mut self) -> Option<(Way, Vec<u8>)> {
        self.outgoing.pop_front()
    }

    pub(crate) fn poll_move(&mut self) -> Option<Move> {
        self.moves.pop_front()
    }

    /// Whether that socket is part of a way.
    pub(crate) fn uses(&self, socket: usize) -> bool {
        self.ways.iter().any(|known| known.way.source.socket == socket)
    }
}

impl KnownWay {
    fn new(way: Way) -> Self {
        Self {
            way,
            offered: false,
            proven: false,
            is_dead: false,
            received_bytes: 0,
            sent_bytes: 0,
            heard: None,
            answered: None,
            check: None,
            next_check: None,
            round_trip: None,
        }
    }

    fn received(&mut self, bytes: usize) {
        self.received_bytes = self.received_bytes.saturating_add(bytes as u64);
    }
}

/// Ways known at a time: the present one, a few that were offered, and room for what strangers make up.
const MAX_WAYS: usize = 8;
/// RFC 9000 §8.1.
const AMPLIFICATION: u64 = 3;
/// Requests of one check, and the waits between them; they double. A dead way is known as one after a good second.
const CHECKS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Between the beginnings of two checks of one way.
const CHECK_GAP: Duration = Duration::from_millis(250);
/// So long a dialer may take to what its acceptor has taken already: two that punch find their hole within a round trip or two.
const SETTLING: Duration = Duration::from_secs(1);
/// So many requests by the present way without an answer, one after the other, are not mere loss.
const LOST_REQUESTS: usize = 2;

#[cfg(test)]
mod tests;
