//! One call of a node that meets a peer, as `io/rendezvous/connect.rs` conducts one: which connections are begun when, and when nothing can come of it any more.
//!
//! ```text
//!  listener told ──due──► dialled ──failed──► due again, later each time
//!  hole heard or punched ──► dialled, if we lead; else the peer asks
//!
//!  hopeless: nothing more is told, punched, dialled or awaited
//! ```
//!
//! Which of the connections carries the stream is for [`Meetings`](crate::protocol::meetings::Meetings) to say.

use std::{fmt::Display, net::SocketAddr, time::Instant};

use crate::{
    PathKind, Scheme,
    path::PathKinds,
    protocol::{
        doors::{Door, LONGEST_PAUSE, doors, new_doors},
        offer::Offer,
        precedence::ANSWER,
    },
    rendezvous::{RendezvousFailure, RendezvousRoad},
};

/// What a call has tried and may yet try.
#[derive(Debug)]
pub(super) struct Call {
    begun: Instant,
    leads: bool,
    /// What may be tried.
    ways: PathKinds,
    /// What the peer has told so far, where there was an offer.
    theirs: Option<Offer>,
    /// Where the peer listens.
    doors: Vec<Door>,
    attempts: Vec<Attempt>,
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
pub(super) struct Begin {
    /// Its number within the call.
    pub(super) attempt: usize,
    pub(super) road: RendezvousRoad,
}

#[derive(Debug)]
struct Attempt {
    road: RendezvousRoad,
    /// The door it dials.
    door: Option<usize>,
    /// The number of the socket that it was told to go from.
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
    pub(super) fn new(begun: Instant, leads: bool, listeners: &[(Scheme, SocketAddr)]) -> Self {
        Self {
            begun,
            leads,
            ways: PathKinds::ALL,
            theirs: None,
            doors: doors(begun, listeners),
            attempts: Vec::new(),
            failures: Vec::new(),
            dialable: false,
            may_be_asked: false,
            more: false,
        }
    }

    /// A call to a peer that has told where it is and may tell more, by these ways only.
    pub(super) fn offered(begun: Instant, leads: bool, theirs: Offer, ways: PathKinds) -> Self {
        let mut call = Self::new(begun, leads, &theirs.listeners);
        call.doors.retain(|door| is_one_of(door, ways));
        (call.ways, call.theirs, call.more) = (ways, Some(theirs), true);
        call
    }

    /// Whether the peer was told where we listen, or knows.
    pub(super) const fn dialable(mut self, dialable: bool) -> Self {
        self.dialable = dialable;
        self
    }

    pub(super) const fn leads(&self) -> bool {
        self.leads
    }

    pub(super) const fn begun(&self) -> Instant {
        self.begun
    }

    /// What the peer has told so far.
    pub(super) const fn theirs(&self) -> Option<&Offer> {
        self.theirs.as_ref()
    }

    /// Whether either side may learn more.
    pub(super) const fn more(&self) -> bool {
        self.more
    }

    /// Takes in what the peer has said since, and whether we may learn more.
    pub(super) fn learn(&mut self, now: Instant, theirs: Option<Offer>, we_may_learn_more: bool) {
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
    }

    /// A listener of the peer to dial now. Ask until `None`.
    pub(super) fn poll_dial(&mut self, now: Instant) -> Option<Begin> {
        let index = self.doors.iter().position(|door| door.due.is_some_and(|due| due <= now))?;
        let door = &mut self.doors[index];
        door.due = None;
        let road = RendezvousRoad::Listener { scheme: door.scheme, remote: door.remote };
        Some(self.begin(now, road, Some(index), None))
    }

    /// When to ask for one, unless something happens before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let again = self.attempts.iter().filter_map(|attempt| attempt.again);
        self.doors.iter().filter_map(|door| door.due).chain(again).min()
    }

    /// A way from that socket was heard, or proved: whether QUIC is under way there. If it was begun blindly, it begins anew in time.
    pub(super) fn is_tried(&mut self, now: Instant, remote: SocketAddr, via: usize, is_proved: bool) -> bool {
        let mut attempts = self.attempts.iter_mut();
        let Some(attempt) = attempts.find(|attempt| attempt.is_under_way && attempt.is_by(remote, via))
        else {
            return false;
        };
        if attempt.is_blind {
            let again = if is_proved { now } else { now + ANSWER };
            attempt.again = Some(attempt.again.map_or(again, |known| known.min(again)));
        }
        true
    }

    /// Begins QUIC where the peer's NAT is open to us without doubt, before the peer is heard there.
    pub(super) fn begin_blindly(&mut self, now: Instant, remote: SocketAddr, via: usize) -> Option<Begin> {
        let blind = self.attempts.iter().filter(|attempt| attempt.is_blind).count();
        if blind >= MAX_BLIND || self.attempts.iter().any(|attempt| attempt.is_by(remote, via)) {
            return None;
        }
        let begin = self.handle_hole(now, Scheme::Quic, remote, Some(via))?;
        self.attempts[begin.attempt].is_blind = true;
        Some(begin)
    }

    /// An attempt that is to begin anew if nothing has come back on it, and its socket. Ask until `None`.
    pub(super) fn poll_again(&mut self, now: Instant) -> Option<(usize, usize)> {
        let due = |attempt: &Attempt| attempt.again.is_some_and(|again| again <= now);
        let index = self.attempts.iter().position(due)?;
        let attempt = &mut self.attempts[index];
        (attempt.again, attempt.is_blind) = (None, false);
        Some((index, attempt.via.unwrap_or_default()))
    }

    /// The same way once more.
    pub(super) fn begin_again(&mut self, now: Instant, attempt: usize) -> Begin {
        let Attempt { road, via, .. } = self.attempts[attempt];
        self.begin(now, road, None, via)
    }

    /// There is a hole to that address, or all but certainly one: the connection to begin over it, if that is ours to do.
    pub(super) fn handle_hole(
        &mut self,
        now: Instant,
        scheme: Scheme,
        remote: SocketAddr,
        via: Option<usize>,
    ) -> Option<Begin> {
        let road = RendezvousRoad::Punched { scheme, remote: Some(remote) };
        self.leads.then(|| self.begin(now, road, None, via))
    }

    /// A hole for QUIC works both ways: the leader asks, and comes to the follower by it.
    pub(super) const fn handle_punched(&mut self) {
        self.may_be_asked |= !self.leads;
    }

    #[cfg(test)]
    const fn may_be_asked(&self) -> bool {
        self.may_be_asked
    }

    fn begin(
        &mut self,
        now: Instant,
        road: RendezvousRoad,
        door: Option<usize>,
        via: Option<usize>,
    ) -> Begin {
        self.attempts.push(Attempt {
            road,
            door,
            via,
            begun: now,
            is_under_way: true,
            is_blind: false,
            again: None,
        });
        Begin { attempt: self.attempts.len() - 1, road }
    }

    /// No stream came of that attempt; `is_another`: somebody else lives there.
    pub(super) fn attempt_failed(
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
    pub(super) fn fail(&mut self, now: Instant, road: RendezvousRoad, begun: Instant, reason: &dyn Display) {
        tracing::debug!(?road, %reason, "a way to meet failed");
        self.failures.push(RendezvousFailure::new(road, begun, now, reason));
    }

    /// Nothing is under way, and nothing can come. `is_punching`: a punch is, or a handshake in which the peer asks.
    pub(super) fn is_hopeless(&self, is_punching: bool) -> bool {
        let dialling = self.attempts.iter().any(|attempt| attempt.is_under_way);
        let will_dial = self.doors.iter().any(|door| door.due.is_some());
        !self.more && !dialling && !will_dial && !self.may_be_asked && !self.dialable && !is_punching
    }

    /// What became of each way; what has no end yet ran out of time, such as the punches and what stood in their way.
    pub(super) fn failures(
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
}

impl Attempt {
    /// Whether it goes through that hole.
    fn is_by(&self, remote: SocketAddr, via: usize) -> bool {
        let road = RendezvousRoad::Punched { scheme: Scheme::Quic, remote: Some(remote) };
        self.road == road && self.via == Some(via)
    }
}

fn is_one_of(door: &Door, ways: PathKinds) -> bool {
    ways.contains(PathKind::of(door.remote, false))
}

/// Ways on which QUIC begins before the peer is heard.
const MAX_BLIND: usize = 4;
/// Connections in all; a rendezvous is no port scan.
const MAX_ATTEMPTS: usize = 128;

#[cfg(test)]
mod tests;
