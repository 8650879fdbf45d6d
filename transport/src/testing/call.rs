//! One call that meets a peer, as `io/rendezvous/connect` conducts one by a single introduction: which connections are begun, by which ways
//! and when, and when nothing can come of it any more.
//!
//! ```text
//!  listener told ──due──► dialled ──failed──► due again, later each time
//!  way heard or proved ──► dialled, if we lead; else the peer asks there
//!    over a second relay ──► held back ──► dialled
//!
//!  hopeless: nothing more is told, punched, dialled, held back or awaited
//! ```
//!
//! Which of the connections carries the stream is for [`Meetings`](crate::protocol::meetings::Meetings) to say.

mod relays;

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use nat_traversal::MappedSocketAddr;

use crate::{
    PathKind, Scheme,
    path::PathKinds,
    protocol::{
        doors::{Door, LONGEST_PAUSE, doors, new_doors},
        offer::{Hole, Offer},
        paths::UdpSource,
        precedence::{ANSWER, blind_targets},
        punching::reachable,
    },
    rendezvous::{RendezvousFailure, RendezvousRoad},
};

/// What a call has tried and may yet try.
#[derive(Debug)]
pub(crate) struct Call {
    begun: Instant,
    leads: bool,
    /// What may be tried.
    ways: PathKinds,
    /// We know that a relay is needed.
    relay_at_once: bool,
    /// What the peer has told so far, where there was an offer, and we.
    theirs: Option<Offer>,
    ours: Vec<(Hole, Vec<MappedSocketAddr>)>,
    /// The numbers of the sockets that are ours at relays.
    relays: Vec<usize>,
    /// Where the peer listens.
    doors: Vec<Door>,
    attempts: Vec<Attempt>,
    /// Ways over relays that are held back.
    held: Vec<UdpSource>,
    failures: Vec<RendezvousFailure>,
    /// The peer may come in by itself.
    dialable: bool,
    /// There is a hole for QUIC on which the peer may ask.
    may_be_asked: bool,
    /// One of the two may learn more.
    more: bool,
}

/// A connection to begin, on which a stream may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    /// Its number within the call.
    pub(crate) attempt: usize,
    pub(crate) road: RendezvousRoad,
    /// The number of the socket that it goes from, if it is told.
    pub(crate) via: Option<usize>,
}

/// What follows from a way that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Something is under way there already, or it is kept for later.
    Nothing,
    /// The peer asks there, if it likes.
    Asked,
    Dial(Begin),
}

#[derive(Debug)]
struct Attempt {
    road: RendezvousRoad,
    /// The door it dials.
    door: Option<usize>,
    via: Option<usize>,
    begun: Instant,
    is_under_way: bool,
    /// It was begun before the peer was heard.
    is_blind: bool,
    /// When to begin it anew if the peer does not answer: it was heard there since.
    again: Option<Instant>,
}

impl Call {
    /// A call to a peer that listens there. Which of the two leads was agreed on.
    pub(crate) fn new(begun: Instant, leads: bool, listeners: &[(Scheme, SocketAddr)]) -> Self {
        Self {
            begun,
            leads,
            ways: PathKinds::ALL,
            relay_at_once: false,
            theirs: None,
            ours: Vec::new(),
            relays: Vec::new(),
            doors: doors(begun, listeners),
            attempts: Vec::new(),
            held: Vec::new(),
            failures: Vec::new(),
            dialable: false,
            may_be_asked: false,
            more: false,
        }
    }

    /// A call to a peer that has told where it is and may tell more, by these ways only; `relay_at_once`: we know that a relay is needed.
    pub(crate) fn offered(
        begun: Instant,
        leads: bool,
        theirs: Offer,
        ways: PathKinds,
        relay_at_once: bool,
    ) -> Self {
        let mut call = Self::new(begun, leads, &theirs.listeners);
        call.doors.retain(|door| is_one_of(door, ways));
        (call.ways, call.relay_at_once) = (ways, relay_at_once);
        (call.theirs, call.more) = (Some(theirs), true);
        call
    }

    /// Whether the peer was told where we listen, or knows.
    pub(crate) const fn dialable(mut self, dialable: bool) -> Self {
        self.dialable = dialable;
        self
    }

    /// What the peer has told so far.
    pub(crate) const fn theirs(&self) -> Option<&Offer> {
        self.theirs.as_ref()
    }

    /// What we have.
    pub(crate) fn ours(&self, hole: Hole) -> &[MappedSocketAddr] {
        self.ours.iter().find(|(of, _)| *of == hole).map_or(&[][..], |(_, all)| all)
    }

    /// Whether either side may learn more.
    pub(crate) const fn more(&self) -> bool {
        self.more
    }

    /// Takes in what the peer has said since, our addresses, and whether we may learn more.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        theirs: Option<Offer>,
        ours: Vec<(Hole, Vec<MappedSocketAddr>)>,
        we_may_learn_more: bool,
    ) {
        let Some(told) = &mut self.theirs else { return };
        if let Some(theirs) = theirs {
            if told.is_continued_by(&theirs) {
                let doors = new_doors(now, told, &theirs).into_iter();
                self.doors.extend(doors.filter(|door| is_one_of(door, self.ways)));
                *told = theirs;
            } else {
                tracing::debug!("what the peer said later does not belong to what it said first");
            }
        }
        self.more = we_may_learn_more || told.more;
        self.ours = ours;
    }

    /// A listener of the peer to dial now. Ask until `None`.
    pub(crate) fn poll_dial(&mut self, now: Instant) -> Option<Begin> {
        let index = self.doors.iter().position(|door| door.due.is_some_and(|due| due <= now))?;
        let door = &mut self.doors[index];
        door.due = None;
        let road = RendezvousRoad::Listener { scheme: door.scheme, remote: door.remote };
        Some(self.begin(now, road, Some(index), None))
    }

    /// When to go on, unless something happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let again = self.attempts.iter().filter_map(|attempt| attempt.again);
        let doors = self.doors.iter().filter_map(|door| door.due);
        doors.chain(again).chain(self.held_until()).min()
    }

    /// Connections to begin from that socket where the peer's NAT is open to us without doubt, so that the first packet of the handshake
    /// need not wait for one of the peer's.
    pub(crate) fn begin_blindly(
        &mut self,
        now: Instant,
        hole: Hole,
        socket: usize,
        vouched: &[IpAddr],
    ) -> Vec<Begin> {
        let Some(told) = &self.theirs else { return Vec::new() };
        let theirs = reachable(told.endpoints(hole), self.ways);
        let targets = blind_targets(self.ours(hole), &theirs, vouched, self.relay_at_once());
        let mut begun = Vec::new();
        for addr in targets {
            let way = UdpSource { socket, addr };
            let was_begun = self.attempts.iter().any(|attempt| attempt.is_by(way));
            let blind = self.attempts.iter().filter(|attempt| attempt.is_blind).count();
            if self.leads && !was_begun && blind < MAX_BLIND && !self.hold_back(now, way) {
                let begin = self.begin(now, punched(Scheme::Quic, addr), None, Some(socket));
                self.attempts[begin.attempt].is_blind = true;
                begun.push(begin);
            }
        }
        begun
    }

    /// The peer was heard by that way, or it is proved: what to do about it. Where QUIC was begun blindly, it begins anew in time.
    pub(crate) fn handle_way(&mut self, now: Instant, way: UdpSource, is_proved: bool) -> Found {
        let mut attempts = self.attempts.iter_mut();
        if let Some(attempt) = attempts.find(|attempt| attempt.is_under_way && attempt.is_by(way)) {
            if attempt.is_blind {
                let again = if is_proved { now } else { now + ANSWER };
                attempt.again = Some(attempt.again.map_or(again, |known| known.min(again)));
            }
            return Found::Nothing;
        }
        if !self.leads {
            return Found::Asked;
        }
        if self.hold_back(now, way) {
            return Found::Nothing;
        }
        Found::Dial(self.begin(now, punched(Scheme::Quic, way.addr), None, Some(way.socket)))
    }

    /// A punch has come to its end. A hole for QUIC works both ways: the leader asks, and comes to the follower by it.
    pub(crate) const fn handle_punched(&mut self) {
        self.may_be_asked |= !self.leads;
    }

    /// An attempt that is to begin anew if nothing has come back on it. Ask until `None`.
    pub(crate) fn poll_again(&mut self, now: Instant) -> Option<usize> {
        let due = |attempt: &Attempt| attempt.again.is_some_and(|again| again <= now);
        let index = self.attempts.iter().position(due)?;
        let attempt = &mut self.attempts[index];
        (attempt.again, attempt.is_blind) = (None, false);
        Some(index)
    }

    /// The same way once more.
    pub(crate) fn begin_again(&mut self, now: Instant, attempt: usize) -> Begin {
        let Attempt { road, via, .. } = self.attempts[attempt];
        self.begin(now, road, None, via)
    }

    /// Whether a stream over QUIC that the peer has asked for came by a hole, of which our own end of the punch may not have heard yet.
    pub(crate) const fn comes_by_hole(&self, is_punching: bool) -> bool {
        !self.leads && (self.may_be_asked || is_punching)
    }

    /// No stream came of that attempt; `is_another`: somebody else lives there.
    pub(crate) fn attempt_failed(
        &mut self,
        now: Instant,
        attempt: usize,
        is_another: bool,
        reason: &dyn Display,
    ) {
        // Somebody else, as happens with addresses of private networks, and whoever was tried often enough, is left alone.
        let again = !is_another && self.attempts.len() < MAX_ATTEMPTS;
        let Some(tried) = self.attempts.get_mut(attempt) else { return };
        tried.is_under_way = false;
        let (road, begun, door) = (tried.road, tried.begun, tried.door);
        if let Some(door) = door.filter(|_| again).and_then(|door| self.doors.get_mut(door)) {
            door.due = Some(now + door.pause);
            door.pause = (door.pause * 2).min(LONGEST_PAUSE);
        }
        self.failures.retain(|failure| failure.road != road);
        self.fail(now, road, begun, reason);
    }

    /// A way came to nothing that had begun then.
    pub(crate) fn fail(&mut self, now: Instant, road: RendezvousRoad, begun: Instant, reason: &dyn Display) {
        tracing::debug!(?road, %reason, "a way to meet failed");
        self.failures.push(RendezvousFailure::new(road, begun, now, reason));
    }

    /// Nothing is under way, and nothing can come. `is_punching`: a hole for UDP is being punched.
    pub(crate) fn is_hopeless(&self, is_punching: bool) -> bool {
        let dialling = self.attempts.iter().any(|attempt| attempt.is_under_way);
        let will_dial = self.doors.iter().any(|door| door.due.is_some());
        !self.more
            && !dialling
            && !will_dial
            && !self.may_be_asked
            && !self.dialable
            && !is_punching
            && self.held.is_empty()
    }

    /// What became of each way; what has no end yet ran out of time, such as the punches and what stood in their way.
    pub(crate) fn failures(
        &mut self,
        now: Instant,
        punching: impl IntoIterator<Item = (RendezvousRoad, String)>,
    ) -> Vec<RendezvousFailure> {
        let mut failures = std::mem::take(&mut self.failures);
        let unfinished = self.attempts.iter().filter(|attempt| attempt.is_under_way);
        failures
            .extend(unfinished.map(|attempt| {
                RendezvousFailure::new(attempt.road, attempt.begun, now, "no answer in time")
            }));
        let punching = punching.into_iter();
        failures.extend(punching.map(|(road, why)| RendezvousFailure::new(road, self.begun, now, why)));
        if self.dialable || !self.leads {
            let why = "the peer did not come by itself";
            failures.push(RendezvousFailure::new(RendezvousRoad::Incoming, self.begun, now, why));
        }
        failures
    }

    fn begin(
        &mut self,
        now: Instant,
        road: RendezvousRoad,
        door: Option<usize>,
        via: Option<usize>,
    ) -> Begin {
        let (is_under_way, is_blind, again) = (true, false, None);
        self.attempts.push(Attempt { road, door, via, begun: now, is_under_way, is_blind, again });
        Begin { attempt: self.attempts.len() - 1, road, via }
    }
}

impl Attempt {
    /// Whether it goes by that way.
    fn is_by(&self, way: UdpSource) -> bool {
        self.road == punched(Scheme::Quic, way.addr) && self.via == Some(way.socket)
    }
}

const fn punched(scheme: Scheme, remote: SocketAddr) -> RendezvousRoad {
    RendezvousRoad::Punched { scheme, remote: Some(remote) }
}

fn is_one_of(door: &Door, ways: PathKinds) -> bool {
    ways.contains(PathKind::of(door.remote, false))
}

/// Ways on which QUIC begins before the peer is heard, however many the peer names in time.
const MAX_BLIND: usize = 4;
/// Connections in all; a rendezvous is no port scan.
const MAX_ATTEMPTS: usize = 128;

#[cfg(test)]
mod tests;
