//! An established TCP stream: its system calls are made on the caller's thread.
//!
//! Three locks. `receive` is held across `recv`, `send` across `send`, which keeps records in order; `core` is held for
//! cryptography only. A reader takes `receive` then `core`, a writer `send` then `core`, nobody both of the first two. What
//! ends or describes a stream takes neither of the first two, so it never waits for a blocked call.

mod receive;
mod send;

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use socket2::{SockRef, TcpKeepalive};

use self::{receive::Receive, send::Send};
use super::{clock, ending::Ending, lock::Lock as _};
use crate::{
    PublicKey, StreamError,
    admission::ProtocolLabel,
    endpoint::Scheme,
    path::{Path, PathKind},
    protocol::{handshake::Established, tls::TlsCore},
    stats::StreamStats,
    transport::Shared,
};

#[derive(Debug)]
pub(crate) struct TcpConnection {
    shared: Arc<Shared>,
    number: u64,
    socket: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    peer: PublicKey,
    label: ProtocolLabel,
    receive: Mutex<Receive>,
    send: Mutex<Send>,
    core: Mutex<Core>,
    ends: Mutex<Ends>,
}

/// The TLS state and what belongs to it.
#[derive(Debug)]
struct Core {
    tls: TlsCore,
    stats: StreamStats,
}

/// How much of the stream is over, and why.
#[derive(Debug, Default)]
struct Ends {
    /// What every call from now on returns.
    failed: Option<StreamError>,
    read_shut: bool,
    write_shut: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    nonblocking: bool,
}

impl TcpConnection {
    /// Takes a connection over from its handshake; from now on it belongs to its callers.
    pub(crate) fn new(
        socket: TcpStream,
        established: Established,
        early: bool,
        label: ProtocolLabel,
        shared: &Arc<Shared>,
    ) -> io::Result<Arc<Self>> {
        socket.set_nonblocking(false)?;
        watch_peer(&socket, shared.config.dead_after)?;
        let (local, remote) = (socket.local_addr()?, socket.peer_addr()?);
        let Established { core, peer, incoming, plaintext } = established;
        let number = shared.next_number();
        let connection = Arc::new(Self {
            shared: shared.clone(),
            number,
            socket,
            local,
            remote,
            peer,
            label,
            receive: Mutex::new(Receive::new(incoming, plaintext, early)),
            send: Mutex::default(),
            core: Mutex::new(Core { tls: core, stats: StreamStats::default() }),
            ends: Mutex::default(),
        });
        shared.join(number, &connection);
        Ok(connection)
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.receive.hold().read(self, buffer)
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize, StreamError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let written = self.send.hold().write(self, bytes);
        self.end_if_shut();
        written
    }

    /// Hands everything that was taken to the kernel.
    pub(crate) fn flush(&self) -> Result<(), StreamError> {
        let deadline = self.write_deadline();
        let flushed = self.send.hold().flush(self, deadline);
        self.end_if_shut();
        flushed
    }

    /// Ends one direction or both. Never waits for a call in progress.
    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<(), StreamError> {
        let newly_shut = {
            let mut ends = self.ends.hold();
            if let Some(error) = &ends.failed {
                return Err(error.clone());
            }
            ends.read_shut |= how != Shutdown::Write;
            let newly_shut = how != Shutdown::Read && !ends.write_shut;
            ends.write_shut |= newly_shut;
            newly_shut
        };
        if how != Shutdown::Write {
            // It wakes a blocked `recv`. A peer that is gone already makes it fail, which is as good.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
        if newly_shut {
            self.end_if_shut();
        }
        Ok(())
    }

    /// Sends the end of our direction, if it was asked for and nobody is in the middle of a record; whoever is sends it
    /// afterwards.
    fn end_if_shut(&self) {
        if !self.ends.hold().write_shut {
            return;
        }
        if let Ok(mut send) = self.send.try_lock() {
            let deadline = self.write_deadline();
            if let Err(error) = send.end(self, deadline) {
                tracing::debug!(peer = %self.peer, %error, "the end of a stream was not sent yet");
            }
        }
    }

    /// Nobody writes any more, while somebody may still read: sends the end, as far as that goes without waiting.
    pub(crate) fn drop_writer(self: &Arc<Self>) {
        // With the last handle the whole connection ends, and takes what is unsent along.
        if Arc::strong_count(self) > 1 && self.ends.hold().failed.is_none() {
            let _ = self.socket.set_write_timeout(Some(Duration::from_millis(1)));
            let _ = self.shutdown(Shutdown::Write);
        }
    }

    /// Throws the stream away and ends blocked calls: the peer gets a RST.
    pub(crate) fn reset(&self) {
        self.fail(StreamError::Closed);
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        // This wakes a blocked `recv`. A blocked `send` wakes only if that direction ends too, and then the peer sees a
        // cut connection before the RST, which is an error all the same.
        let how = if self.send.try_lock().is_ok() { Shutdown::Read } else { Shutdown::Both };
        let _ = self.socket.shutdown(how);
    }

    /// Ends blocked calls, and every later one, for the transport is closed.
    pub(crate) fn interrupt(&self) {
        self.fail(StreamError::Closed);
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Waits until the peer has ended too, which it does once it has read everything.
    pub(crate) fn close(&self, deadline: Instant) -> Result<(), StreamError> {
        self.ends.hold().write_shut = true;
        self.send.hold().end(self, Some(deadline))?;
        let mut receive = self.receive.hold();
        let mut forgotten = [0; 4096];
        loop {
            match receive.read_until(self, &mut forgotten, Some(deadline)) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        self.ends.hold().read_timeout = timeout;
        self.socket.set_read_timeout(at_least_some(timeout)).map_err(|error| io_error(&error))
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        self.ends.hold().write_timeout = timeout;
        self.socket.set_write_timeout(at_least_some(timeout)).map_err(|error| io_error(&error))
    }

    /// Changes the mode, unless another thread sits in a call.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> Result<(), StreamError> {
        let (Ok(_receive), Ok(_send)) = (self.receive.try_lock(), self.send.try_lock()) else {
            return Err(StreamError::Busy);
        };
        self.socket.set_nonblocking(nonblocking).map_err(|error| io_error(&error))?;
        self.ends.hold().nonblocking = nonblocking;
        Ok(())
    }

    /// Moves the stream's waiting to a set. It becomes non-blocking.
    pub(crate) fn join_set(&self, registry: &Registry, token: Token) -> Result<(), StreamError> {
        self.set_nonblocking(true)?;
        self.receive.hold().set_watched(true);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut SourceFd(&self.socket.as_raw_fd()), token, interest) {
            self.receive.hold().set_watched(false);
            // What it was before.
            let _ = self.set_nonblocking(false);
            return Err(io_error(&error));
        }
        Ok(())
    }

    /// Ends what `join_set` began.
    pub(crate) fn leave_set(&self, registry: &Registry) {
        if let Err(error) = registry.deregister(&mut SourceFd(&self.socket.as_raw_fd())) {
            tracing::debug!(%error, "a stream was not watched any more");
        }
        self.receive.hold().set_watched(false);
        if let Err(error) = self.set_nonblocking(false) {
            tracing::debug!(%error, "a stream stays non-blocking");
        }
    }

    /// The set saw new input; `last` when the end may have come with it.
    pub(crate) fn note_readable(&self, last: bool) {
        self.receive.hold().note_readable(last);
    }

    /// Whether a read may give something although nothing new comes.
    pub(crate) fn has_buffered(&self) -> bool {
        self.receive.hold().has_buffered()
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.peer
    }

    pub(crate) fn protocol(&self) -> &ProtocolLabel {
        &self.label
    }

    pub(crate) fn path(&self) -> Path {
        let kind = PathKind::of(self.remote);
        Path { kind, scheme: Scheme::Tcp, local: self.local, remote: self.remote, round_trip: None }
    }

    pub(crate) fn stats(&self) -> StreamStats {
        self.core.hold().stats
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn read_deadline(&self) -> Option<Instant> {
        let timeout = self.ends.hold().read_timeout;
        timeout.map(|timeout| clock::now() + timeout)
    }

    fn write_deadline(&self) -> Option<Instant> {
        let timeout = self.ends.hold().write_timeout;
        timeout.map(|timeout| clock::now() + timeout)
    }

    /// Makes every later call return this error; the first one counts.
    fn fail(&self, error: StreamError) -> StreamError {
        self.ends.hold().failed.get_or_insert(error).clone()
    }

    fn check(&self) -> Result<(), StreamError> {
        self.ends.hold().failed.clone().map_or(Ok(()), Err)
    }

    /// What an error of a system call on an established stream means.
    fn system_error(&self, error: &io::Error) -> StreamError {
        use io::ErrorKind::{TimedOut, WouldBlock};
        match error.kind() {
            WouldBlock if self.ends.hold().nonblocking => StreamError::WouldBlock,
            // SO_RCVTIMEO and SO_SNDTIMEO: EAGAIN on Unix, WSAETIMEDOUT on Windows, which has no ETIMEDOUT of its own here.
            WouldBlock => StreamError::TimedOut,
            TimedOut => {
                let silent_for = self.shared.config.dead_after.unwrap_or_default();
                self.fail(StreamError::PeerLost { silent_for })
            }
            kind => self.fail(StreamError::Io { kind }),
        }
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.shared.leave(self.number);
        if self.ends.hold().failed.is_some() {
            return;
        }
        let send = self.send.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let core = self.core.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let unsent = send.last_bytes(core);
        match self.socket.try_clone() {
            Ok(socket) => Ending::begin(&self.shared, socket, unsent),
            Err(error) => tracing::debug!(%error, "a stream ends at once"),
        }
    }
}

/// Lets the kernel find out when the peer is silent for too long, also while nothing is sent.
fn watch_peer(socket: &TcpStream, dead_after: Option<Duration>) -> io::Result<()> {
    let Some(dead_after) = dead_after else { return Ok(()) };
    let socket = SockRef::from(socket);
    // The first probe after a third of the time, then five more within it: one lost probe ends nothing.
    let idle = (dead_after / 3).max(Duration::from_secs(1));
    let interval = (dead_after / 8).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval))?;
    // With it set, Linux counts the time and not the probes, and data without acknowledgement as well (RFC 5482).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(dead_after))?;
    Ok(())
}

/// The system takes zero for no timeout at all.
fn at_least_some(timeout: Option<Duration>) -> Option<Duration> {
    timeout.map(|timeout| timeout.max(Duration::from_micros(1)))
}

fn io_error(error: &io::Error) -> StreamError {
    StreamError::Io { kind: error.kind() }
}
