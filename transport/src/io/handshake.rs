//! A TCP connection until it is a stream: connects, shakes hands, is judged. Turned by the crank, so that a slow peer keeps
//! nobody waiting.

mod dial;

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    accept_queue::Place,
    acceptor::TcpAcceptor,
    clock,
    dial::{DialError, DialOrder},
    ending::Ending,
    lock::Lock as _,
    slot::Wakes,
    sources::Source,
    tcp::{Origin, TcpConnection},
};
use crate::{
    Stream,
    admission::{ProtocolLabel, Refusal},
    protocol::{
        handshake::{Handshake, HandshakeEvent},
        verdict::Verdict,
    },
    transport::Shared,
};
use mio::{Interest, Token, net::TcpStream};

#[derive(Debug)]
pub(crate) struct TcpHandshake {
    token: Token,
    role: Role,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
enum Role {
    Dialer(DialOrder),
    Acceptor {
        /// Where plain dials go. `None`: the connection was punched, and only its rendezvous is served.
        listener: Option<Arc<TcpAcceptor>>,
        source: SocketAddr,
    },
}

struct State {
    socket: TcpStream,
    handshake: Handshake,
    unsent: Vec<u8>,
    /// The poll tells of room for what is unsent.
    watches_room: bool,
    /// The acceptor's: what the stream is for and where it will wait, once it was judged.
    admitted: Option<(ProtocolLabel, Place)>,
    /// The acceptor has refused: nothing but the verdict is left to send.
    refused: bool,
    /// The dialer's: whether the preface is out and the verdict in.
    finished: bool,
    accepted: bool,
}

/// What is to be done with a handshake after its socket was looked at.
enum Step {
    Wait,
    Established,
    Failed(DialError),
}

impl TcpHandshake {
    /// Begins the handshake over a punched connection as the one who waits for the preface of its rendezvous.
    pub(crate) fn accept_punched(shared: &Arc<Shared>, socket: std::net::TcpStream) -> io::Result<Token> {
        let source = socket.peer_addr()?;
        socket.set_nodelay(true)?;
        Self::accept_as(shared, TcpStream::from_std(socket), Role::Acceptor { listener: None, source })
    }

    /// Begins the handshake of a connection that came in.
    pub(crate) fn accept(
        shared: &Arc<Shared>,
        socket: TcpStream,
        source: SocketAddr,
        listener: Arc<TcpAcceptor>,
    ) -> io::Result<()> {
        let role = Role::Acceptor { listener: Some(listener), source };
        Self::accept_as(shared, socket, role).map(drop)
    }

    fn accept_as(shared: &Arc<Shared>, socket: TcpStream, role: Role) -> io::Result<Token> {
        let handshake = Handshake::accept(shared.tls.server.clone()).map_err(io::Error::other)?;
        let token = Self::watch(shared, State::new(socket, handshake), role)?;
        let timer = clock::now() + shared.config.handshake_timeout;
        shared.sources.hold().set_timer(token, Some(timer));
        shared.crank.poke(timer);
        Ok(token)
    }

    fn watch(shared: &Shared, mut state: State, role: Role) -> io::Result<Token> {
        // Asked for room while there is some, the poll would answer at once and for nothing.
        state.watches_room = !state.unsent.is_empty();
        let interest = state.interest();
        let mut sources = shared.sources.hold();
        let token = sources.reserve();
        if let Err(error) = shared.registry.register(&mut state.socket, token, interest) {
            sources.remove(token);
            return Err(error);
        }
        sources
            .fill(token, Source::Handshake(Arc::new(Self { token, role, state: Mutex::new(Some(state)) })));
        Ok(token)
    }

    /// Does what can be done without waiting; `last` when the end of the input may have come.
    pub(crate) fn handle_ready(&self, shared: &Arc<Shared>, last: bool, wakes: &mut Wakes) {
        let mut state = self.state.hold();
        let Some(active) = state.as_mut() else { return };
        let step = active.advance(shared, &self.role, last);
        let step = match step {
            Step::Wait => active.watch_room(shared, self.token).map_or_else(Step::Failed, |()| Step::Wait),
            step => step,
        };
        match step {
            Step::Wait => {}
            Step::Established => {
                if let Some(mut state) = state.take() {
                    shared.sources.hold().remove(self.token);
                    if let Err(error) = shared.registry.deregister(&mut state.socket) {
                        tracing::debug!(%error, "a socket was not watched any more");
                    }
                    self.role.establish(shared, state, None, wakes);
                }
            }
            Step::Failed(error) => {
                if let (Some(state), DialError::RefusedByUs) = (state.take(), &error) {
                    // Bytes sent on trust may lie unread; closing over them would destroy the verdict on its way.
                    Ending::begin(shared, state.socket.into(), Vec::new(), false);
                }
                self.fail(shared, error, wakes);
            }
        }
    }

    /// The handshake took too long.
    pub(crate) fn handle_timeout(&self, shared: &Arc<Shared>, wakes: &mut Wakes) {
        // Counted before the socket closes, so that whoever sees the close sees the count as well.
        let state = self.state.hold().take();
        if state.is_some() {
            self.fail(shared, DialError::TimedOut, wakes);
        }
    }

    fn fail(&self, shared: &Shared, error: DialError, wakes: &mut Wakes) {
        shared.sources.hold().remove(self.token);
        match &self.role {
            Role::Dialer(order) => order.finish(Err(error), wakes),
            Role::Acceptor { source, .. } => {
                tracing::debug!(%source, %error, "an incoming handshake failed");
                shared.counters.hold().handshakes_failed += 1;
                self.role.leave_pending(shared);
            }
        }
    }
}

impl Role {
    /// Hands the stream to whoever waits for it. `blocks`: the socket is in blocking mode already, with this timeout.
    fn establish(&self, shared: &Arc<Shared>, state: State, blocks: Option<Duration>, wakes: &mut Wakes) {
        let established = state.handshake.into_established();
        let socket = std::net::TcpStream::from(state.socket);
        let punched = self.is_punched();
        let (label, place, remote) = match self {
            Self::Dialer(order) => (order.preface.label.clone(), None, order.remote),
            Self::Acceptor { source, .. } => {
                self.leave_pending(shared);
                let (label, place) = state.admitted.expect("an acceptor admits before it establishes");
                (label, Some(place), *source)
            }
        };
        let early = matches!(self, Self::Dialer(_)) && !state.accepted;
        let watched = TcpAcceptor::PASSES_OPTIONS_ON && place.is_some() && !punched;
        let origin = Origin { remote, early, punched, watched, blocks };
        let stream = TcpConnection::new(socket, established, origin, label, shared)
            .map(Stream::from_tcp)
            .map_err(DialError::Socket);
        match (self, place, stream) {
            (Self::Dialer(order), _, stream) => order.finish(stream, wakes),
            (Self::Acceptor { .. }, Some(place), Ok(stream)) => place.deliver(stream, wakes),
            (Self::Acceptor { source, .. }, _, stream) => {
                tracing::debug!(%source, error = ?stream.err(), "an accepted connection broke at once");
            }
        }
    }

    fn is_punched(&self) -> bool {
        match self {
            Self::Dialer(order) => order.punched,
            Self::Acceptor { listener, .. } => listener.is_none(),
        }
    }

    /// What was punched was never counted.
    fn leave_pending(&self, shared: &Shared) {
        if let Self::Acceptor { listener: Some(_), source } = self {
            shared.leave_pending(source.ip());
        }
    }
}

impl State {
    fn new(socket: TcpStream, handshake: Handshake) -> Self {
        Self {
            socket,
            handshake,
            unsent: Vec::new(),
            watches_room: false,
            admitted: None,
            refused: false,
            finished: false,
            accepted: false,
        }
    }

    fn interest(&self) -> Interest {
        if self.watches_room { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
    }

    /// Has the poll tell of room, once it is needed.
    fn watch_room(&mut self, shared: &Shared, token: Token) -> Result<(), DialError> {
        if self.unsent.is_empty() || self.watches_room {
            return Ok(());
        }
        self.watches_room = true;
        let interest = self.interest();
        shared.registry.reregister(&mut self.socket, token, interest).map_err(DialError::Socket)
    }

    fn advance(&mut self, shared: &Arc<Shared>, role: &Role, last: bool) -> Step {
        match self.try_advance(shared, role, last) {
            Ok(step) => step,
            Err(error) => {
                // An alert may be left that tells the peer why; it goes out if it fits.
                self.collect();
                let _ = self.send();
                Step::Failed(error)
            }
        }
    }

    fn try_advance(&mut self, shared: &Arc<Shared>, role: &Role, last: bool) -> Result<Step, DialError> {
        let mut drained = false;
        let mut buffer = [0; FLIGHT_BYTES];
        loop {
            self.collect();
            self.send()?;
            if let Some(step) = self.outcome(role) {
                return Ok(step);
            }
            if drained {
                return Ok(Step::Wait);
            }
            let read = match self.socket.read(&mut buffer) {
                Ok(0) => return Err(self.handshake.handle_end().into()),
                Ok(read) => read,
                Err(error) if is_not_yet(&error) => return Ok(Step::Wait),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(DialError::Socket(error)),
            };
            // A short read has emptied the socket, and whatever comes later is an event of its own. Windows tells of the
            // next event only after a read that would block.
            drained = read < buffer.len() && !last && !cfg!(windows);
            self.handshake.handle_bytes(&buffer[..read])?;
            while let Some(event) = self.handshake.poll_event() {
                self.handle_event(event, shared, role)?;
            }
        }
    }

    fn handle_event(&mut self, event: HandshakeEvent, shared: &Shared, role: &Role) -> Result<(), DialError> {
        match (event, role) {
            (HandshakeEvent::Ready, Role::Dialer(order)) if order.may_ask(shared) => {
                self.handshake.ask()?;
            }
            (HandshakeEvent::Ready, _) => return Err(DialError::NotChosen),
            (HandshakeEvent::Finished, _) => self.finished = true,
            (HandshakeEvent::Verdict(Verdict::Accepted), _) => self.accepted = true,
            (HandshakeEvent::Verdict(Verdict::Refused(reason)), _) => return Err(DialError::Refused(reason)),
            (HandshakeEvent::Preface { peer, preface }, Role::Acceptor { listener, .. }) => {
                let queue = listener.as_ref().map(|listener| listener.queue());
                let verdict = match shared.judge(&peer, &preface, queue.as_ref()) {
                    Ok(place) => {
                        self.admitted = Some((preface.label, place));
                        Verdict::Accepted
                    }
                    Err(reason) => self.refuse(reason),
                };
                self.handshake.answer(verdict);
            }
            (HandshakeEvent::BadPreface(reason), _) => {
                let verdict = self.refuse(reason);
                self.handshake.answer(verdict);
            }
            (HandshakeEvent::Preface { .. }, Role::Dialer(_)) => {}
        }
        Ok(())
    }

    fn refuse(&mut self, reason: Refusal) -> Verdict {
        self.refused = true;
        Verdict::Refused(reason)
    }

    fn outcome(&self, role: &Role) -> Option<Step> {
        if !self.unsent.is_empty() {
            return None;
        }
        match role {
            Role::Dialer(order) => {
                (self.accepted || self.finished && order.early).then_some(Step::Established)
            }
            Role::Acceptor { .. } if self.refused => Some(Step::Failed(DialError::RefusedByUs)),
            Role::Acceptor { .. } => self.admitted.is_some().then_some(Step::Established),
        }
    }

    fn collect(&mut self) {
        while let Some(bytes) = self.handshake.poll_transmit() {
            self.unsent.extend_from_slice(&bytes);
        }
    }

    fn send(&mut self) -> Result<(), DialError> {
        self.try_send().map_err(DialError::Socket)
    }

    fn try_send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.socket.write(&self.unsent[sent..]) {
                Ok(written) => sent += written,
                Err(error) if is_not_yet(&error) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Nothing to read or no room; or no connection yet, for which Linux has the same error and other systems their own.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// More than a flight has, without resumption some 900 bytes.
const FLIGHT_BYTES: usize = 2 << 10;
