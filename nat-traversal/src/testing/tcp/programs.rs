//! What hosts of a network run over TCP: a STUN server, the mapping of a port, and a punch.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::{ConnectionHandle, Segment, TcpEvent, TcpStack};
use crate::protocol::stun::Message;
use crate::protocol::{
    ConnectionId, Datagram, Mapping, Seed, StreamMapper, StunServer, TcpPunchEvent, TcpPuncher, Transmit,
};
use crate::testing::Program;

/// A STUN server over TCP, as [`HolePunchServer`](crate::HolePunchServer) is one.
#[derive(Debug)]
pub struct TcpStun {
    stack: TcpStack,
    clients: BTreeMap<ConnectionHandle, (SocketAddr, Vec<u8>)>,
}

impl TcpStun {
    /// A server at this address of its host.
    #[must_use]
    pub fn new(local: SocketAddr) -> Self {
        let mut stack = TcpStack::default();
        stack.listen(local);
        Self { stack, clients: BTreeMap::new() }
    }

    fn answer(&mut self, now: Instant) {
        while let Some(event) = self.stack.poll_event() {
            match event {
                TcpEvent::Accepted(client, source) => drop(self.clients.insert(client, (source, Vec::new()))),
                TcpEvent::Bytes(client, bytes) => {
                    let Some((source, received)) = self.clients.get_mut(&client) else { continue };
                    received.extend(bytes);
                    let whole = Message::length_in_stream(received).ok().flatten();
                    if let Some(length) = whole.filter(|length| *length <= received.len()) {
                        let request: Vec<u8> = received.drain(..length).collect();
                        if let Some(answer) = StunServer::answer_stream(&request, *source) {
                            self.stack.send(now, client, &answer);
                        }
                    }
                }
                TcpEvent::Ended(client) | TcpEvent::Failed(client) => drop(self.clients.remove(&client)),
                TcpEvent::Connected(_) => {}
            }
        }
    }
}

/// Learns the addresses of a TCP port, as [`MappedTcpSocket`](crate::MappedTcpSocket) does.
#[derive(Debug)]
pub struct TcpMapping {
    stack: TcpStack,
    mapper: Option<StreamMapper>,
    questions: BTreeMap<ConnectionHandle, (usize, Vec<u8>)>,
    end: Instant,
    mapping: Option<Mapping>,
}

impl TcpMapping {
    /// Asks these servers from `local`, at most until `end`.
    #[must_use]
    pub fn new(now: Instant, local: SocketAddr, servers: &[SocketAddr], seed: Seed, end: Instant) -> Self {
        let mut stack = TcpStack::default();
        let mapper = StreamMapper::new(servers, seed);
        let mut questions = BTreeMap::new();
        for (index, server) in mapper.servers().into_iter().enumerate() {
            if let Some(handle) = stack.dial(now, local, server, None) {
                questions.insert(handle, (index, Vec::new()));
            }
        }
        Self { stack, mapper: Some(mapper), questions, end, mapping: None }
    }

    /// What was learned, once it has ended.
    #[must_use]
    pub const fn mapping(&self) -> Option<&Mapping> {
        self.mapping.as_ref()
    }

    fn learn(&mut self, now: Instant) {
        let Some(mapper) = &mut self.mapper else { return };
        while let Some(event) = self.stack.poll_event() {
            match event {
                TcpEvent::Connected(handle) => {
                    if let Some((index, _)) = self.questions.get(&handle) {
                        self.stack.send(now, handle, &mapper.request(*index));
                    }
                }
                TcpEvent::Bytes(handle, bytes) => {
                    let Some((index, received)) = self.questions.get_mut(&handle) else { continue };
                    received.extend(bytes);
                    if Message::length_in_stream(received) == Ok(Some(received.len())) {
                        mapper.handle_answer(now, *index, received);
                    }
                }
                TcpEvent::Failed(handle) | TcpEvent::Ended(handle) => {
                    if let Some((index, _)) = self.questions.remove(&handle) {
                        mapper.handle_end(index);
                    }
                }
                TcpEvent::Accepted(..) => {}
            }
        }
        if mapper.is_done(now) || self.end <= now {
            self.mapping = self.mapper.take().map(StreamMapper::conclude);
            for handle in std::mem::take(&mut self.questions).into_keys() {
                self.stack.close(handle);
            }
        }
    }
}

/// A [`TcpPuncher`] with a host's TCP, as [`tcp_punch_hole`](crate::tcp_punch_hole) drives it over sockets.
#[derive(Debug)]
pub struct TcpPunching {
    stack: TcpStack,
    puncher: TcpPuncher,
    local: SocketAddr,
    handles: BTreeMap<ConnectionId, ConnectionHandle>,
    unread: BTreeMap<ConnectionId, Vec<u8>>,
    outcome: Option<(Instant, TcpPunchEvent)>,
}

impl TcpPunching {
    /// Punches from this address of the host, which listens there as well.
    #[must_use]
    pub fn new(local: SocketAddr, puncher: TcpPuncher) -> Self {
        let mut stack = TcpStack::default();
        stack.listen(local);
        let (handles, unread) = (BTreeMap::new(), BTreeMap::new());
        Self { stack, puncher, local, handles, unread, outcome: None }
    }

    /// What came of it, and when.
    #[must_use]
    pub const fn outcome(&self) -> Option<(Instant, TcpPunchEvent)> {
        self.outcome
    }

    /// The puncher.
    #[must_use]
    pub const fn puncher(&self) -> &TcpPuncher {
        &self.puncher
    }

    /// The pair of addresses, ours and the peer's, of the connection that was punched.
    #[must_use]
    pub fn punched(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Some((_, TcpPunchEvent::Punched(id))) = self.outcome else { return None };
        let connection = self.stack.connections.get(self.handles.get(&id)?)?;
        Some((connection.local, connection.remote))
    }

    fn punch(&mut self, now: Instant) {
        loop {
            self.carry_out(now);
            if let Some(event) = self.puncher.poll_event() {
                self.outcome.get_or_insert((now, event));
            }
            let Some(event) = self.stack.poll_event() else { break };
            let id = |of: ConnectionHandle| {
                self.handles.iter().find(|(_, handle)| **handle == of).map(|(id, _)| *id)
            };
            match event {
                TcpEvent::Connected(handle) => {
                    if let Some(id) = id(handle) {
                        self.puncher.handle_connected(now, id);
                        self.feed(id);
                    }
                }
                TcpEvent::Failed(handle) => {
                    if let Some(id) = id(handle) {
                        self.handles.remove(&id);
                        self.puncher.handle_failed(now, id);
                    }
                }
                TcpEvent::Accepted(handle, remote) => match self.puncher.handle_accepted(now, remote) {
                    Some(id) => drop(self.handles.insert(id, handle)),
                    None => self.stack.close(handle),
                },
                TcpEvent::Bytes(handle, bytes) => {
                    if let Some(id) = id(handle) {
                        self.unread.entry(id).or_default().extend(bytes);
                        self.feed(id);
                    }
                }
                TcpEvent::Ended(handle) => {
                    if let Some(id) = id(handle) {
                        self.handles.remove(&id);
                        self.puncher.handle_end(now, id);
                    }
                }
            }
        }
    }

    /// Does all that the puncher asks for, as the driver over sockets does: what is closed first.
    fn carry_out(&mut self, now: Instant) {
        while let Some(id) = self.puncher.poll_close() {
            if let Some(handle) = self.handles.remove(&id) {
                self.stack.close(handle);
            }
        }
        while let Some(dial) = self.puncher.poll_dial() {
            match self.stack.dial(now, self.local, dial.remote, None) {
                Some(handle) => drop(self.handles.insert(dial.id, handle)),
                None => self.puncher.handle_failed(now, dial.id),
            }
        }
        while let Some((id, bytes)) = self.puncher.poll_transmit() {
            if let Some(handle) = self.handles.get(&id) {
                self.stack.send(now, *handle, &bytes);
            }
        }
    }

    /// Gives the puncher what it wants of what has arrived, and not a byte more.
    fn feed(&mut self, id: ConnectionId) {
        loop {
            let Some(unread) = self.unread.get_mut(&id) else { return };
            let length = self.puncher.wanted_bytes(id).min(unread.len());
            if length == 0 {
                return;
            }
            let bytes: Vec<u8> = unread.drain(..length).collect();
            self.puncher.handle_bytes(id, &bytes);
        }
    }
}

/// What programs that speak nothing but TCP have in common, and what they do not.
trait OverTcp {
    fn stack(&mut self) -> &mut TcpStack;

    /// Takes in what the stack tells, and has it do what follows.
    fn go_on(&mut self, now: Instant);

    /// Does what is due besides the stack's own.
    fn handle_due(&mut self, _now: Instant) {}

    /// When something is due, the stack's own included.
    fn next_due(&self) -> Option<Instant>;

    /// Whether it has come to its end, if it is to have one.
    fn end(&self) -> Option<bool>;
}

impl<T: OverTcp> Program for T {
    fn collect(&mut self, now: Instant) {
        self.go_on(now);
    }

    fn handle_datagram(&mut self, _now: Instant, _datagram: Datagram<'_>) {}

    fn handle_segment(&mut self, now: Instant, segment: Segment) {
        self.stack().handle_segment(now, segment);
        self.go_on(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.stack().handle_timeout(now);
        self.handle_due(now);
        self.go_on(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    fn poll_segment(&mut self) -> Option<Segment> {
        self.stack().poll_segment()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next_due()
    }

    fn is_to_end(&self) -> bool {
        self.end().is_some()
    }

    fn has_ended(&self) -> bool {
        self.end() == Some(true)
    }
}

impl OverTcp for TcpStun {
    fn stack(&mut self) -> &mut TcpStack {
        &mut self.stack
    }

    fn go_on(&mut self, now: Instant) {
        self.answer(now);
    }

    fn next_due(&self) -> Option<Instant> {
        self.stack.poll_timeout()
    }

    fn end(&self) -> Option<bool> {
        None
    }
}

impl OverTcp for TcpMapping {
    fn stack(&mut self) -> &mut TcpStack {
        &mut self.stack
    }

    fn go_on(&mut self, now: Instant) {
        self.learn(now);
    }

    fn next_due(&self) -> Option<Instant> {
        let mapper = self.mapper.as_ref()?;
        [Some(self.end), mapper.poll_timeout(), self.stack.poll_timeout()].into_iter().flatten().min()
    }

    fn end(&self) -> Option<bool> {
        Some(self.mapping.is_some())
    }
}

impl OverTcp for TcpPunching {
    fn stack(&mut self) -> &mut TcpStack {
        &mut self.stack
    }

    fn go_on(&mut self, now: Instant) {
        self.punch(now);
    }

    fn handle_due(&mut self, now: Instant) {
        self.puncher.handle_timeout(now);
    }

    fn next_due(&self) -> Option<Instant> {
        [self.puncher.poll_timeout(), self.stack.poll_timeout()].into_iter().flatten().min()
    }

    fn end(&self) -> Option<bool> {
        Some(self.outcome.is_some())
    }
}
