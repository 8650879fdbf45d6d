//! UDP sockets: batches in, batches out, nothing understood.

mod hops;
mod interface_mtu;
mod machine;
mod receive;

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use mio::{Interest, Registry, Token};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use interface_mtu::InterfaceMtus;
pub(crate) use machine::{SharedMachine, StunInbox, StunMessage};
pub(crate) use receive::{Received, Receiver};

use super::{accept_queue::AcceptQueue, lock::Lock as _, quic::Link, slot::Wakes};
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
    /// Who is served here besides the connections there are.
    users: Mutex<Users>,
}

#[derive(Default)]
struct Users {
    /// Where streams of strangers go; `None`: nobody listens here.
    queue: Option<Arc<AcceptQueue>>,
    /// It is kept for its connections only: somebody listened here, and does no more.
    retired: bool,
    /// Connections that a way from here leads to.
    connections: usize,
    /// Rendezvous under way, whose streams may come in here though nobody listens.
    rendezvous: usize,
    /// Machines that want to see STUN messages.
    inboxes: Vec<Arc<StunInbox>>,
    /// Addresses to which holes were punched from here, the latest last.
    punched: VecDeque<SocketAddr>,
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
        Self::adopt(number, socket.into())
    }

    /// Takes over a socket that is bound already.
    pub(crate) fn adopt(number: usize, socket: std::net::UdpSocket) -> io::Result<Self> {
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
        Ok(Self { number, socket, state, local, polled, users: Mutex::default() })
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Where streams of strangers go, if anybody listens here.
    pub(crate) fn queue(&self) -> Option<Arc<AcceptQueue>> {
        self.users.hold().queue.clone()
    }

    pub(crate) fn set_queue(&self, queue: Option<Arc<AcceptQueue>>) {
        let mut users = self.users.hold();
        users.retired = queue.is_none();
        users.queue = queue;
    }

    /// Whether it was kept for its connections only, and they are gone.
    pub(crate) fn is_unused(&self) -> bool {
        let users = self.users.hold();
        users.retired && users.rendezvous == 0 && users.connections == 0
    }

    /// A connection has a way from here.
    pub(crate) fn connection_begins(&self) {
        self.users.hold().connections += 1;
    }

    pub(crate) fn connection_ends(&self) {
        self.users.hold().connections -= 1;
    }

    /// Whether connections of strangers may begin here.
    pub(crate) fn is_open(&self) -> bool {
        let users = self.users.hold();
        users.queue.is_some() || users.rendezvous > 0
    }

    /// A rendezvous begins whose stream may come in here.
    pub(crate) fn rendezvous_begins(&self) {
        self.users.hold().rendezvous += 1;
    }

    pub(crate) fn rendezvous_ends(&self) {
        self.users.hold().rendezvous -= 1;
    }

    pub(crate) fn add_inbox(&self, inbox: &Arc<StunInbox>) {
        self.users.hold().inboxes.push(inbox.clone());
    }

    pub(crate) fn remove_inbox(&self, inbox: &Arc<StunInbox>) {
        self.users.hold().inboxes.retain(|known| !Arc::ptr_eq(known, inbox));
    }

    /// Hands a STUN message to whoever may want it.
    pub(crate) fn deliver_stun(&self, message: &StunMessage, wakes: &mut Wakes) {
        for inbox in &self.users.hold().inboxes {
            wakes.push(inbox.push(message.clone()));
        }
    }

    /// There is a hole to that address.
    pub(crate) fn note_punched(&self, remote: SocketAddr) {
        let mut users = self.users.hold();
        if users.punched.len() >= MAX_PUNCHED {
            users.punched.pop_front();
        }
        users.punched.push_back(remote);
    }

    pub(crate) fn has_punched(&self, remote: SocketAddr) -> bool {
        self.users.hold().punched.contains(&remote)
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

    /// Sends one small datagram, that routers drop after so many hops if they are given.
    pub(crate) fn send_one(&self, bytes: &[u8], to: SocketAddr, hops: Option<u8>) -> io::Result<()> {
        match hops {
            Some(hops) => hops::send(&self.socket, bytes, to, hops),
            None => self.socket.send_to(bytes, to).map(drop),
        }
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
/// Only the description of a path needs it, so that forgetting one does no harm.
const MAX_PUNCHED: usize = 256;
/// The largest UDP payload over IPv4.
const MAX_BATCH_BYTES: usize = 65_507;
