use std::{
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use socket2::SockRef;

use super::{AppliedTimeout, LITTLE_BYTES, Patience, Watch, watch_peer};

/// A socket in blocking mode: callers sit in the system call itself, deadlines are the socket's own timeouts, and its
/// `shutdown` wakes them.
#[derive(Debug)]
pub(in crate::io::tcp) struct StreamSocket {
    /// There until `take`.
    socket: Option<TcpStream>,
}

impl StreamSocket {
    pub(in crate::io::tcp) fn new(socket: TcpStream, watch: Option<Watch>, blocks: bool) -> io::Result<Self> {
        if !blocks {
            socket.set_nonblocking(false)?;
        }
        watch_peer(&SockRef::from(&socket), watch)?;
        Ok(Self { socket: Some(socket) })
    }

    /// Lets the kernel look after the peer, where `new` was not told to.
    pub(in crate::io::tcp) fn watch_peer(&self, watch: Option<Watch>) -> io::Result<()> {
        watch_peer(&SockRef::from(self.socket()), watch)
    }

    fn socket(&self) -> &TcpStream {
        self.socket.as_ref().expect("whoever takes the socket is the last to use it")
    }

    pub(in crate::io::tcp) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// One `recv`. Out of patience it is `WouldBlock`.
    pub(in crate::io::tcp) fn receive(
        &self,
        buffer: &mut [u8],
        patience: Patience,
        applied: &mut AppliedTimeout,
    ) -> io::Result<usize> {
        if applied.is_left_over && patience == Patience::Endless {
            match self.receive_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
        applied.apply(patience, |timeout| self.socket().set_read_timeout(timeout))?;
        self.receive_now(buffer)
    }

    /// The same into a little room. Interrupted, it is to be tried again.
    pub(in crate::io::tcp) fn receive_little<'l>(
        &self,
        little: &'l mut Little,
        patience: Patience,
        applied: &mut AppliedTimeout,
    ) -> io::Result<&'l mut [u8]> {
        let left_over = applied.is_left_over && patience == Patience::Endless;
        if !left_over {
            applied.apply(patience, |timeout| self.socket().set_read_timeout(timeout))?;
        }
        match recv(self.socket(), &mut little.0, RecvFlags::empty()) {
            Ok(((received, _), _)) => Ok(received),
            Err(Errno::AGAIN) if left_over => {
                applied.apply(patience, |timeout| self.socket().set_read_timeout(timeout))?;
                Err(io::ErrorKind::Interrupted.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received,
            }
        }
    }

    /// One `send`, which may take less than all. Out of patience it is `WouldBlock`.
    pub(in crate::io::tcp) fn send(
        &self,
        bytes: &[u8],
        patience: Patience,
        applied: &mut AppliedTimeout,
    ) -> io::Result<usize> {
        applied.apply(patience, |timeout| self.socket().set_write_timeout(timeout))?;
        loop {
            match self.socket().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent,
            }
        }
    }

    /// The same without ever waiting, whatever the mode, for the last bytes: the end of the direction follows at once.
    pub(in crate::io::tcp) fn send_last(&self, bytes: &[u8]) -> io::Result<usize> {
        send_last(self.socket(), bytes)
    }

    pub(in crate::io::tcp) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket().set_nonblocking(nonblocking)
    }

    pub(in crate::io::tcp) fn shutdown(&self, how: Shutdown) {
        // It fails when the peer is gone already, which is as good.
        let _ = self.socket().shutdown(how);
    }

    /// Why the system has given the connection up, told once.
    pub(in crate::io::tcp) fn take_error(&self) -> Option<io::Error> {
        self.socket().take_error().ok().flatten()
    }

    /// Makes the close of the socket throw away what is on its way.
    pub(in crate::io::tcp) fn abort_on_close(&self) {
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    pub(in crate::io::tcp) fn join_set(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&self.socket().as_raw_fd()), token, interest)
    }

    pub(in crate::io::tcp) fn leave_set(&self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut SourceFd(&self.socket().as_raw_fd()))
    }

    /// A second handle of the socket.
    pub(in crate::io::tcp) fn try_clone(&self) -> io::Result<TcpStream> {
        self.socket().try_clone()
    }

    /// The socket itself, once nobody uses it here any more.
    pub(in crate::io::tcp) fn take(&mut self) -> io::Result<TcpStream> {
        self.socket.take().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// Room on the stack, which need not be cleared for each `recv`.
pub(in crate::io::tcp) struct Little([MaybeUninit<u8>; LITTLE_BYTES]);

impl Little {
    pub(in crate::io::tcp) fn new() -> Self {
        Self([MaybeUninit::uninit(); LITTLE_BYTES])
    }
}

/// Sends what the kernel has room for, whatever the mode of the socket, before the end of the direction, with which the last
/// bytes share a segment where the system can keep them back.
pub(crate) fn send_last(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send_with_flags(bytes, MSG_DONTWAIT | MSG_MORE)
}

/// `send(2)`; std has no name for it.
const MSG_DONTWAIT: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 0x40 } else { 0x80 };
/// The same, on Linux only.
const MSG_MORE: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 0x8000 } else { 0 };
