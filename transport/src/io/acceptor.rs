//! A listening TCP socket: takes connections as long as there is room for their handshakes.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use mio::{Interest, Token, net::TcpListener};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    accept_queue::AcceptQueue,
    clock,
    handshake::TcpHandshake,
    lock::Lock as _,
    sources::Source,
    tcp::{Watch, watch_peer},
};
use crate::{protocol::pending::Room, transport::Shared};

#[derive(Debug)]
pub(crate) struct TcpAcceptor {
    token: Token,
    socket: TcpListener,
    /// Where its streams go: the listener's own queue, or that of the set it was added to.
    queue: Mutex<Arc<AcceptQueue>>,
}

impl TcpAcceptor {
    /// Whether a connection that comes in has the listening socket's options already.
    pub(crate) const PASSES_OPTIONS_ON: bool = cfg!(any(target_os = "linux", target_os = "android"));

    /// Binds and watches a socket.
    pub(crate) fn bind(
        shared: &Shared,
        addr: SocketAddr,
        queue: Arc<AcceptQueue>,
    ) -> io::Result<(Arc<Self>, SocketAddr)> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // On Windows this option would let another program take the port over.
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Set here, each connection that comes in is spared as many system calls.
        if Self::PASSES_OPTIONS_ON {
            socket.set_tcp_nodelay(true)?;
            watch_peer(&socket, shared.config.dead_after.map(Watch::new))?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpListener::from_std(socket.into());
        let local = socket.local_addr()?;
        let mut sources = shared.sources.hold();
        let token = sources.reserve();
        if let Err(error) = shared.registry.register(&mut socket, token, Interest::READABLE) {
            sources.remove(token);
            return Err(error);
        }
        let acceptor = Arc::new(Self { token, socket, queue: Mutex::new(queue) });
        sources.fill(token, Source::Acceptor(acceptor.clone()));
        Ok((acceptor, local))
    }

    pub(crate) fn token(&self) -> Token {
        self.token
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(crate) fn queue(&self) -> Arc<AcceptQueue> {
        self.queue.hold().clone()
    }

    pub(crate) fn set_queue(&self, queue: Arc<AcceptQueue>) {
        *self.queue.hold() = queue;
    }

    /// Takes what the backlog holds. Tells whether to look again without an event, once there is room.
    pub(crate) fn handle_ready(self: &Arc<Self>, shared: &Arc<Shared>) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            if !shared.pending.hold().has_room() {
                return true;
            }
            match self.socket.accept() {
                Ok((socket, source)) => self.begin(shared, socket, source),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: the backlog keeps them, and a later turn tries again.
                    tracing::warn!(%error, "cannot accept a TCP connection");
                    let timer = clock::now() + RETRY_AFTER;
                    shared.sources.hold().set_timer(self.token, Some(timer));
                    return false;
                }
            }
        }
        true
    }

    fn begin(self: &Arc<Self>, shared: &Arc<Shared>, socket: mio::net::TcpStream, source: SocketAddr) {
        if !Self::PASSES_OPTIONS_ON
            && let Err(error) = socket.set_nodelay(true)
        {
            tracing::debug!(%source, %error, "an incoming connection was gone at once");
            return;
        }
        if shared.pending.hold().enter(source.ip()) != Room::Free {
            shared.counters.hold().refused_prefix_full += 1;
            return; // Dropped: closed at once.
        }
        if let Err(error) = TcpHandshake::accept(shared, socket, source, self.clone()) {
            shared.leave_pending(source.ip());
            tracing::debug!(%source, %error, "an incoming connection could not be watched");
        }
    }
}

/// RFC 9293 leaves it open, Linux's accept(2) lists them: errors of the connection, not of the listener.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

/// Connections that wait in the kernel while we are busy; the system caps it (4,096 on Linux).
const BACKLOG: i32 = 1_024;
/// So that a flood of connections does not keep everything else waiting.
const ACCEPTS_PER_TURN: usize = 64;
/// How soon to try again when the system had no descriptor left.
const RETRY_AFTER: Duration = Duration::from_millis(100);
