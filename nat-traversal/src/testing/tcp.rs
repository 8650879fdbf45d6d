//! TCP as far as opening connections needs it: segments, and the stack of a host that sends and answers them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

mod connection;
mod programs;

use connection::{Connection, State};
pub use programs::{TcpMapping, TcpPunching, TcpStun};

/// A TCP segment on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// How many routers it may pass; `None` for the system's default.
    pub hops: Option<u8>,
    /// What it says.
    pub kind: SegmentKind,
}

/// What a TCP segment says. Numbers count the bytes of a direction from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentKind {
    /// "Let us connect."
    Syn,
    /// "Let us; and you?"
    SynAck,
    /// "So we are."
    Ack,
    /// "There is no such connection."
    Rst,
    /// Bytes, and how many were sent before.
    Data(u64, Vec<u8>),
    /// So many bytes have arrived.
    Received(u64),
    /// Nothing follows these bytes.
    Fin(u64),
}

/// A host's TCP: connections by their pairs of addresses, repeated SYNs, simultaneous open, and bytes that arrive in order.
///
/// Like the machines of [`protocol`](crate::protocol) it has no clock. It does not model windows, congestion, half-closed
/// connections, or the sequence numbers by which real stacks tell old connections from new ones.
#[derive(Debug, Default)]
pub struct TcpStack {
    listening: BTreeSet<SocketAddr>,
    connections: BTreeMap<ConnectionHandle, Connection>,
    next: u32,
    segments: VecDeque<Segment>,
    events: VecDeque<TcpEvent>,
}

/// A connection of a [`TcpStack`], or an attempt at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionHandle(u32);

/// What a [`TcpStack`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpEvent {
    /// A dialled connection is established.
    Connected(ConnectionHandle),
    /// A dialled connection was refused, or nobody answered for a minute.
    Failed(ConnectionHandle),
    /// Someone has connected to a port that is listened on.
    Accepted(ConnectionHandle, SocketAddr),
    /// Bytes have arrived.
    Bytes(ConnectionHandle, Vec<u8>),
    /// The other end has ended the connection, or it broke.
    Ended(ConnectionHandle),
}

impl TcpStack {
    /// Accepts connections at this address from now on.
    pub fn listen(&mut self, local: SocketAddr) {
        self.listening.insert(local);
    }

    /// Begins to connect; `None` if there is a connection with this pair of addresses already.
    pub fn dial(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        hops: Option<u8>,
    ) -> Option<ConnectionHandle> {
        if self.find(local, remote).is_some() {
            return None;
        }
        let handle = self.insert(Connection::new(now, local, remote, hops, State::SynSent));
        self.send_segment(handle, SegmentKind::Syn);
        Some(handle)
    }

    /// Sends bytes over an established connection.
    pub fn send(&mut self, now: Instant, handle: ConnectionHandle, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&handle) else { return };
        if let Some(kind) = connection.send(now, bytes) {
            self.send_segment(handle, kind);
        }
    }

    /// Ends a connection or an attempt. An attempt just stops, as when a socket is closed that is not connected yet.
    pub fn close(&mut self, handle: ConnectionHandle) {
        let Some(connection) = self.connections.get(&handle) else { return };
        match connection.state {
            State::SynSent => {}
            State::SynReceived { .. } => self.send_segment(handle, SegmentKind::Rst),
            State::Established => {
                let end = SegmentKind::Fin(connection.sent);
                self.send_segment(handle, end);
            }
        }
        self.connections.remove(&handle);
    }

    /// Takes in a segment.
    pub fn handle_segment(&mut self, now: Instant, segment: Segment) {
        let Segment { source: remote, destination: local, kind, .. } = segment;
        let Some(handle) = self.find(local, remote) else {
            return self.handle_first(now, local, remote, &kind);
        };
        let connection = self.connections.get_mut(&handle).expect("found above");
        match (connection.state, kind) {
            (State::SynSent | State::SynReceived { passive: false }, SegmentKind::Rst) => {
                self.connections.remove(&handle);
                self.events.push_back(TcpEvent::Failed(handle));
            }
            (State::SynReceived { passive: true }, SegmentKind::Rst) => {
                self.connections.remove(&handle);
            }
            (State::SynSent, SegmentKind::Syn) => {
                connection.set_state(now, State::SynReceived { passive: false });
                self.send_segment(handle, SegmentKind::SynAck);
            }
            (State::SynReceived { .. }, SegmentKind::Syn) => self.send_segment(handle, SegmentKind::SynAck),
            (State::SynSent, SegmentKind::SynAck) => {
                self.establish(now, handle);
                self.send_segment(handle, SegmentKind::Ack);
            }
            (State::SynSent, _) => self.send_segment(handle, SegmentKind::Rst),
            (State::SynReceived { .. }, SegmentKind::SynAck) => {
                self.establish(now, handle);
                self.send_segment(handle, SegmentKind::Ack);
            }
            (State::SynReceived { .. }, kind) => {
                self.establish(now, handle);
                self.handle_established(now, handle, kind);
            }
            (State::Established, kind) => self.handle_established(now, handle, kind),
        }
    }

    /// Repeats and gives up what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<ConnectionHandle> = self
            .connections
            .iter()
            .filter(|(_, open)| open.due().is_some_and(|due| due <= now))
            .map(|(at, _)| *at)
            .collect();
        for handle in due {
            let Some(connection) = self.connections.get_mut(&handle) else { continue };
            match connection.repeat(now) {
                Some(kinds) => kinds.into_iter().for_each(|kind| self.send_segment(handle, kind)),
                None => {
                    let state = connection.state;
                    self.connections.remove(&handle);
                    match state {
                        State::Established => self.events.push_back(TcpEvent::Ended(handle)),
                        State::SynReceived { passive: true } => {}
                        _ => self.events.push_back(TcpEvent::Failed(handle)),
                    }
                }
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connections.values().filter_map(Connection::due).min()
    }

    /// The next segment to send.
    pub fn poll_segment(&mut self) -> Option<Segment> {
        self.segments.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TcpEvent> {
        self.events.pop_front()
    }

    /// Connections and attempts that there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// A segment that belongs to no connection.
    fn handle_first(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, kind: &SegmentKind) {
        match kind {
            SegmentKind::Rst => {}
            SegmentKind::Syn
                if self.listening.contains(&local) && self.connections.len() < MAX_CONNECTIONS =>
            {
                let state = State::SynReceived { passive: true };
                let handle = self.insert(Connection::new(now, local, remote, None, state));
                self.send_segment(handle, SegmentKind::SynAck);
            }
            _ => self.segments.push_back(Segment {
                source: local,
                destination: remote,
                hops: None,
                kind: SegmentKind::Rst,
            }),
        }
    }

    fn handle_established(&mut self, now: Instant, handle: ConnectionHandle, kind: SegmentKind) {
        let connection = self.connections.get_mut(&handle).expect("it is established");
        match kind {
            SegmentKind::Data(offset, bytes) => {
                if connection.take(offset, &bytes) {
                    self.events.push_back(TcpEvent::Bytes(handle, bytes));
                }
                let received = SegmentKind::Received(connection.received);
                let ended = connection.has_ended();
                self.send_segment(handle, received);
                if ended {
                    self.end(handle);
                }
            }
            SegmentKind::Received(offset) => connection.acknowledge(now, offset),
            SegmentKind::Fin(offset) => {
                connection.fin = Some(offset);
                if connection.has_ended() {
                    self.end(handle);
                }
            }
            SegmentKind::Rst => self.end(handle),
            // The last acknowledgement got lost, or an old SYN arrives late.
            SegmentKind::Syn | SegmentKind::SynAck => self.send_segment(handle, SegmentKind::Ack),
            SegmentKind::Ack => {}
        }
    }

    fn establish(&mut self, now: Instant, handle: ConnectionHandle) {
        let connection = self.connections.get_mut(&handle).expect("it is being opened");
        let passive = matches!(connection.state, State::SynReceived { passive: true });
        connection.set_state(now, State::Established);
        let remote = connection.remote;
        self.events.push_back(if passive {
            TcpEvent::Accepted(handle, remote)
        } else {
            TcpEvent::Connected(handle)
        });
    }

    fn end(&mut self, handle: ConnectionHandle) {
        self.connections.remove(&handle);
        self.events.push_back(TcpEvent::Ended(handle));
    }

    fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<ConnectionHandle> {
        let pair =
            |(_, open): &(&ConnectionHandle, &Connection)| open.local == local && open.remote == remote;
        self.connections.iter().find(pair).map(|(handle, _)| *handle)
    }

    fn insert(&mut self, connection: Connection) -> ConnectionHandle {
        self.next += 1;
        self.connections.insert(ConnectionHandle(self.next), connection);
        ConnectionHandle(self.next)
    }

    fn send_segment(&mut self, handle: ConnectionHandle, kind: SegmentKind) {
        if let Some(open) = self.connections.get(&handle) {
            let hops = open.hops.filter(|_| open.state == State::SynSent);
            self.segments.push_back(Segment { source: open.local, destination: open.remote, hops, kind });
        }
    }
}

/// Connections at a time, as a bound for floods.
const MAX_CONNECTIONS: usize = 1_024;

/// Linux repeats a SYN after a second, then after two, four, …
const SYN_WAIT: Duration = Duration::from_secs(1);

/// Data is repeated after this, then after twice as long.
const DATA_WAIT: Duration = Duration::from_millis(300);

/// Repetitions before a connection is given up: a minute for a SYN.
const REPETITIONS: u32 = 6;

#[cfg(test)]
mod tests;
