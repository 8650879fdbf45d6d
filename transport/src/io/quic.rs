//! QUIC over our UDP sockets: one lock for the table of connections, one a connection, never both at once.
//!
//! Whoever turns the crank receives; callers send what they caused themselves, on their own thread. What a connection
//! asks of others while it is locked (other locks, waking, delivering) is collected and done after its lock is left.

mod connection;
mod dial;
mod events;
mod left;
mod link;
mod reunion;
mod stream;
mod table;
mod timers;
mod ways;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Instant,
};

pub(crate) use connection::ConnectionRef;
pub(crate) use dial::QuicDial;
pub(crate) use link::Link;
pub(crate) use stream::QuicStream;

use self::{
    link::Touch,
    table::{Answer, Inputs, Table},
    timers::Timers,
};
use super::{
    accept_queue::AcceptQueue,
    clock, entropy,
    lock::Lock as _,
    pool::SendBuffers,
    slot::Wakes,
    sources::Source,
    udp::{InterfaceMtus, Received, Receiver, StunMessage, UdpSocket},
};
use crate::{
    Identity, StartError,
    config::{Driver, TransportConfig},
    protocol::{
        demux::is_stun,
        paths::{UdpSource, Way, peek_tag},
        quic::{Outgoing, PathMtu, QuicEndpoint, QuicSettings},
        raw_key::TlsConfigs,
        reunion::Reunion,
    },
    transport::Shared,
};

/// All of a transport's QUIC.
pub(crate) struct QuicIo {
    table: Mutex<Table>,
    /// Locked for a moment only, below any other lock but the table's.
    reunion: Mutex<Reunion>,
    timers: Mutex<Timers>,
    /// Locked only by whoever turns the crank.
    receiving: Mutex<Receiving>,
    /// Sockets for dialling only, one a family, bound when first needed.
    dialling: Mutex<Vec<Arc<UdpSocket>>>,
    mtus: Mutex<InterfaceMtus>,
    buffers: SendBuffers,
}

/// What looking at a socket brought.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) datagrams: usize,
    /// It is to be looked at again, without an event.
    pub(crate) more: bool,
}

struct Receiving {
    receiver: Receiver,
    received: Vec<Received>,
    inputs: Inputs,
    answers: Vec<Answer>,
    stun: Vec<StunMessage>,
}

impl QuicIo {
    pub(crate) fn new(identity: &Identity, config: &TransportConfig) -> Result<Self, StartError> {
        let tls = TlsConfigs::new(identity).without_exporter_log();
        let settings = QuicSettings {
            client_tls: tls.client,
            server_tls: tls.server,
            dead_after: config.dead_after,
            handshake_timeout: config.handshake_timeout,
            limits: config.limits.clone(),
            max_mtu: config.max_mtu,
            may_fragment: MAY_FRAGMENT,
            may_gather: config.driver == Driver::Background,
            reset_key: identity.derive(b"crust quic stateless reset 1"),
            seed: entropy::bytes(),
        };
        let endpoint = QuicEndpoint::new(settings).map_err(io::Error::other)?;
        Ok(Self {
            table: Mutex::new(Table::new(endpoint)),
            reunion: Mutex::new(Reunion::new(identity.public_key())),
            timers: Mutex::default(),
            receiving: Mutex::new(Receiving {
                receiver: Receiver::new(),
                received: Vec::new(),
                inputs: Inputs::default(),
                answers: Vec::new(),
                stun: Vec::new(),
            }),
            dialling: Mutex::default(),
            mtus: Mutex::default(),
            buffers: SendBuffers::default(),
        })
    }

    /// Binds a socket on which strangers' streams come in, to `queue`.
    pub(crate) fn listen(
        &self,
        shared: &Shared,
        addr: SocketAddr,
        queue: Arc<AcceptQueue>,
    ) -> io::Result<Arc<UdpSocket>> {
        let socket = self.bind(shared, addr)?;
        socket.set_queue(Some(queue));
        Ok(socket)
    }

    fn bind(&self, shared: &Shared, addr: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let number = self.table.hold().next_socket();
        Self::watch(shared, UdpSocket::bind(number, addr)?)
    }

    /// Takes a socket over that won a punch elsewhere; it goes with its last connection.
    pub(crate) fn adopt(&self, shared: &Shared, socket: std::net::UdpSocket) -> io::Result<Arc<UdpSocket>> {
        let number = self.table.hold().next_socket();
        let socket = Self::watch(shared, UdpSocket::adopt(number, socket)?)?;
        socket.set_queue(None);
        Ok(socket)
    }

    /// Begins to ask for an address at a relay; `slot` is woken when the relay has answered. It goes with its last user.
    #[cfg(feature = "turn")]
    pub(crate) fn relay(
        &self,
        shared: &Arc<Shared>,
        server: &nat_traversal::TurnServer,
        address: SocketAddr,
        slot: &Arc<super::slot::Slot>,
    ) -> io::Result<Arc<UdpSocket>> {
        let number = self.table.hold().next_socket();
        let socket = Self::watch(shared, UdpSocket::relayed(number, shared, server, address, slot)?)?;
        socket.set_queue(None);
        if let Some(relay) = socket.relay() {
            relay.arm();
        }
        Ok(socket)
    }

    fn watch(shared: &Shared, socket: UdpSocket) -> io::Result<Arc<UdpSocket>> {
        let socket = Arc::new(socket);
        let mut sources = shared.sources.hold();
        let token = sources.reserve();
        if let Err(error) = socket.watch(&shared.registry, token) {
            sources.remove(token);
            return Err(error);
        }
        sources.fill(token, Source::Udp(socket.clone()));
        Ok(socket)
    }

    /// No stranger comes in here any more; the socket goes with the last connection over it.
    pub(crate) fn stop_listening(shared: &Shared, socket: &Arc<UdpSocket>) {
        socket.set_queue(None);
        Self::release(shared, socket);
    }

    /// A socket for a spray of punches: kept only if a connection comes to use it.
    pub(crate) fn bind_further(&self, shared: &Shared, addr: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let socket = self.bind(shared, addr)?;
        socket.set_queue(None);
        Ok(socket)
    }

    /// Whoever used it besides its connections does no more: it goes with the last of these, or now.
    pub(crate) fn release(shared: &Shared, socket: &Arc<UdpSocket>) {
        if socket.is_unused() {
            Self::unbind(shared, socket);
        }
    }

    fn unbind(shared: &Shared, socket: &UdpSocket) {
        if let Some(token) = socket.unwatch(&shared.registry) {
            let source = shared.sources.hold().remove(token);
            drop(source);
        }
    }

    /// A socket to dial from: bound to `local`, or one of its own for the family of `remote`.
    pub(crate) fn dialling_socket(
        &self,
        shared: &Shared,
        remote: SocketAddr,
        local: Option<SocketAddr>,
    ) -> io::Result<Arc<UdpSocket>> {
        let unspecified: IpAddr =
            if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let addr = local.unwrap_or_else(|| SocketAddr::new(unspecified, 0));
        let mut dialling = self.dialling.hold();
        let fits = |socket: &UdpSocket| {
            let bound = socket.local();
            bound.ip() == addr.ip() && (addr.port() == 0 || addr.port() == bound.port())
        };
        if let Some(socket) = dialling.iter().find(|socket| fits(socket)) {
            return Ok(socket.clone());
        }
        let socket = self.bind(shared, addr)?;
        socket.watch_given_back();
        dialling.push(socket.clone());
        Ok(socket)
    }

    /// Takes what a socket has; `failed`: the poll tells of an error as well.
    pub(crate) fn handle_ready(
        &self,
        shared: &Arc<Shared>,
        socket: &Arc<UdpSocket>,
        failed: bool,
        wakes: &mut Wakes,
    ) -> Came {
        let (mut reason, mut came) = (None, Came::default());
        self.receive(shared, socket, &mut came, &mut reason, wakes);
        if failed || reason.is_some() {
            self.take_back(shared, socket, reason, wakes);
        }
        came
    }

    /// Waits for a datagram in a receive, on a socket that does; [`handle_received`](Self::handle_received) then deals with it.
    pub(crate) fn receive_one(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        let receiving = &mut *self.receiving.hold();
        receiving.receiver.receive_one(socket, &mut receiving.received).map(drop)
    }

    /// Deals with what `receive_one` brought; tells whether that was a datagram.
    pub(crate) fn handle_received(
        &self,
        shared: &Arc<Shared>,
        socket: &Arc<UdpSocket>,
        came: io::Result<()>,
        wakes: &mut Wakes,
    ) -> bool {
        match came {
            Ok(()) => {
                self.route(shared, socket, &mut self.receiving.hold(), wakes);
                true
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, local = %socket.local(), "cannot receive");
                    self.take_back(shared, socket, Some(error.kind()), wakes);
                }
                false
            }
        }
    }

    /// Tells dials that the network gave their datagrams back.
    fn take_back(
        &self,
        shared: &Arc<Shared>,
        socket: &Arc<UdpSocket>,
        reason: Option<io::ErrorKind>,
        wakes: &mut Wakes,
    ) {
        for _ in 0..GIVEN_BACK_PER_TURN {
            let Some(back) = socket.next_given_back(reason) else { return };
            let links = self.table.hold().dialling();
            for link in links {
                link.take_back(shared, wakes, &back);
            }
        }
    }

    /// `reason`: why a call failed, if one did.
    fn receive(
        &self,
        shared: &Arc<Shared>,
        socket: &Arc<UdpSocket>,
        came: &mut Came,
        reason: &mut Option<io::ErrorKind>,
        wakes: &mut Wakes,
    ) {
        for link in socket.take_blocked(&shared.registry) {
            link.touch(shared, wakes, Touch::Flush);
        }
        let mut receiving = self.receiving.hold();
        #[cfg(feature = "turn")]
        if let Some(relay) = socket.relay() {
            came.more = relay.receive(&mut receiving.received, wakes);
            self.route(shared, socket, &mut receiving, wakes);
            return;
        }
        for _ in 0..BATCHES_PER_TURN {
            let receiving = &mut *receiving;
            match receiving.receiver.receive(socket, &mut receiving.received) {
                Ok(more) => {
                    came.datagrams += receiving.received.len();
                    self.route(shared, socket, receiving, wakes);
                    if !more {
                        // Fewer than asked for: there are no more, which saves asking until the system says so.
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An earlier datagram's ICMP answer, or a signal; there may be datagrams behind it.
                Err(error) => {
                    tracing::debug!(%error, local = %socket.local(), "cannot receive");
                    *reason = Some(error.kind());
                }
            }
        }
        came.more = true;
    }

    fn route(
        &self,
        shared: &Arc<Shared>,
        socket: &Arc<UdpSocket>,
        receiving: &mut Receiving,
        wakes: &mut Wakes,
    ) {
        let now = clock::now();
        let welcome = socket.is_open().then(|| {
            let initial = receiving.received.iter().find(|received| received.is_initial());
            let of_path = |initial: &Received| {
                socket.path_mtu().unwrap_or_else(|| self.mtus.hold().of_path(initial.to, initial.from))
            };
            initial.map_or(NOBODYS_PATH, of_path)
        });
        {
            let mut table = self.table.hold();
            for received in receiving.received.drain(..) {
                if is_stun(&received.bytes) {
                    let Received { from, to, bytes, .. } = received;
                    let source = UdpSource { socket: socket.number(), addr: from };
                    let way = Way { source, local: to };
                    receiving.stun.push(StunMessage { way, bytes: bytes.freeze() });
                    continue;
                }
                table.route(now, socket, received, welcome, &mut receiving.inputs, &mut receiving.answers);
            }
        }
        for message in receiving.stun.drain(..) {
            self.handle_stun(shared, socket, &message, wakes);
        }
        for answer in receiving.answers.drain(..) {
            let outgoing = Outgoing { bytes: answer.bytes.len(), segment_bytes: None, ecn: None };
            if let Err(error) = socket.send(answer.to, answer.from, outgoing, &answer.bytes) {
                tracing::debug!(%error, to = %answer.to, "an answer was not sent");
            }
        }
        let Inputs { links, events } = &mut receiving.inputs;
        let mut events = events.drain(..);
        for (link, count) in links.drain(..) {
            link.receive(shared, wakes, socket, events.by_ref().take(count));
        }
    }

    /// A path check of a connection, or for whoever punches from that socket.
    fn handle_stun(
        &self,
        shared: &Arc<Shared>,
        socket: &Arc<UdpSocket>,
        message: &StunMessage,
        wakes: &mut Wakes,
    ) {
        let link = peek_tag(&message.bytes).and_then(|tag| self.table.hold().checked(tag).cloned());
        match link {
            Some(link) => link.check(shared, wakes, socket, message),
            None => socket.deliver_stun(message, wakes),
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.hold().next()
    }

    /// Moves timers to where their deadlines are now that were left before `limit`, as far as that takes a moment only.
    pub(crate) fn move_timers(&self, limit: Instant) {
        for _ in 0..TIMERS_MOVED_PER_TURN {
            let expired = self.timers.hold().pop_expired(limit);
            let Some(link) = expired else { return };
            if link.rearm(&self.timers).is_some_and(|due| due <= limit) {
                return;
            }
        }
    }

    pub(crate) fn handle_timers(&self, shared: &Arc<Shared>, now: Instant, wakes: &mut Wakes) {
        loop {
            let expired = self.timers.hold().pop_expired(now);
            let Some(link) = expired else { return };
            link.touch(shared, wakes, Touch::Timer);
        }
    }

    /// Whether streams that were let go still have something to deliver.
    pub(crate) fn is_sending(&self) -> bool {
        let links = self.table.hold().links();
        links.iter().any(|link| link.is_sending())
    }

    /// This host has these addresses now, loopback apart.
    pub(crate) fn network_changed(&self, shared: &Arc<Shared>, addresses: &[IpAddr]) {
        let links = self.table.hold().links();
        let mut wakes = Wakes::default();
        for link in links {
            link.change(shared, &mut wakes, Touch::Flush, |core, now| {
                core.ways.network_changed(now, addresses, &mut core.connection);
            });
        }
        wakes.fire();
    }

    /// Says farewell to all peers, and lets go of all sockets.
    pub(crate) fn close(&self, shared: &Arc<Shared>) {
        let links = self.table.hold().take_links();
        let mut wakes = Wakes::default();
        for link in links {
            link.close(shared, &mut wakes);
        }
        self.timers.hold().clear();
        self.dialling.hold().clear();
        wakes.fire();
    }
}

impl fmt::Debug for QuicIo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("QuicIo").finish_non_exhaustive()
    }
}

/// For datagrams that begin no connection.
const NOBODYS_PATH: PathMtu = PathMtu { largest: 0, is_known: false };
/// A flood of datagrams must not keep timers and other sockets waiting: 8 batches are up to 16 MB.
const BATCHES_PER_TURN: usize = 8;
/// Where a dialogue goes, few other connections have anything to do.
const TIMERS_MOVED_PER_TURN: usize = 4;
/// The kernel keeps no more of them than fit the socket's buffer; what is left is told of again.
const GIVEN_BACK_PER_TURN: usize = 64;
/// Where the system cannot be told to leave datagrams whole, probes for larger ones would lie.
const MAY_FRAGMENT: bool = cfg!(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "windows",
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd"
)));
