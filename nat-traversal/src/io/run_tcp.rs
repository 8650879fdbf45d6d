use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::Socket;

use super::clock::now;
use super::interrupt::Interrupter;
use super::run::RunError;
use super::socket::reusable_tcp;
use super::stun_tcp::is_under_way;
use crate::late_addresses::LateAddresses;
use crate::protocol::{ConnectionId, Dial, TcpPunchEvent, TcpPuncher};

/// What came of a punch for TCP.
pub(crate) enum TcpOutcome {
    Punched(std::net::TcpStream),
    Hopeless(crate::protocol::Obstacle),
}

/// Drives a [`TcpPuncher`] with a listener and dials from one port, until it ends, `deadline` passes or someone interrupts.
pub(crate) fn run_tcp(
    puncher: &mut TcpPuncher,
    socket: Socket,
    late: Option<&LateAddresses>,
    deadline: Instant,
    interrupter: &Interrupter,
) -> Result<TcpOutcome, RunError> {
    let mut driver = Driver::new(socket)?;
    let waker = Arc::new(Waker::new(driver.poll.registry(), WAKER)?);
    let _watch = interrupter.watch(waker.clone())?;
    if let Some(late) = late {
        late.watch(waker);
    }
    let mut events = Events::with_capacity(64);
    loop {
        if let Some(news) = late.and_then(LateAddresses::take) {
            puncher.learn(now(), &news.ours, &news.theirs, news.more);
        }
        driver.carry_out(puncher);
        match puncher.poll_event() {
            Some(TcpPunchEvent::Punched(id)) => return Ok(TcpOutcome::Punched(driver.take(id)?)),
            Some(TcpPunchEvent::Hopeless(obstacle)) => return Ok(TcpOutcome::Hopeless(obstacle)),
            None => {}
        }
        let time = now();
        if interrupter.is_interrupted() {
            return Err(RunError::Interrupted);
        }
        if time >= deadline {
            return Err(RunError::TimedOut);
        }
        let due = puncher.poll_timeout().map_or(deadline, |due| due.min(deadline));
        if due <= time {
            puncher.handle_timeout(time);
            continue;
        }
        match driver.poll.poll(&mut events, Some(due.saturating_duration_since(time))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        for token in events.iter().map(mio::event::Event::token) {
            match token {
                WAKER => {}
                LISTENER => driver.accept(puncher),
                Token(number) => driver.turn(puncher, number),
            }
            driver.carry_out(puncher);
        }
    }
}

struct Driver {
    poll: Poll,
    local: SocketAddr,
    listener: TcpListener,
    sockets: BTreeMap<usize, Open>,
}

/// One connection or attempt.
struct Open {
    stream: TcpStream,
    unsent: Vec<u8>,
    established: bool,
}

impl Driver {
    fn new(socket: Socket) -> io::Result<Self> {
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self { poll, local, listener, sockets: BTreeMap::new() })
    }

    /// Does all that the puncher asks for.
    fn carry_out(&mut self, puncher: &mut TcpPuncher) {
        // Closed first: two sockets cannot have the same pair of addresses.
        while let Some(id) = puncher.poll_close() {
            self.sockets.remove(&number(id));
        }
        while let Some(dial) = puncher.poll_dial() {
            if let Err(error) = self.dial(dial) {
                tracing::debug!(remote = %dial.remote, %error, "not dialled");
                puncher.handle_failed(now(), dial.id);
            }
        }
        while let Some((id, bytes)) = puncher.poll_transmit() {
            let Some(open) = self.sockets.get_mut(&number(id)) else { continue };
            open.unsent.extend(bytes);
            // What is refused now is found out by the next read.
            drop(open.flush());
        }
    }

    fn dial(&mut self, dial: Dial) -> io::Result<()> {
        let socket = reusable_tcp(self.local)?;
        socket.set_nonblocking(true)?;
        tracing::trace!(id = ?dial.id, remote = %dial.remote, "dialling");
        match socket.connect(&dial.remote.into()) {
            Ok(()) => {}
            Err(error) if is_under_way(&error) => {}
            Err(error) => return Err(error),
        }
        self.keep(dial.id, TcpStream::from_std(socket.into()), false)
    }

    fn accept(&mut self, puncher: &mut TcpPuncher) {
        while let Ok((stream, remote)) = self.listener.accept() {
            tracing::trace!(%remote, "accepted");
            if let Some(id) = puncher.handle_accepted(now(), remote)
                && self.keep(id, stream, true).is_err()
            {
                puncher.handle_end(now(), id);
            }
        }
    }

    fn keep(&mut self, id: ConnectionId, mut stream: TcpStream, established: bool) -> io::Result<()> {
        // Else the second message of a proof waits until the first is acknowledged, a whole round trip.
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number(id)), interest)?;
        self.sockets.insert(number(id), Open { stream, unsent: Vec::new(), established });
        Ok(())
    }

    /// Something has happened to a connection or an attempt.
    fn turn(&mut self, puncher: &mut TcpPuncher, number: usize) {
        let Some(open) = self.sockets.get_mut(&number) else { return };
        let id = ConnectionId(u32::try_from(number).expect("made of a u32"));
        if !open.established {
            match open.is_established() {
                Ok(false) => return,
                Ok(true) => {
                    tracing::trace!(?id, "an attempt is established");
                    puncher.handle_connected(now(), id);
                }
                Err(error) => {
                    tracing::trace!(%error, "an attempt failed");
                    self.sockets.remove(&number);
                    return puncher.handle_failed(now(), id);
                }
            }
        }
        if open.read(puncher, id).is_err() || open.flush().is_err() {
            self.sockets.remove(&number);
            puncher.handle_end(now(), id);
        }
    }

    /// Takes the connection that was chosen, in blocking mode and with everything sent.
    fn take(&mut self, id: ConnectionId) -> io::Result<std::net::TcpStream> {
        let mut open = self.sockets.remove(&number(id)).ok_or(io::ErrorKind::NotConnected)?;
        self.poll.registry().deregister(&mut open.stream)?;
        let mut stream = std::net::TcpStream::from(open.stream);
        stream.set_nonblocking(false)?;
        stream.write_all(&open.unsent)?;
        stream.set_nodelay(false)?;
        Ok(stream)
    }
}

impl Open {
    fn is_established(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(error),
        }
        self.established = true;
        Ok(true)
    }

    /// Reads what the puncher wants and not a byte more: the rest is the application's.
    fn read(&mut self, puncher: &mut TcpPuncher, id: ConnectionId) -> io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            let wanted = puncher.wanted_bytes(id).min(buffer.len());
            if wanted == 0 {
                return Ok(());
            }
            match self.stream.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    tracing::trace!(?id, length, "received");
                    puncher.handle_bytes(id, &buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.established && !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn number(id: ConnectionId) -> usize {
    usize::try_from(id.0).expect("usize has 32 bits at least")
}

/// Connections that wait to be accepted; they are accepted at once.
const BACKLOG: i32 = 16;

/// Beyond all numbers of connections.
const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
