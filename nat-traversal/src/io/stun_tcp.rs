use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::now;
use super::interrupt::Interrupter;
use super::run::RunError;
use super::socket::reusable_tcp;
use crate::protocol::stun::Message;
use crate::protocol::{Mapping, Seed, StreamMapper};

/// Asks servers over TCP from the port of `local` which address they see; ends with what is known at `deadline`.
pub(crate) fn learn(
    local: SocketAddr,
    servers: &[SocketAddr],
    seed: Seed,
    deadline: Instant,
    interrupter: &Interrupter,
) -> Result<Mapping, RunError> {
    let mut poll = Poll::new()?;
    let _watch = interrupter.watch(Waker::new(poll.registry(), WAKER)?)?;
    let mut mapper = StreamMapper::new(servers, seed);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    for (index, server) in mapper.servers().into_iter().enumerate() {
        let connection = Connection::dial(local, server, mapper.request(index));
        connections.push(match connection {
            Ok(mut connection) => {
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut connection.stream, Token(index), interest)?;
                Some(connection)
            }
            Err(_) => {
                mapper.handle_end(index);
                None
            }
        });
    }
    let mut events = Events::with_capacity(16);
    loop {
        if interrupter.is_interrupted() {
            return Err(RunError::Interrupted);
        }
        let time = now();
        if mapper.is_done(time) || time >= deadline {
            return Ok(mapper.conclude());
        }
        let due = mapper.poll_timeout().map_or(deadline, |due| due.min(deadline));
        match poll.poll(&mut events, Some(due.saturating_duration_since(time).max(SHORTEST_WAIT))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for index in events.iter().map(|event| event.token().0) {
            let Some(Some(connection)) = connections.get_mut(index) else { continue };
            match connection.turn() {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    mapper.handle_answer(now(), index, &answer);
                    connections[index] = None;
                }
                Err(_) => {
                    mapper.handle_end(index);
                    connections[index] = None;
                }
            }
        }
    }
}

/// One question under way.
struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
    received: Vec<u8>,
}

impl Connection {
    fn dial(local: SocketAddr, server: SocketAddr, request: Vec<u8>) -> io::Result<Self> {
        let socket = reusable_tcp(local)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if is_under_way(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { stream: TcpStream::from_std(socket.into()), unsent: request, received: Vec::new() })
    }

    /// Does what can be done without waiting; returns the answer once it is whole.
    fn turn(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {}
                Err(error) => return Err(error),
            }
        }
        let mut chunk = [0; 512];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend(&chunk[..length]),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            match Message::length_in_stream(&self.received).map_err(io::Error::other)? {
                Some(length) if length > MAX_ANSWER_BYTES => return Err(io::ErrorKind::InvalidData.into()),
                Some(length) if self.received.len() >= length => {
                    self.received.truncate(length);
                    return Ok(Some(std::mem::take(&mut self.received)));
                }
                _ => {}
            }
        }
    }
}

/// Whether a non-blocking connect goes on in the background.
pub(crate) fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS)
}

/// The standard library has no stable name for it. Windows says `WouldBlock`.
const EINPROGRESS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 115 } else { 36 };

const WAKER: Token = Token(usize::MAX);

/// Answers are a hundred bytes; more is not one.
const MAX_ANSWER_BYTES: usize = 2_048;

/// Keeps a timer that is due this moment from spinning.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
