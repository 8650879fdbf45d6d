use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Mutex,
    time::Duration,
};

use mio::{Events, Interest, Poll, Registry, Token};
use socket2::SockRef;

use super::{AppliedTimeout, LITTLE_BYTES, Patience, Watch, watch_peer};
use crate::io::lock::Lock as _;

/// A non-blocking socket, since a receive timeout leaves a socket unusable on Windows. A caller that must wait does so in a
/// poll of its direction's own, made when it first waits.
#[derive(Debug)]
pub(in crate::io::tcp) struct StreamSocket {
    socket: TcpStream,
    receiving: Mutex<Option<Side>>,
    sending: Mutex<Option<Side>>,
    /// While the stream is in a set: what the set's poll watches, through which every call must go to be told of the next.
    watched: Mutex<Option<mio::net::TcpStream>>,
}

#[derive(Debug)]
struct Side {
    poll: Poll,
    source: mio::net::TcpStream,
}

impl StreamSocket {
    pub(in crate::io::tcp) fn new(
        socket: TcpStream,
        watch: Option<Watch>,
        _blocks: bool,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        watch_peer(&SockRef::from(&socket), watch)?;
        Ok(Self { socket, receiving: Mutex::default(), sending: Mutex::default(), watched: Mutex::default() })
    }

    /// Lets the system look after the peer, where `new` was not told to.
    pub(in crate::io::tcp) fn watch_peer(&self, watch: Option<Watch>) -> io::Result<()> {
        watch_peer(&SockRef::from(&self.socket), watch)
    }

    pub(in crate::io::tcp) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// One `recv`. Out of patience it is `WouldBlock`.
    pub(in crate::io::tcp) fn receive(
        &self,
        buffer: &mut [u8],
        patience: Patience,
        _applied: &mut AppliedTimeout,
    ) -> io::Result<usize> {
        self.call(&self.receiving, Interest::READABLE, patience, || (&self.socket).read(buffer))
    }

    /// The same into a little room.
    pub(in crate::io::tcp) fn receive_little<'l>(
        &self,
        little: &'l mut Little,
        patience: Patience,
        applied: &mut AppliedTimeout,
    ) -> io::Result<&'l mut [u8]> {
        let received = self.receive(&mut little.0, patience, applied)?;
        Ok(&mut little.0[..received])
    }

    /// One `send`, which may take less than all. Out of patience it is `WouldBlock`.
    pub(in crate::io::tcp) fn send(
        &self,
        bytes: &[u8],
        patience: Patience,
        _applied: &mut AppliedTimeout,
    ) -> io::Result<usize> {
        self.call(&self.sending, Interest::WRITABLE, patience, || (&self.socket).write(bytes))
    }

    fn call(
        &self,
        side: &Mutex<Option<Side>>,
        interest: Interest,
        patience: Patience,
        mut work: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        if patience == Patience::None {
            return match &*self.watched.hold() {
                Some(source) => source.try_io(work),
                None => work(),
            };
        }
        match work() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        let mut side = side.hold();
        if side.is_none() {
            *side = Some(Side::new(&self.socket, interest)?);
        }
        let side = side.as_mut().expect("it was just made");
        let mut patience = Some(patience);
        loop {
            match side.source.try_io(&mut work) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let Some(left) = patience else { return Err(io::ErrorKind::WouldBlock.into()) };
            side.wait(left)?;
            patience = left.rest();
        }
    }

    /// The same without ever waiting.
    pub(in crate::io::tcp) fn send_last(&self, bytes: &[u8]) -> io::Result<usize> {
        self.call(&self.sending, Interest::WRITABLE, Patience::None, || (&self.socket).write(bytes))
    }

    /// The mode is in each call's patience.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "elsewhere it is a system call")]
    pub(in crate::io::tcp) fn set_nonblocking(&self, _nonblocking: bool) -> io::Result<()> {
        Ok(())
    }

    pub(in crate::io::tcp) fn shutdown(&self, how: Shutdown) {
        // It fails when the peer is gone already, which is as good.
        let _ = self.socket.shutdown(how);
    }

    /// Why the system has given the connection up, told once.
    pub(in crate::io::tcp) fn take_error(&self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
    }

    /// Makes the close of the socket throw away what is on its way.
    pub(in crate::io::tcp) fn abort_on_close(&self) {
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    pub(in crate::io::tcp) fn join_set(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let mut source = mio::net::TcpStream::from_std(self.socket.try_clone()?);
        registry.register(&mut source, token, Interest::READABLE | Interest::WRITABLE)?;
        *self.watched.hold() = Some(source);
        Ok(())
    }

    pub(in crate::io::tcp) fn leave_set(&self, registry: &Registry) -> io::Result<()> {
        let source = self.watched.hold().take();
        source.map_or(Ok(()), |mut source| registry.deregister(&mut source))
    }

    /// A second handle of the socket.
    pub(in crate::io::tcp) fn try_clone(&self) -> io::Result<TcpStream> {
        self.socket.try_clone()
    }

    /// The socket for whoever ends it, once nobody uses it here any more.
    pub(in crate::io::tcp) fn take(&mut self) -> io::Result<TcpStream> {
        self.socket.try_clone()
    }
}

/// Room on the stack.
pub(in crate::io::tcp) struct Little([u8; LITTLE_BYTES]);

impl Little {
    pub(in crate::io::tcp) fn new() -> Self {
        Self([0; LITTLE_BYTES])
    }
}

/// Sends what the system has room for.
pub(crate) fn send_last(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut socket = socket;
    socket.write(bytes)
}

impl Side {
    fn new(socket: &TcpStream, interest: Interest) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut source = mio::net::TcpStream::from_std(socket.try_clone()?);
        poll.registry().register(&mut source, Token(0), interest)?;
        Ok(Self { poll, source })
    }

    fn wait(&mut self, patience: Patience) -> io::Result<()> {
        let timeout = match patience {
            Patience::Until { timeout, .. } => Some(timeout),
            Patience::None | Patience::Endless => None,
        };
        match self.poll.poll(&mut Events::with_capacity(1), timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}
