//! UDP sockets: batches in, batches out, nothing understood.

mod given_back;
mod hops;
mod interface_mtu;
mod kernel;
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
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use mio::{Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use self::kernel::Kernel;
pub(crate) use given_back::{GivenBack, Mark};
pub(crate) use interface_mtu::InterfaceMtus;
pub(crate) use machine::{SharedMachine, StunInbox, StunMessage};
pub(crate) use receive::{Received, Receiver};
#[cfg(feature = "turn")]
pub(crate) use relay::RelaySocket;

use super::{accept_queue::AcceptQueue, lock::Lock as _, quic::Link, slot::Wakes};
#[cfg(feature = "turn")]
use crate::{io::slot::Slot, transport::Shared};
use crate::{
    path::PathKind,
    protocol::quic::{Outgoing, PathMtu},
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
        let local = socket.local_addr()?;
        let carrier = Carrier::Kernel(Kernel::new(socket)?);
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
        match &self.carrier {
            Carrier::Kernel(kernel) => kernel.watch(registry, token),
            #[cfg(feature = "turn")]
            Carrier::Relay(relay) => relay.watch(registry, token),
        }
    }

    /// Ends what `watch` began; the token under which it was watched.
    pub(crate) fn unwatch(&self, registry: &Registry) -> Option<Token> {
        match &self.carrier {
            Carrier::Kernel(kernel) => kernel.unwatch(registry),
            #[cfg(feature = "turn")]
            Carrier::Relay(relay) => relay.unwatch(registry),
        }
    }

    /// Remembers a connection until the kernel has room again. A relay loses what it has no room for.
    pub(crate) fn wait_writable(&self, registry: &Registry, link: &Arc<Link>) {
        if let Some(kernel) = self.kernel() {
            kernel.wait_writable(registry, link);
        }
    }

    /// The connections that waited for room, to try again.
    pub(crate) fn take_blocked(&self, registry: &Registry) -> Vec<Arc<Link>> {
        self.kernel().map(|kernel| kernel.take_blocked(registry)).unwrap_or_default()
    }

    /// Sends one batch: all of it or nothing.
    pub(crate) fn send(
        &self,
        to: SocketAddr,
        source_ip: Option<IpAddr>,
        outgoing: Outgoing,
        buffer: &[u8],
    ) -> io::Result<()> {
        match &self.carrier {
            Carrier::Kernel(kernel) => {
                let source_ip = source_ip.filter(|_| self.local.ip().is_unspecified());
                kernel.send(to, source_ip, outgoing, buffer)
            }
            #[cfg(feature = "turn")]
            Carrier::Relay(relay) => relay.send(to, outgoing, buffer),
        }
    }

    /// Sends one small datagram, that routers drop after so many hops if they are given.
    pub(crate) fn send_one(&self, bytes: &[u8], to: SocketAddr, hops: Option<u8>) -> io::Result<()> {
        match &self.carrier {
            Carrier::Kernel(kernel) => kernel.send_one(bytes, to, hops),
            #[cfg(feature = "turn")]
            Carrier::Relay(relay) => relay.send_one(bytes, to),
        }
    }

    /// Whether receives wait for a datagram, at most [`LONGEST_RECEIVE`](super::direct::LONGEST_RECEIVE). Sends then wait for
    /// room in the kernel, no longer than that, instead of failing at once.
    pub(crate) fn set_waiting(&self, waits: bool) -> io::Result<()> {
        let Some(kernel) = self.kernel() else { return Err(io::ErrorKind::Unsupported.into()) };
        kernel.set_waiting(waits)
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

/// Whether a datagram was larger than the interface or the path allows, as probes of the path MTU may be.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    quinn_udp::is_msg_size_err(error)
}

/// Only the description of a path needs it, so that forgetting one does no harm.
const MAX_PUNCHED: usize = 256;
/// What an Ethernet frame carries less the headers of IPv6, UDP and TURN.
const RELAYED_MTU: u16 = 1_400;
/// Each is sent for itself, so that more at a time gain nothing.
const RELAYED_SEGMENTS: usize = 8;
/// The largest UDP payload over IPv4.
const MAX_BATCH_BYTES: usize = 65_507;
