//! UDP sockets: batches in, batches out, nothing understood.

mod interface_mtu;
mod receive;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use mio::{Interest, Registry, Token};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use interface_mtu::InterfaceMtus;
pub(crate) use receive::{Received, Receiver};

use super::{accept_queue::AcceptQueue, lock::Lock as _, quic::Link};
use crate::protocol::quic::{Outgoing, QuicEcn};

/// One UDP socket, shared by all connections over it.
pub(crate) struct UdpSocket {
    /// Its number within the transport, never reused.
    number: usize,
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Only for telling the poll what we wait for; a duplicate of `socket`.
    polled: Mutex<Polled>,
    /// Where streams of strangers go; `None`: nobody listens here.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    queue: Option<Arc<AcceptQueue>>,
    /// Somebody listened here, and does no more.
    retired: bool,
}

struct Polled {
    source: mio::net::UdpSocket,
    token: Option<Token>,
    /// Connections whose datagrams did not fit into the kernel's buffer.
    blocked: Vec<Arc<Link>>,
}

impl UdpSocket {
    /// Binds a socket for datagrams that the network does not split.
    pub(crate) fn bind(number: usize, addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&addr.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        for (set, what) in [
            (state.set_recv_buffer_size(UdpSockRef::from(&socket), KERNEL_BUFFER_BYTES), "receive"),
            (state.set_send_buffer_size(UdpSockRef::from(&socket), KERNEL_BUFFER_BYTES), "send"),
        ] {
            if let Err(error) = set {
                tracing::debug!(%error, what, "the kernel keeps its own buffer size");
            }
        }
        let local = socket.local_addr()?;
        let source = mio::net::UdpSocket::from_std(socket.try_clone()?);
        let polled = Mutex::new(Polled { source, token: None, blocked: Vec::new() });
        Ok(Self { number, socket, state, local, polled, queue: Mutex::default() })
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Where streams of strangers go, if anybody listens here.
    pub(crate) fn queue(&self) -> Option<Arc<AcceptQueue>> {
        self.queue.hold().queue.clone()
    }

    pub(crate) fn set_queue(&self, queue: Option<Arc<AcceptQueue>>) {
        let mut place = self.queue.hold();
        place.retired = queue.is_none();
        place.queue = queue;
    }

    /// Whether it is kept for its connections only.
    pub(crate) fn is_retired(&self) -> bool {
        self.queue.hold().retired
    }

    /// Has the poll report what can be read.
    pub(crate) fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let mut polled = self.polled.hold();
        registry.register(&mut polled.source, token, Interest::READABLE)?;
        polled.token = Some(token);
        Ok(())
    }

    /// Ends what `watch` began; the token under which it was watched.
    pub(crate) fn unwatch(&self, registry: &Registry) -> Option<Token> {
        let mut polled = self.polled.hold();
        let token = polled.token.take()?;
        if let Err(error) = registry.deregister(&mut polled.source) {
            tracing::debug!(%error, "a UDP socket was not watched any more");
        }
        polled.blocked.clear();
        Some(token)
    }

    /// Remembers a connection until the kernel has room again.
    pub(crate) fn wait_writable(&self, registry: &Registry, link: &Arc<Link>) {
        let mut polled = self.polled.hold();
        let Some(token) = polled.token else { return };
        if !polled.blocked.iter().any(|blocked| Arc::ptr_eq(blocked, link)) {
            polled.blocked.push(link.clone());
        }
        // Room to write is reported only while somebody wants it: else each datagram sent would wake the poll.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.reregister(&mut polled.source, token, interest) {
            tracing::warn!(%error, "cannot wait for room in a UDP socket");
        }
    }

    /// The connections that waited for room, to try again.
    pub(crate) fn take_blocked(&self, registry: &Registry) -> Vec<Arc<Link>> {
        let mut polled = self.polled.hold();
        if polled.blocked.is_empty() {
            return Vec::new();
        }
        if let Some(token) = polled.token
            && let Err(error) = registry.reregister(&mut polled.source, token, Interest::READABLE)
        {
            tracing::warn!(%error, "cannot go on watching a UDP socket");
        }
        std::mem::take(&mut polled.blocked)
    }

    /// Sends one batch: all of it or nothing.
    pub(crate) fn send(
        &self,
        to: SocketAddr,
        source_ip: Option<IpAddr>,
        outgoing: Outgoing,
        buffer: &[u8],
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: outgoing.ecn.and_then(to_udp_ecn),
            contents: &buffer[..outgoing.bytes],
            segment_size: outgoing.segment_bytes,
            src_ip: source_ip.filter(|_| self.local.ip().is_unspecified()),
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// How many datagrams of that size one call may send.
    pub(crate) fn max_segments(&self, mtu: u16) -> usize {
        // With IPv4 the whole batch counts as one datagram of at most 64 KiB.
        (MAX_BATCH_BYTES / usize::from(mtu)).clamp(1, self.state.max_gso_segments())
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UdpSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

fn to_udp_ecn(ecn: QuicEcn) -> Option<quinn_udp::EcnCodepoint> {
    quinn_udp::EcnCodepoint::from_bits(ecn as u8)
}

/// Whether a datagram was larger than the interface or the path allows, as probes of the path MTU may be.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    quinn_udp::is_msg_size_err(error)
}

/// Several windows of a fast path; the kernel gives what its administrator allows.
const KERNEL_BUFFER_BYTES: usize = 4 << 20;
/// The largest UDP payload over IPv4.
const MAX_BATCH_BYTES: usize = 65_507;
