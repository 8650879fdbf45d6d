//! An established TCP stream: its system calls are made on the caller's thread.
//!
//! Three locks. `receive` is held across `recv`, `send` across `send`, which keeps records in order; `core` is held for
//! cryptography only. A reader takes `receive` then `core`, a writer `send` then `core`, nobody both of the first two. What
//! ends or describes a stream takes neither of the first two, so it never waits for a blocked call.

mod close;
mod ends;
mod reader_end;
mod receive;
mod send;
mod socket;
mod unacknowledged;
mod writer_end;

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    thread,
    time::{Duration, Instant},
};

use mio::{Registry, Token};

use self::{
    ends::Ends,
    receive::Receive,
    send::Send,
    socket::{Patience, StreamSocket},
};
pub(crate) use self::{
    reader_end::ReaderEnd,
    socket::{Watch, send_last, watch_peer},
    writer_end::WriterEnd,
};
use super::{
    clock,
    crank::Waited,
    ending::Ending,
    later::{Item, Later},
    lock::Lock as _,
};
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
    socket: StreamSocket,
    remote: SocketAddr,
    punched: bool,
    peer: PublicKey,
    label: ProtocolLabel,
    receive: Mutex<Receive>,
    send: Mutex<Send>,
    core: Mutex<Core>,
    ends: Mutex<Ends>,
}

/// How a connection came about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) remote: SocketAddr,
    /// It is handed out before its verdict.
    pub(crate) early: bool,
    pub(crate) punched: bool,
    /// The kernel looks after a silent peer already.
    pub(crate) watched: bool,
    /// The socket is in blocking mode already, and reading has this timeout.
    pub(crate) blocks: Option<Duration>,
}

/// The TLS state and what belongs to it.
#[derive(Debug)]
struct Core {
    tls: TlsCore,
    stats: StreamStats,
}

impl TcpConnection {
    /// Takes a connection over from its handshake; from now on it belongs to its callers.
    pub(crate) fn new(
        socket: TcpStream,
        established: Established,
        origin: Origin,
        label: ProtocolLabel,
        shared: &Arc<Shared>,
    ) -> io::Result<Arc<Self>> {
        let Origin { remote, early, punched, watched, blocks } = origin;
        let is_young = blocks.is_some();
        let usual = shared.config.dead_after.map(Watch::new);
        let watch = usual.filter(|_| !watched && !is_young);
        let socket = StreamSocket::new(socket, watch, is_young)?;
        let Established { core, peer, incoming, plaintext } = established;
        let number = shared.next_number();
        let connection = Arc::new(Self {
            shared: shared.clone(),
            number,
            socket,
            remote,
            punched,
            peer,
            label,
            receive: Mutex::new(Receive::new(incoming, plaintext, early, blocks)),
            send: Mutex::default(),
            core: Mutex::new(Core { tls: core, stats: StreamStats::default() }),
            ends: Mutex::default(),
        });
        shared.join(number, &connection);
        if is_young && shared.config.dead_after.is_some() {
            Later::put(shared, Item::Young(Arc::downgrade(&connection)));
        }
        Ok(connection)
    }

    /// The stream has lived for a while: from now on the kernel tells if the peer does not any more.
    pub(crate) fn watch_peer(&self) {
        if let Err(error) = self.socket.watch_peer(self.watch()) {
            tracing::debug!(peer = %self.peer, %error, "the system does not look after a stream");
        }
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.receive.hold().read(self, buffer, None)
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize, StreamError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.send.hold().write(self, bytes)
    }

    /// Hands everything that was taken to the kernel.
    pub(crate) fn flush(&self) -> Result<(), StreamError> {
        let mut send = self.send.hold();
        let patience = self.begin_flush()?;
        send.flush(self, patience)
    }

    /// Ends one direction or both; calls in progress there return.
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
            self.socket.shutdown(Shutdown::Read);
        }
        if newly_shut { self.end_writing() } else { Ok(()) }
    }

    fn end_writing(&self) -> Result<(), StreamError> {
        // A write in progress is given a moment for its record, so that the end is a clean one. A write that is stuck is
        // cut off, and with it the stream, whose peer then learns that bytes are missing.
        let patience = {
            let ends = self.ends.hold();
            Patience::new(ends.nonblocking, ends.write_timeout)
        };
        match try_hold_until(&self.send, clock::now() + RECORD_TIME) {
            Some(mut send) => send.end(self, patience),
            None => {
                self.socket.shutdown(Shutdown::Write);
                Ok(())
            }
        }
    }

    /// Nobody writes any more, while somebody may still read: sends the end without waiting, or leaves it to the driver.
    pub(crate) fn drop_writer(self: &Arc<Self>) {
        {
            let mut ends = self.ends.hold();
            // With the last handle the whole connection ends, and takes what is unsent along.
            if Arc::strong_count(self) == 1 || ends.failed.is_some() {
                return;
            }
            ends.write_shut = true;
        }
        if !self.end_now()
            && let Err(error) = WriterEnd::watch(self)
        {
            tracing::debug!(peer = %self.peer, %error, "the end of a stream is sent only with its last handle");
        }
    }

    /// Nobody reads any more, while somebody may still write: from the next write on what comes is thrown away. Not before, as
    /// mostly the writing half goes right after this one.
    pub(crate) fn drop_reader(&self) {
        {
            let mut ends = self.ends.hold();
            ends.read_shut = true;
            ends.unread = true;
        }
        // A write in progress may wait for a peer that waits to be read.
        if self.send.try_lock().is_err() && std::mem::take(&mut self.ends.hold().unread) {
            self.forget_input();
        }
    }

    /// Has the driver throw away what comes.
    fn forget_input(&self) {
        if let Err(error) = ReaderEnd::watch(self) {
            tracing::debug!(peer = %self.peer, %error, "what nobody reads stays with the system");
        }
    }

    /// A second handle of the socket, for the poll.
    fn duplicate(&self) -> io::Result<TcpStream> {
        self.ends.hold().duplicated = true;
        self.socket.try_clone()
    }

    /// Sends the end of our direction as far as that goes without waiting; tells whether it is done.
    fn end_now(&self) -> bool {
        self.send.hold().end_now(self)
    }

    /// Throws the stream away and ends blocked calls: the peer gets a RST.
    pub(crate) fn reset(&self) {
        self.fail(StreamError::Closed);
        self.socket.abort_on_close();
        // This wakes a blocked `recv`. A blocked `send` wakes only if that direction ends too, and then the peer sees a
        // cut connection before the RST, which is an error all the same.
        let how = if self.send.try_lock().is_ok() { Shutdown::Read } else { Shutdown::Both };
        self.socket.shutdown(how);
    }

    /// Ends blocked calls, and every later one, for the transport is closed.
    pub(crate) fn interrupt(&self) {
        self.fail(StreamError::Closed);
        self.socket.shutdown(Shutdown::Both);
    }

    /// Ends blocked calls, and every later one: nothing can come any more. The system must not go on about it.
    pub(crate) fn lose_address(&self) {
        self.fail(StreamError::AddressGone { local: self.path().local });
        self.socket.abort_on_close();
        self.socket.shutdown(Shutdown::Both);
    }

    /// How the system is to look after the peer.
    fn watch(&self) -> Option<Watch> {
        self.ends.hold().watch.or_else(|| self.shared.config.dead_after.map(Watch::new))
    }

    pub(crate) fn set_keep_alive(&self, keep_alive: Duration, dead_after: Duration) {
        self.ends.hold().watch = Some(Watch::with_keep_alive(keep_alive, dead_after));
        self.watch_peer();
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.ends.hold().read_timeout = timeout;
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.ends.hold().write_timeout = timeout;
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
        if let Err(error) = self.socket.join_set(registry, token) {
            self.receive.hold().set_watched(false);
            // What it was before.
            let _ = self.set_nonblocking(false);
            return Err(io_error(&error));
        }
        Ok(())
    }

    /// Ends what `join_set` began.
    pub(crate) fn leave_set(&self, registry: &Registry) {
        if let Err(error) = self.socket.leave_set(registry) {
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

    pub(crate) fn export(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Option<()> {
        self.core.hold().tls.export(output, label, context)
    }

    pub(crate) fn path(&self) -> Path {
        let kind = PathKind::of(self.remote, self.punched);
        // Asked for when it is wanted, since most never do; a socket that was bound has one.
        let unknown = SocketAddr::new(if self.remote.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
        let local = self.socket.local_addr().unwrap_or(unknown);
        Path { kind, scheme: Scheme::Tcp, local, remote: self.remote, round_trip: None, changes: 0 }
    }

    /// Waits for what never happens: the deadline or the end of the transport.
    pub(crate) fn wait_idle(&self, deadline: Instant) -> StreamError {
        match self.shared.crank.wait(&self.shared.crank.slot(), Some(deadline)) {
            Waited::Closed => StreamError::Closed,
            Waited::Ready | Waited::TimedOut => StreamError::TimedOut,
        }
    }

    pub(crate) fn stats(&self) -> StreamStats {
        self.core.hold().stats
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.shared.leave(self.number);
        let ends = self.ends.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ends.failed.is_some() {
            return;
        }
        let duplicated = ends.duplicated;
        let send = self.send.get_mut().unwrap_or_else(PoisonError::into_inner);
        let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
        let unsent = send.last_bytes(core);
        let receive = self.receive.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Where the poll has a handle of its own, closing ours ends nothing.
        let closes = receive.has_peer_ended() && !duplicated;
        match self.socket.take() {
            Ok(socket) => Ending::begin(&self.shared, socket, unsent, closes),
            Err(error) => tracing::debug!(%error, "a stream ends at once"),
        }
    }
}

/// Takes a lock that the holder may keep across a wait.
fn try_hold_until<T>(lock: &Mutex<T>, deadline: Instant) -> Option<MutexGuard<'_, T>> {
    loop {
        match lock.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if clock::now() < deadline => thread::sleep(LOOK_AGAIN_AFTER),
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

fn io_error(error: &io::Error) -> StreamError {
    StreamError::Io { kind: error.kind() }
}

/// How long a write in progress may take for its record when the direction is shut down.
const RECORD_TIME: Duration = Duration::from_millis(10);
/// Between two looks at a lock that is rarely contended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);
