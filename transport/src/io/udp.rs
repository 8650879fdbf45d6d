//! UDP sockets: batches in, batches out, nothing understood.

mod given_back;
mod hops;
mod interface_mtu;
mod machine;
mod receive;
#[cfg(feature = "turn")]
mod relay;

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use mio::{Interest, Registry, Token};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use given_back::{GivenBack, Mark};
pub(crate) use interface_mtu::InterfaceMtus;
pub(crate) use machine::{SharedMachine, StunInbox, StunMessage};
pub(crate) use receive::{Received, Receiver};
#[cfg(feature = "turn")]
pub(crate) use relay::RelaySocket;

use super::{accept_queue::AcceptQueue, direct::LONGEST_RECEIVE, lock::Lock as _, quic::Link, slot::Wakes};
#[cfg(feature = "turn")]
use crate::{io::slot::Slot, transport::Shared};
use crate::{
    path::PathKind,
    protocol::quic::{Outgoing, PathMtu, QuicEcn},
};

/// One UDP socket, shared by all connections over it.
pub(crate) struct UdpSocket {
    /// Its number within the transport, never reused.
    number: usize,
    local: SocketAddr,
    carrier: Carrier,
    /// Who is served here besides the connections there are.
    users: Mutex<Users>,
    /// Whether connections of strangers may begin here, as the users are.
    is_open: AtomicBool,
}

/// Who takes the datagrams.
enum Carrier {
    Kernel(Kernel),
    #[cfg(feature = "turn")]
    Relay(Box<RelaySocket>),
}

struct Kernel {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    /// Only for telling the poll what we wait for; a duplicate of `socket`.
    polled: Mutex<Polled>,
    /// Whether connections wait for room.
    is_blocked: AtomicBool,
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
    punched: VecDeque<(SocketAddr, bool)>,
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
        let carrier = Carrier::Kernel(Kernel { socket, state, polled, is_blocked: AtomicBool::new(false) });
        Ok(Self::new(number, local, carrier))
    }

    fn new(number: usize, local: SocketAddr, carrier: Carrier) -> Self {
        Self { number, local, carrier, users: Mutex::default(), is_open: AtomicBool::new(false) }
    }

    /// Begins to ask for an address at a relay, which [`RelaySocket::outcome`] then has; `slot` is woken when it is there.
    #[cfg(feature = "turn")]
    pub(crate) fn relayed(
        number: usize,
        shared: &Arc<Shared>,
        server: &nat_traversal::TurnServer,
        address: SocketAddr,
        slot: &Arc<Slot>,
    ) -> io::Result<Self> {
        let relay = RelaySocket::connect(Arc::downgrade(shared), server, address, slot.clone())?;
        let local = SocketAddr::from(([0; 4], 0));
        Ok(Self::new(number, local, Carrier::Relay(Box::new(relay))))
    }

    #[cfg(feature = "turn")]
    pub(crate) fn relay(&self) -> Option<&RelaySocket> {
        match &self.carrier {
            Carrier::Relay(relay) => Some(relay),
            Carrier::Kernel(_) => None,
        }
    }

    fn kernel(&self) -> Option<&Kernel> {
        match &self.carrier {
            Carrier::Kernel(kernel) => Some(kernel),
            #[cfg(feature = "turn")]
            Carrier::Relay(_) => None,
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Our end: for a relay, the address there.
    pub(crate) fn local(&self) -> SocketAddr {
        match &self.carrier {
            Carrier::Kernel(_) => self.local,
            #[cfg(feature = "turn")]
            Carrier::Relay(relay) => relay.outcome().and_then(Result::ok).unwrap_or(self.local),
        }
    }

    /// Where streams of strangers go, if anybody listens here.
    pub(crate) fn queue(&self) -> Option<Arc<AcceptQueue>> {
        self.users.hold().queue.clone()
    }

    pub(crate) fn set_queue(&self, queue: Option<Arc<AcceptQueue>>) {
        let mut users = self.users.hold();
        users.retired = queue.is_none();
        users.queue = queue;
        self.is_open.store(users.is_open(), Relaxed);
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
        self.is_open.load(Relaxed)
    }

    /// A rendezvous begins whose stream may come in here.
    pub(crate) fn rendezvous_begins(&self) {
        let mut users = self.users.hold();
        users.rendezvous += 1;
        self.is_open.store(users.is_open(), Relaxed);
    }

    pub(crate) fn rendezvous_ends(&self) {
        let mut users = self.users.hold();
        users.rendezvous -= 1;
        self.is_open.store(users.is_open(), Relaxed);
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

    /// There is a hole to that address, which may be the peer's at a relay.
    pub(crate) fn note_punched(&self, remote: SocketAddr, relayed: bool) {
        let mut users = self.users.hold();
        if users.punched.len() >= MAX_PUNCHED {
            users.punched.pop_front();
        }
        users.punched.push_back((remote, relayed));
    }

    /// By what kind of road datagrams from here go to that address.
    pub(crate) fn kind_of(&self, remote: SocketAddr) -> PathKind {
        if self.is_relay() {
            return PathKind::Relayed;
        }
        let users = self.users.hold();
        match users.punched.iter().rev().find(|(known, _)| *known == remote) {
            Some((_, true)) => PathKind::Relayed,
            found => PathKind::of(remote, found.is_some()),
        }
    }

    /// Has the poll report what can be read.
    pub(crate) fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let kernel = match &self.carrier {
            Carrier::Kernel(kernel) => kernel,
            #[cfg(feature = "turn")]
            Carrier::Relay(relay) => return relay.watch(registry, token),
        };
        let mut polled = kernel.polled.hold();
        registry.register(&mut polled.source, token, Interest::READABLE)?;
        polled.token = Some(token);
        Ok(())
    }

    /// Ends what `watch` began; the token under which it was watched.
    pub(crate) fn unwatch(&self, registry: &Registry) -> Option<Token> {
        let kernel = match &self.carrier {
            Carrier::Kernel(kernel) => kernel,
            #[cfg(feature = "turn")]
            Carrier::Relay(relay) => return relay.unwatch(registry),
        };
        let mut polled = kernel.polled.hold();
        let token = polled.token.take()?;
        if let Err(error) = registry.deregister(&mut polled.source) {
            tracing::debug!(%error, "a UDP socket was not watched any more");
        }
        polled.blocked.clear();
        Some(token)
    }

    /// Remembers a connection until the kernel has room again.
    pub(crate) fn wait_writable(&self, registry: &Registry, link: &Arc<Link>) {
        // A relay loses what it has no room for.
        let Some(kernel) = self.kernel() else { return };
        let mut polled = kernel.polled.hold();
        let Some(token) = polled.token else { return };
        if !polled.blocked.iter().any(|blocked| Arc::ptr_eq(blocked, link)) {
            polled.blocked.push(link.clone());
            kernel.is_blocked.store(true, Release);
        }
        // Room to write is reported only while somebody wants it: else each datagram sent would wake the poll.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.reregister(&mut polled.source, token, interest) {
            tracing::warn!(%error, "cannot wait for room in a UDP socket");
        }
    }

    /// The connections that waited for room, to try again.
    pub(crate) fn take_blocked(&self, registry: &Registry) -> Vec<Arc<Link>> {
        let Some(kernel) = self.kernel().filter(|kernel| kernel.is_blocked.load(Acquire)) else {
            return Vec::new();
        };
        let mut polled = kernel.polled.hold();
        kernel.is_blocked.store(false, Release);
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
        let kernel = match &self.carrier {
            Carrier::Kernel(kernel) => kernel,
            #[cfg(feature = "turn")]
            Carrier::Relay(relay) => return relay.send(to, outgoing, buffer),
        };
        let transmit = Transmit {
            destination: to,
            ecn: outgoing.ecn.and_then(to_udp_ecn),
            contents: &buffer[..outgoing.bytes],
            segment_size: outgoing.segment_bytes,
            src_ip: source_ip.filter(|_| self.local.ip().is_unspecified()),
        };
        match kernel.state.try_send(UdpSockRef::from(&kernel.socket), &transmit) {
            // It may tell of an earlier datagram that was given back, and does so once.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                kernel.state.try_send(UdpSockRef::from(&kernel.socket), &transmit)
            }
            sent => sent,
        }
    }

    /// Sends one small datagram, that routers drop after so many hops if they are given.
    pub(crate) fn send_one(&self, bytes: &[u8], to: SocketAddr, hops: Option<u8>) -> io::Result<()> {
        match (&self.carrier, hops) {
            (Carrier::Kernel(kernel), Some(hops)) => hops::send(&kernel.socket, bytes, to, hops),
            (Carrier::Kernel(kernel), None) => kernel.socket.send_to(bytes, to).map(drop),
            #[cfg(feature = "turn")]
            (Carrier::Relay(relay), _) => relay.send_one(bytes, to),
        }
    }

    /// Whether receives wait for a datagram, at most [`LONGEST_RECEIVE`]. Sends then wait for room in the kernel, no longer than
    /// that, instead of failing at once.
    pub(crate) fn set_waiting(&self, waits: bool) -> io::Result<()> {
        let Some(kernel) = self.kernel() else { return Err(io::ErrorKind::Unsupported.into()) };
        if waits {
            kernel.socket.set_read_timeout(Some(LONGEST_RECEIVE))?;
            kernel.socket.set_write_timeout(Some(LONGEST_RECEIVE))?;
        }
        kernel.socket.set_nonblocking(!waits)
    }

    /// Ends a receive that waits, by a datagram to itself that says nothing.
    pub(crate) fn ring(&self) {
        let mut to = self.local;
        if to.ip().is_unspecified() {
            let here: IpAddr =
                if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            to.set_ip(here);
        }
        if let Err(error) = self.send_one(&[], to, None) {
            tracing::debug!(%error, "a receive ends by itself only");
        }
    }

    pub(crate) fn is_relay(&self) -> bool {
        self.kernel().is_none()
    }

    /// How large datagrams from here may be, if the interfaces of this host do not say.
    pub(crate) fn path_mtu(&self) -> Option<PathMtu> {
        self.is_relay().then_some(PathMtu { largest: RELAYED_MTU, is_known: false })
    }

    /// How many datagrams of that size one call may send.
    pub(crate) fn max_segments(&self, mtu: u16) -> usize {
        // With IPv4 the whole batch counts as one datagram of at most 64 KiB.
        let most = self.kernel().map_or(RELAYED_SEGMENTS, |kernel| kernel.state.max_gso_segments());
        (MAX_BATCH_BYTES / usize::from(mtu)).clamp(1, most)
    }
}

impl Users {
    fn is_open(&self) -> bool {
        self.queue.is_some() || self.rendezvous > 0
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UdpSocket").field("local", &self.local()).finish_non_exhaustive()
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
/// What an Ethernet frame carries less the headers of IPv6, UDP and TURN.
const RELAYED_MTU: u16 = 1_400;
/// Each is sent for itself, so that more at a time gain nothing.
const RELAYED_SEGMENTS: usize = 8;
/// The largest UDP payload over IPv4.
const MAX_BATCH_BYTES: usize = 65_507;
