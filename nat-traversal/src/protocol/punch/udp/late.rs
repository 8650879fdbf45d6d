//! What a puncher is told beside the addresses that it begins with.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::path::Path;
use super::{MAX_PATHS, OPENING, PunchEvent, State, UdpPuncher};
use crate::protocol::punch::Obstacle;
use crate::protocol::punch::plan::{PORTS_PER_ADDRESS, Plan, plan};
use crate::protocol::{AddrKind, MappedSocketAddr, SocketIndex, candidate::is_global};

/// What the punch goes by besides its plan.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Addresses may follow, so that nothing is hopeless yet.
    more: bool,
    /// The peer has opened its NAT already.
    peer_has_begun: bool,
    /// Nothing is sent from our own socket.
    only_further: bool,
    /// Ways that are still told when the peer is heard there.
    heard_left: usize,
    /// Sockets besides our own.
    further: Vec<Further>,
}

#[derive(Debug, Clone, Copy)]
struct Further {
    socket: SocketIndex,
    /// When it begins, and how much later with the peer's relays.
    first: Instant,
    to_relays: Duration,
    /// It is on the internet itself.
    is_outside: bool,
}

impl UdpPuncher {
    /// Checks the same addresses from another socket as well, beginning at `first`, or now if there is nothing else that could
    /// work: from an address at a relay, say, that is used only if nothing better has worked by then. All addresses count, also those that
    /// are of no use from an ordinary socket. The driver must have that socket.
    #[must_use]
    pub fn also_from(mut self, socket: SocketIndex, theirs: &[MappedSocketAddr], first: Instant) -> Self {
        let now = self.free;
        self.add_socket(now, socket, theirs, first);
        self
    }

    /// The same, of a socket that comes while the punch goes on, or with addresses that come later.
    pub fn add_socket(
        &mut self,
        now: Instant,
        socket: SocketIndex,
        theirs: &[MappedSocketAddr],
        first: Instant,
    ) {
        let further = Further { socket, first, to_relays: Duration::ZERO, is_outside: false };
        self.add_further(now, further, theirs);
    }

    /// The same of an address at a relay, `relayed`. Where that is on the internet, addresses that mean something within one network only are
    /// left out: they would be somebody else's there. The peer's own relays are tried `to_relays` later: where our own socket reaches them,
    /// a way over two relays is worse and costs both.
    pub fn add_relay(
        &mut self,
        now: Instant,
        (socket, relayed): (SocketIndex, SocketAddr),
        theirs: &[MappedSocketAddr],
        first: Instant,
        to_relays: Duration,
    ) {
        let further = Further { socket, first, to_relays, is_outside: is_global(relayed.ip()) };
        self.add_further(now, further, theirs);
    }

    fn add_further(&mut self, now: Instant, further: Further, theirs: &[MappedSocketAddr]) {
        let first = if self.obstacle.is_some() { now } else { further.first.max(now) };
        let further = Further { first, ..further };
        if self.late.further.iter().all(|known| known.socket != further.socket) {
            if self.late.further.len() >= MAX_FURTHER {
                return;
            }
            self.late.further.push(further);
        }
        self.check_from(further, theirs);
        // What is hopeless for our own sockets is none for this one.
        self.obstacle = None;
        if matches!(self.state, State::Done) && matches!(self.events.front(), Some(PunchEvent::Hopeless(_))) {
            self.go_on_after_all();
        }
    }

    /// Has [`PunchEvent::Heard`] told.
    #[must_use]
    pub const fn tell_heard(mut self) -> Self {
        self.late.heard_left = HEARD_TOLD;
        self
    }

    /// Begins without opening our own NAT first: the peer has opened its own already, since it gave its addresses after it had
    /// ours. Call it before anything else.
    #[must_use]
    pub fn peer_has_begun(mut self) -> Self {
        self.late.peer_has_begun = true;
        self.openers.clear();
        for path in &mut self.paths {
            path.begin_at(self.free);
        }
        self
    }

    /// Sends nothing from our own socket, but only from those that are [added](Self::add_socket). Call it before anything else.
    #[must_use]
    pub fn only_further(mut self) -> Self {
        self.late.only_further = true;
        self.openers.clear();
        self.paths.clear();
        self.spraying.end();
        self.obstacle = Some(Obstacle::NoAddress);
        self
    }

    /// Addresses of either side may [follow](Self::learn): nothing is hopeless before. Call it before anything else.
    #[must_use]
    pub fn more_to_come(mut self) -> Self {
        self.late.more = true;
        self.go_on_after_all();
        self
    }

    /// Takes in what the two sides have told each other since: all addresses, those known before included. `more` as long as
    /// others may follow.
    pub fn learn(
        &mut self,
        now: Instant,
        ours: &[MappedSocketAddr],
        theirs: &[MappedSocketAddr],
        more: bool,
    ) {
        self.late.more = more;
        if !matches!(self.state, State::Checking) {
            return;
        }
        let plan = if self.late.only_further {
            Plan { obstacle: Some(Obstacle::NoAddress), ..Plan::default() }
        } else {
            plan(ours, theirs)
        };
        for to in plan.targets {
            let known = |path: &Path| path.socket == SocketIndex::MAIN && path.remote == to;
            let beside = self.paths.iter().filter(|path| path.remote.ip() == to.ip()).count();
            let full = beside >= PORTS_PER_ADDRESS || self.paths.len() >= MAX_PATHS;
            if full || self.paths.iter().any(known) {
                continue;
            }
            let first = if self.late.peer_has_begun { now } else { now + OPENING };
            self.paths.push(Path::to_candidate(SocketIndex::MAIN, to, first));
            if !self.late.peer_has_begun {
                self.openers.push_back(to);
            }
        }
        for further in self.late.further.clone() {
            let first = if plan.obstacle.is_some() { now } else { further.first.max(now) };
            self.check_from(Further { first, ..further }, theirs);
        }
        self.spraying.learn(now, &plan.sprays);
        self.same_nat |= plan.same_nat;
        self.obstacle = plan.obstacle.filter(|_| self.late.further.is_empty());
        let heard = self.paths.iter().any(|path| path.heard);
        if let Some(obstacle) = self.obstacle.filter(|_| !more && !heard) {
            self.events.push_back(PunchEvent::Hopeless(obstacle));
            self.state = State::Done;
        }
    }

    /// The peer was heard by a way for the first time.
    pub(super) fn tell_way(&mut self, index: usize) {
        if let Some(left) = self.late.heard_left.checked_sub(1) {
            self.late.heard_left = left;
            let Path { socket, remote, .. } = self.paths[index];
            self.events.push_back(PunchEvent::Heard { socket, peer: remote });
        }
    }

    fn check_from(&mut self, further: Further, theirs: &[MappedSocketAddr]) {
        let Further { socket, first, to_relays, is_outside } = further;
        for endpoint in theirs.iter().filter(|to| !is_outside || is_global(to.addr.ip())) {
            // Whatever is named from one call to the next.
            let from_there = self.paths.iter().filter(|known| known.socket == socket).count();
            if from_there >= RELAYED_PATHS || self.paths.len() >= MAX_PATHS {
                return;
            }
            let to = endpoint.addr;
            if !self.paths.iter().any(|known| known.socket == socket && known.remote == to) {
                let first = if endpoint.kind == AddrKind::Relayed { first + to_relays } else { first };
                self.paths.push(Path::to_candidate(socket, to, first));
            }
        }
    }

    fn go_on_after_all(&mut self) {
        self.events.clear();
        if matches!(self.state, State::Done) {
            self.state = State::Checking;
        }
    }
}

/// Addresses of the peer tried from each further socket, in the life of a punch.
const RELAYED_PATHS: usize = 16;

/// Further sockets: some relays, over each address family.
const MAX_FURTHER: usize = 16;

/// One peer answers by a few ways at most; each costs whoever asked an attempt.
const HEARD_TOLD: usize = 4;
