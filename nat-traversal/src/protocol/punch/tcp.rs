use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::plan::plan;
use super::{Obstacle, PunchKeys};
use crate::protocol::{MappedSocketAddr, Random, Seed};

mod connection;
mod dial;
mod late;

use connection::{Connection, Progress};
use dial::Target;

/// Punches a hole for TCP.
///
/// Both peers dial each other's addresses from one local port, and listen on it: whichever connection comes about first and proves to be the peer's is taken, be it dialled by us, by the peer, or by both at once
/// (simultaneous open). The peer that [leads](PunchKeys::leads) chooses, so that both take the same one.
///
/// It has no sockets: whoever drives it dials what [`poll_dial`](Self::poll_dial) says, each with a fresh socket bound to
/// the one local port, reports what becomes of it, reads no more than [`wanted_bytes`](Self::wanted_bytes) from each
/// connection, and drains [`poll_close`](Self::poll_close) **before** `poll_dial`.
#[derive(Debug)]
pub struct TcpPuncher {
    keys: PunchKeys,
    random: Random,
    targets: Vec<Target>,
    connections: Vec<Connection>,
    next: u32,
    refused: bool,
    obstacle: Option<Obstacle>,
    same_nat: bool,
    dials: VecDeque<Dial>,
    closes: VecDeque<ConnectionId>,
    transmits: VecDeque<(ConnectionId, Vec<u8>)>,
    events: VecDeque<TcpPunchEvent>,
    done: bool,
    /// Addresses may follow, so that nothing is hopeless yet.
    more: bool,
}

/// One connection, or one attempt at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// A connection to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// How it is called from now on.
    pub id: ConnectionId,
    /// Where to.
    pub remote: SocketAddr,
}

/// What a [`TcpPuncher`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpPunchEvent {
    /// This connection leads to the peer, and both use it. Everything else is to be closed.
    Punched(ConnectionId),
    /// It cannot work, and waiting does not help.
    Hopeless(Obstacle),
}

impl TcpPuncher {
    /// Begins at `now`, with the addresses that each side has told the other.
    #[must_use]
    pub fn new(
        now: Instant,
        ours: &[MappedSocketAddr],
        theirs: &[MappedSocketAddr],
        keys: PunchKeys,
        seed: Seed,
    ) -> Self {
        let plan = plan(ours, theirs);
        let events = plan.obstacle.map(TcpPunchEvent::Hopeless);
        Self {
            keys,
            random: Random::new(seed),
            targets: plan.targets.iter().map(|remote| Target::new(*remote, now)).collect(),
            connections: Vec::new(),
            next: 0,
            refused: false,
            obstacle: plan.obstacle,
            same_nat: plan.same_nat,
            dials: VecDeque::new(),
            closes: VecDeque::new(),
            transmits: VecDeque::new(),
            events: events.into_iter().collect(),
            done: plan.obstacle.is_some(),
            more: false,
        }
    }

    /// Dials and gives up whatever is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.done {
            return;
        }
        for index in 0..self.targets.len() {
            if let Some(ended) = self.targets[index].take_ended(now) {
                self.close(ended);
            }
            if self.targets[index].is_due(now) {
                let id = self.new_id();
                let dial = self.targets[index].dial(now, id);
                self.dials.push_back(dial);
            }
        }
        let late: Vec<ConnectionId> =
            self.connections.iter().filter(|open| open.end <= now).map(|open| open.id).collect();
        for id in late {
            self.drop_connection(id);
        }
    }

    /// A dialled connection is established.
    pub fn handle_connected(&mut self, now: Instant, id: ConnectionId) {
        let Some(target) = self.targets.iter_mut().find(|target| target.is_dialling(id)) else { return };
        target.connect();
        let remote = target.remote;
        self.open(now, id, remote);
    }

    /// A dialled connection was not established. Sooner or later another attempt follows.
    pub fn handle_failed(&mut self, now: Instant, id: ConnectionId) {
        if let Some(target) = self.targets.iter_mut().find(|target| target.is_dialling(id)) {
            self.refused = true;
            target.fail(now, &mut self.random);
        }
    }

    /// Someone has connected to us. `None` if there are too many who have proved nothing; close it then.
    pub fn handle_accepted(&mut self, now: Instant, remote: SocketAddr) -> Option<ConnectionId> {
        if self.done || self.connections.len() >= MAX_CONNECTIONS {
            return None;
        }
        let id = self.new_id();
        self.open(now, id, remote);
        Some(id)
    }

    /// How many bytes to read from a connection at most. What comes behind them belongs to the application.
    #[must_use]
    pub fn wanted_bytes(&self, id: ConnectionId) -> usize {
        self.connections.iter().find(|open| open.id == id).map_or(0, Connection::wanted_bytes)
    }

    /// Takes in bytes of a connection.
    pub fn handle_bytes(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.iter_mut().find(|open| open.id == id) else { return };
        match connection.handle_bytes(&self.keys, bytes) {
            Progress::None => {}
            Progress::Send(bytes) => self.transmits.push_back((id, bytes)),
            Progress::Proven => {
                if self.keys.leads && !self.done {
                    self.transmits.push_back((id, vec![connection::CHOSEN]));
                    self.punched(id);
                }
            }
            Progress::Chosen => self.punched(id),
            Progress::NotThePeer => {
                tracing::debug!(remote = %connection.remote, "a connection that is not the peer's");
                self.drop_connection(id);
            }
        }
    }

    /// A connection has ended or failed.
    pub fn handle_end(&mut self, now: Instant, id: ConnectionId) {
        let Some(index) = self.connections.iter().position(|open| open.id == id) else { return };
        let connection = self.connections.remove(index);
        if let Some(target) = self.targets.iter_mut().find(|target| target.remote == connection.remote) {
            target.end(now, &mut self.random);
        }
    }

    /// The next connection to attempt.
    pub fn poll_dial(&mut self) -> Option<Dial> {
        self.dials.pop_front()
    }

    /// The next connection or attempt to close.
    pub fn poll_close(&mut self) -> Option<ConnectionId> {
        self.closes.pop_front()
    }

    /// The next bytes to send over a connection.
    pub fn poll_transmit(&mut self) -> Option<(ConnectionId, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.done {
            return None;
        }
        let targets = self.targets.iter().filter_map(Target::timeout);
        targets.chain(self.connections.iter().map(|open| open.end)).min()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TcpPunchEvent> {
        self.events.pop_front()
    }

    /// What stands in the way as far as can be seen now.
    #[must_use]
    pub fn obstacle(&self) -> Obstacle {
        self.obstacle.unwrap_or(match (self.same_nat, self.refused) {
            (true, _) => Obstacle::SameNat,
            (false, true) => Obstacle::Refused,
            (false, false) => Obstacle::NothingHeard,
        })
    }

    fn open(&mut self, now: Instant, id: ConnectionId, remote: SocketAddr) {
        let connection = Connection::new(id, remote, now + PROOF_TIME, &mut self.random);
        self.transmits.push_back((id, connection.hello()));
        self.connections.push(connection);
    }

    fn drop_connection(&mut self, id: ConnectionId) {
        self.connections.retain(|open| open.id != id);
        self.close(id);
    }

    fn close(&mut self, id: ConnectionId) {
        self.transmits.retain(|(to, _)| *to != id);
        self.closes.push_back(id);
    }

    fn punched(&mut self, id: ConnectionId) {
        self.done = true;
        self.events.push_back(TcpPunchEvent::Punched(id));
    }

    const fn new_id(&mut self) -> ConnectionId {
        self.next += 1;
        ConnectionId(self.next)
    }
}

/// Connections at a time: those to the peer's addresses and back, and a few strangers'.
const MAX_CONNECTIONS: usize = 64;

/// A peer proves itself in one and a half round trips.
const PROOF_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
