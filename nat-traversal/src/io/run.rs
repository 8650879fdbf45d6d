use std::borrow::Cow;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::time::Instant;

use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::now;
use super::interrupt::Interrupter;
use super::socket;
use crate::protocol::{Datagram, Machine, SocketIndex, Transmit};

/// Why a machine's run ended without a result.
#[derive(Debug)]
pub(crate) enum RunError {
    TimedOut,
    Interrupted,
    Io(io::Error),
}

impl RunError {
    /// What happened, in words.
    pub(crate) fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::TimedOut => Cow::Borrowed("too late"),
            Self::Interrupted => Cow::Borrowed("interrupted"),
            Self::Io(error) => Cow::Owned(error.to_string()),
        }
    }
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The sockets of a machine: the one it was given and those it asked for.
pub(crate) struct Sockets {
    sockets: Vec<UdpSocket>,
}

impl Sockets {
    pub(crate) fn new(main: UdpSocket) -> Self {
        Self { sockets: vec![main] }
    }

    /// With those that would else be opened when they are needed.
    pub(crate) fn with_further(main: UdpSocket, further: Vec<UdpSocket>) -> Self {
        Self { sockets: std::iter::once(main).chain(further).collect() }
    }

    /// Takes one out, in blocking mode, and closes the others.
    pub(crate) fn take(mut self, index: SocketIndex) -> io::Result<UdpSocket> {
        let socket = self.sockets.swap_remove(usize::from(index.0));
        socket.set_nonblocking(false)?;
        Ok(socket)
    }
}

/// Drives a machine until `on_event` breaks off, `deadline` passes or someone interrupts. The only loop over UDP sockets
/// for a caller that waits.
pub(crate) fn run<M: Machine, T>(
    machine: &mut M,
    sockets: &mut Sockets,
    deadline: Instant,
    interrupter: &Interrupter,
    mut on_event: impl FnMut(M::Event) -> ControlFlow<T>,
) -> Result<T, RunError> {
    let mut driver = Driver::new(sockets)?;
    let _watch = interrupter.watch(Waker::new(driver.poll.registry(), WAKER)?)?;
    loop {
        driver.send_all(machine, sockets);
        while let Some(event) = machine.poll_event() {
            if let ControlFlow::Break(result) = on_event(event) {
                return Ok(result);
            }
        }
        let time = now();
        if interrupter.is_interrupted() {
            return Err(RunError::Interrupted);
        }
        if time >= deadline {
            return Err(RunError::TimedOut);
        }
        let due = machine.poll_timeout().map_or(deadline, |due| due.min(deadline));
        if due <= time {
            machine.handle_timeout(time);
            continue;
        }
        driver.wait_and_receive(machine, sockets, due)?;
    }
}

struct Driver {
    poll: Poll,
    events: Events,
    registered: Vec<mio::net::UdpSocket>,
    buffer: Vec<u8>,
    /// Datagrams were left unread, of which the poll will not tell again.
    unread: bool,
}

impl Driver {
    fn new(sockets: &Sockets) -> io::Result<Self> {
        let mut driver = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(64),
            registered: Vec::new(),
            buffer: vec![0; MAX_DATAGRAM_BYTES],
            unread: false,
        };
        for socket in &sockets.sockets {
            driver.register(socket)?;
        }
        Ok(driver)
    }

    fn register(&mut self, socket: &UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let mut source = mio::net::UdpSocket::from_std(socket.try_clone()?);
        self.poll.registry().register(&mut source, Token(self.registered.len()), Interest::READABLE)?;
        self.registered.push(source);
        Ok(())
    }

    fn send_all(&mut self, machine: &mut impl Machine, sockets: &mut Sockets) {
        while let Some(transmit) = machine.poll_transmit() {
            match self.open_up_to(transmit.socket, sockets) {
                Ok(()) => send(&sockets.sockets[usize::from(transmit.socket.0)], &transmit),
                // As good as lost: with fewer sockets a spray takes longer, and goes on.
                Err(error) => tracing::debug!(%error, sockets = sockets.sockets.len(), "no further socket"),
            }
        }
    }

    /// Opens sockets like the first one until there are as many as the machine names.
    fn open_up_to(&mut self, index: SocketIndex, sockets: &mut Sockets) -> io::Result<()> {
        while sockets.sockets.len() <= usize::from(index.0) {
            let like = sockets.sockets[0].local_addr()?;
            let ip = if like.ip().is_unspecified() { socket::unspecified_like(like) } else { like.ip() };
            let further = UdpSocket::bind(SocketAddr::new(ip, 0))?;
            self.register(&further)?;
            sockets.sockets.push(further);
        }
        Ok(())
    }

    fn wait_and_receive(
        &mut self,
        machine: &mut impl Machine,
        sockets: &mut Sockets,
        due: Instant,
    ) -> io::Result<()> {
        let ready: Vec<usize> = if self.unread {
            (0..self.registered.len()).collect()
        } else {
            let wait = due.saturating_duration_since(now());
            match self.poll.poll(&mut self.events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                result => result?,
            }
            self.events.iter().map(|event| event.token().0).collect()
        };
        let mut budget = DATAGRAMS_A_TURN;
        let known = self.registered.len();
        for index in ready.into_iter().filter(|index| *index < known) {
            while budget > 0
                && let Some((length, source)) = receive(&self.registered[index], &mut self.buffer)?
            {
                budget -= 1;
                let socket = SocketIndex(u16::try_from(index).expect("sockets are numbered by u16"));
                machine.handle_datagram(now(), Datagram { socket, source, bytes: &self.buffer[..length] });
                self.send_all(machine, sockets);
            }
        }
        self.unread = budget == 0;
        Ok(())
    }
}

/// Sends one datagram. One that cannot be sent is as good as lost, and machines know how to live with losses.
pub(crate) fn send(socket: &UdpSocket, transmit: &Transmit) {
    let sent = match transmit.hops {
        Some(hops) => socket::send_with_hops(socket, &transmit.bytes, transmit.destination, hops),
        None => socket.send_to(&transmit.bytes, transmit.destination),
    };
    match sent {
        Ok(_) => tracing::trace!(to = %transmit.destination, bytes = transmit.bytes.len(), "sent"),
        Err(error) => tracing::debug!(to = %transmit.destination, %error, "not sent"),
    }
}

/// The next datagram, `None` when all are read.
pub(crate) fn receive(
    socket: &mio::net::UdpSocket,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, SocketAddr)>> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Ok(Some(received)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                // News of an earlier datagram that found nobody; some systems tell it here.
                io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable => {}
                _ => return Err(error),
            },
        }
    }
}

/// Larger datagrams do not exist.
pub(crate) const MAX_DATAGRAM_BYTES: usize = 65_535;

/// After so many the deadline and timers are looked at again, so that a flood cannot hold up a call.
const DATAGRAMS_A_TURN: u32 = 512;

/// Beyond all numbers of sockets.
const WAKER: Token = Token(usize::MAX);
