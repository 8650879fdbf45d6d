//! Attempts to find connections other paths, around a relay or to where the peer is now: what the thread `crust-improve` does.

use transport::{
    PathKind, PublicKey,
    testing::{MeetingId, Node, StreamId},
};

use super::{
    calls::{ASKING, Introduced, Purpose},
    service::{Happening, Service},
};
use crate::protocol::{
    detours::{Detoured, Health},
    improvement::Attempted,
    introduction::ConnectionMark,
};

/// A stream, whose connection may have to take another path.
#[derive(Debug, Clone)]
pub(super) struct Detour {
    pub(super) stream: StreamId,
    pub(super) peer: PublicKey,
    pub(super) dialled: bool,
}

/// One attempt, as far as introducers have been asked for it.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) detour: Detour,
    pub(super) mark: ConnectionMark,
    /// The connection is cut off.
    pub(super) rescues: bool,
    /// The place of the introducer that is asked.
    introducer: usize,
}

impl Detoured for Detour {
    type View = Node;

    fn peer(&self) -> PublicKey {
        self.peer
    }

    fn is_same(&self, other: &Self) -> bool {
        self.stream == other.stream
    }

    fn is_dialled(&self) -> bool {
        self.dialled
    }

    fn health(&self, node: &Node) -> Option<Health> {
        let is_cut_off = node.is_cut_off(self.stream);
        let (kind, _) = node.path(self.stream)?;
        let health = Health { is_relayed: kind == PathKind::Relayed, is_cut_off };
        node.is_connected(self.stream).then_some(health)
    }
}

impl Service {
    /// Has the connection of a stream take another path when it has to.
    pub(super) fn look_after(&mut self, stream: StreamId, dialled: bool) {
        if let Some((peer, _)) = self.node.peer(stream) {
            self.improving.add(self.now, Detour { stream, peer, dialled }, &self.node);
        }
    }

    /// Whether the meeting was one of ours.
    pub(super) fn call_improved(&mut self, meeting: MeetingId, outcome: &Result<(), String>) -> bool {
        let found = self.introduced.iter().find(|(_, one)| one.meeting == meeting).map(|(id, _)| *id);
        if let Some(id) = found {
            if let Err(reason) = outcome {
                self.tell(Happening::NotImproved(reason.clone()));
            }
            self.attempt_over(id, if outcome.is_ok() { Attempted::Led } else { Attempted::NotMet });
        }
        found.is_some()
    }

    /// Nobody introduced us for that attempt: another introducer may know the peer.
    pub(super) fn not_introduced(&mut self, id: u64, reason: &str) {
        let Some(Introduced { purpose: Purpose::Improve(attempt), refused, .. }) = self.introduced.get(&id)
        else {
            return;
        };
        let (mut attempt, refused) = (attempt.clone(), *refused);
        self.tell(Happening::NotImproved(reason.to_owned()));
        attempt.introducer += 1;
        if attempt.introducer < self.attachments.len().min(MOST_ASKED) {
            self.end_introduction(id);
            self.ask_for(attempt);
        } else {
            self.attempt_over(id, if refused { Attempted::NotMet } else { Attempted::NotIntroduced });
        }
    }

    pub(super) fn attempt_over(&mut self, id: u64, attempted: Attempted) {
        let Some(Purpose::Improve(attempt)) = self.introduced.get(&id).map(|one| one.purpose.clone()) else {
            return;
        };
        self.end_introduction(id);
        self.improving.handle_end(self.now, attempt.detour.peer, attempted, &self.node);
        self.tell(Happening::Improved(attempted == Attempted::Led));
    }

    /// Begins what is due.
    pub(super) fn go_on_improving(&mut self) -> bool {
        let mut moved = false;
        while let Some(detour) = self.improving.poll_start(self.now, &self.node) {
            moved = true;
            let peer = detour.peer;
            let rescues = self.node.is_cut_off(detour.stream);
            match self.mark_of(detour.stream).filter(|_| !self.attachments.is_empty()) {
                Some(mark) => self.ask_for(Attempt { detour, mark, rescues, introducer: 0 }),
                None => self.improving.handle_end(self.now, peer, Attempted::NotMet, &self.node),
            }
        }
        moved
    }

    fn ask_for(&mut self, attempt: Attempt) {
        let (introducer, peer, now) = (attempt.introducer, attempt.detour.peer, self.now);
        if attempt.rescues {
            self.doubt_relay(attempt.detour.stream);
        }
        self.tell(Happening::Improves(attempt.rescues));
        self.introduce(Purpose::Improve(attempt), introducer, peer, now, now + ASKING);
    }

    /// Ends what is under way for connections that have been cut off since.
    pub(super) fn end_useless_attempts(&mut self) {
        while let Some(peer) = self.improving.poll_useless() {
            let is_it = |one: &Introduced| matches!(&one.purpose, Purpose::Improve(attempt) if attempt.detour.peer == peer);
            if let Some(id) = self.introduced.iter().find(|(_, one)| is_it(one)).map(|(id, _)| *id) {
                self.attempt_over(id, Attempted::NotMet);
            }
        }
    }

    /// Attempts that are under way are about a network that was left.
    pub(super) fn interrupt_attempts(&mut self) {
        let is_one = |one: &Introduced| matches!(one.purpose, Purpose::Improve(_));
        let all = self.introduced.iter().filter(|(_, one)| is_one(one)).map(|(id, _)| *id);
        for id in all.collect::<Vec<_>>() {
            self.attempt_over(id, Attempted::NotIntroduced);
        }
    }

    /// What the two ends call the connection of a stream.
    pub(super) fn mark_of(&self, stream: StreamId) -> Option<ConnectionMark> {
        let mut mark = ConnectionMark::default();
        self.node.export(stream, &mut mark, b"EXPERIMENTAL-crust-connection")?;
        Some(mark)
    }
}

/// Introducers, one after the other.
const MOST_ASKED: usize = 4;
