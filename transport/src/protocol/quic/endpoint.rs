use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use crossbeam::queue::SegQueue;
use quinn_proto::crypto::rustls::NoInitialCipherSuite;
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, DatagramEvent, Endpoint, Incoming, ServerConfig,
};
use ring::hmac;

use super::{
    QuicEcn, QuicHandle, ToConnection, ToEndpoint,
    connection::QuicConnection,
    receive_budget::{FLOOR_BYTES, ReceiveBudget},
    settings::{PathMtu, QuicSettings},
};
use crate::{
    PublicKey,
    protocol::{
        demux::{Datagram, ID_BYTES, classify},
        paths::{MadeUpAddresses, UdpSource},
        pending::{Pending, Room},
        raw_key::server_name,
    },
};

/// All connections of a transport, whatever the number of sockets: who is who, who may come in, who may hold how much.
pub(crate) struct QuicEndpoint {
    inner: Endpoint,
    settings: QuicSettings,
    addresses: MadeUpAddresses,
    /// Ids drawn by the engine since it was last asked for something.
    drawn: Arc<SegQueue<u64>>,
    /// What connections are made with, by their largest datagram.
    configs: BTreeMap<PathMtu, Configs>,
    by_id: BTreeMap<u64, QuicHandle>,
    members: BTreeMap<usize, Member>,
    budget: ReceiveBudget,
    /// Handshakes of sources that have not proved their address, and of those that have.
    unproven: Pending,
    proven: Pending,
    scratch: Vec<u8>,
}

#[derive(Clone)]
struct Configs {
    client: ClientConfig,
    server: Arc<ServerConfig>,
}

struct Member {
    made_up: SocketAddr,
    ids: Vec<u64>,
    /// Lent beyond the floor.
    lent: u64,
    /// Still counted among the pending handshakes.
    pending: Option<PendingPlace>,
}

struct PendingPlace {
    source: IpAddr,
    proven: bool,
}

/// Where a datagram belongs.
#[derive(Debug)]
pub(crate) enum Routed {
    Connection(QuicHandle, ToConnection),
    /// A stranger was let in.
    New(QuicHandle, Box<QuicConnection>),
    /// Send these bytes back.
    Answer(Vec<u8>),
    Nothing,
}

/// Why no connection was begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    #[error("no more connections: `Limits::receive_bytes` is spent")]
    Full,
    #[error("{0}")]
    Engine(String),
}

impl QuicEndpoint {
    pub(crate) fn new(settings: QuicSettings) -> Result<Self, DialError> {
        let drawn = Arc::new(SegQueue::new());
        let ids = IdGenerator::new(&settings.derive(b"connection ids"), drawn.clone());
        let server = settings
            .server(PathMtu { largest: settings.max_mtu, is_known: false })
            .map_err(|error| DialError::Engine(error.to_string()))?;
        let config = Arc::new(settings.endpoint(ids));
        let inner = Endpoint::new(config, Some(Arc::new(server)), !settings.may_fragment, None);
        let (total, per_prefix) =
            (settings.limits.pending_handshakes, settings.limits.pending_handshakes_per_prefix);
        Ok(Self {
            inner,
            addresses: MadeUpAddresses::new(&settings.derive(b"addresses")),
            drawn,
            configs: BTreeMap::new(),
            by_id: BTreeMap::new(),
            members: BTreeMap::new(),
            budget: ReceiveBudget::new(settings.limits.receive_bytes),
            unproven: Pending::new((total / UNPROVEN_SHARE).max(1), per_prefix),
            proven: Pending::new(total, per_prefix),
            settings,
            scratch: Vec::new(),
        })
    }

    /// Finds out whose datagram this is. `welcome`: whether strangers are welcome on this socket, and how large the
    /// datagrams are that their path may carry.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        from: UdpSource,
        ecn: Option<QuicEcn>,
        datagram: BytesMut,
        welcome: Option<PathMtu>,
    ) -> Routed {
        let Datagram::Quic(id) = classify(&datagram) else { return Routed::Nothing };
        let known = id.and_then(|id| self.by_id.get(&id)).and_then(|handle| self.members.get(&handle.0));
        // A known id from elsewhere is still its connection's, which checks the packet and goes on where it was.
        let made_up =
            known.map_or_else(|| self.addresses.of(from.socket, from.addr), |member| member.made_up);
        self.scratch.clear();
        match self.inner.handle(now, made_up, None, ecn, datagram, &mut self.scratch) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => Routed::Connection(handle, event),
            Some(DatagramEvent::NewConnection(incoming)) => self.judge(now, from, incoming, welcome),
            // A socket for dialling only is silent towards strangers.
            Some(DatagramEvent::Response(transmit)) if welcome.is_some() => self.answer(transmit.size),
            Some(DatagramEvent::Response(_)) => {
                self.while_drawn(|_| {});
                Routed::Nothing
            }
            None => Routed::Nothing,
        }
    }

    fn answer(&self, size: usize) -> Routed {
        // An answer without a connection may carry an id of nobody's.
        self.while_drawn(|_| {});
        Routed::Answer(self.scratch[..size].to_vec())
    }

    fn judge(
        &mut self,
        now: Instant,
        from: UdpSource,
        incoming: Incoming,
        welcome: Option<PathMtu>,
    ) -> Routed {
        let Some(path_mtu) = welcome else {
            self.inner.ignore(incoming);
            return Routed::Nothing;
        };
        let proven = incoming.remote_address_validated();
        let source = from.addr.ip();
        let pending = if proven { &mut self.proven } else { &mut self.unproven };
        match pending.enter(source) {
            Room::Free => self.accept(now, incoming, PendingPlace { source, proven }, path_mtu),
            Room::Full | Room::PrefixFull if !proven => {
                tracing::debug!(%source, "too many handshakes; asking for a proof of address");
                self.scratch.clear();
                match self.inner.retry(incoming, &mut self.scratch) {
                    Ok(transmit) => self.answer(transmit.size),
                    Err(error) => {
                        self.inner.ignore(error.into_incoming());
                        Routed::Nothing
                    }
                }
            }
            Room::Full | Room::PrefixFull => {
                // It will repeat its first packet, and there may be room by then.
                self.inner.ignore(incoming);
                Routed::Nothing
            }
        }
    }

    fn accept(&mut self, now: Instant, incoming: Incoming, place: PendingPlace, path_mtu: PathMtu) -> Routed {
        self.scratch.clear();
        if !self.budget.enter() {
            self.leave_pending(&place);
            let transmit = self.inner.refuse(incoming, &mut self.scratch);
            return self.answer(transmit.size);
        }
        let made_up = incoming.remote_address();
        let config = self.configs(path_mtu).map(|configs| configs.server).ok();
        match self.inner.accept(incoming, now, &mut self.scratch, config) {
            Ok((handle, connection)) => {
                self.enter(handle, made_up, Some(place));
                let connection = QuicConnection::accepted(now, connection, &self.settings);
                Routed::New(handle, Box::new(connection))
            }
            Err(error) => {
                tracing::debug!(cause = %error.cause, "a handshake failed at its first packet");
                self.while_drawn(|_| {});
                self.leave_pending(&place);
                self.budget.leave(0);
                error.response.map_or(Routed::Nothing, |transmit| self.answer(transmit.size))
            }
        }
    }

    /// Begins a connection to whoever listens at `to` and has the key `expected`. `alone`: for one stream only.
    pub(crate) fn dial(
        &mut self,
        now: Instant,
        to: UdpSource,
        expected: PublicKey,
        path_mtu: PathMtu,
        alone: bool,
    ) -> Result<(QuicHandle, Box<QuicConnection>), DialError> {
        let config = self.configs(path_mtu)?.client;
        if !self.budget.enter() {
            return Err(DialError::Full);
        }
        let made_up = self.addresses.of(to.socket, to.addr);
        match self.inner.connect(now, config, made_up, &server_name(&expected).to_str()) {
            Ok((handle, connection)) => {
                self.enter(handle, made_up, None);
                let connection = QuicConnection::dialled(now, connection, &self.settings, expected, alone);
                Ok((handle, Box::new(connection)))
            }
            Err(error) => {
                self.while_drawn(|_| {});
                self.budget.leave(0);
                Err(DialError::Engine(error.to_string()))
            }
        }
    }

    fn configs(&mut self, path_mtu: PathMtu) -> Result<Configs, DialError> {
        if let Some(configs) = self.configs.get(&path_mtu) {
            return Ok(configs.clone());
        }
        let engine = |error: NoInitialCipherSuite| DialError::Engine(error.to_string());
        let client = self.settings.client(path_mtu).map_err(engine)?;
        let configs = Configs { client, server: Arc::new(self.settings.server(path_mtu).map_err(engine)?) };
        if self.configs.len() >= MAX_CONFIGS {
            self.configs.clear();
        }
        self.configs.insert(path_mtu, configs.clone());
        Ok(configs)
    }

    fn enter(&mut self, handle: QuicHandle, made_up: SocketAddr, pending: Option<PendingPlace>) {
        self.members.insert(handle.0, Member { made_up, ids: Vec::new(), lent: 0, pending });
        self.name_drawn(handle);
    }

    /// Hands on what a connection said; what comes back is for that connection.
    pub(crate) fn handle_event(&mut self, handle: QuicHandle, event: ToEndpoint) -> Option<ToConnection> {
        let gone = event.is_drained();
        let answer = self.inner.handle_event(handle, event);
        if gone {
            self.forget(handle);
        } else {
            self.name_drawn(handle);
        }
        answer
    }

    fn forget(&mut self, handle: QuicHandle) {
        let Some(member) = self.members.remove(&handle.0) else { return };
        for id in member.ids {
            self.by_id.remove(&id);
        }
        if let Some(place) = member.pending {
            self.leave_pending(&place);
        }
        self.budget.leave(member.lent);
    }

    /// The connection has shown who it is and has a stream: it no longer counts as pending.
    pub(crate) fn admitted(&mut self, handle: QuicHandle) {
        if let Some(place) = self.members.get_mut(&handle.0).and_then(|member| member.pending.take()) {
            self.leave_pending(&place);
        }
    }

    /// Lends the connection the rest of its first window; the answer goes to [`QuicConnection::grow_window`].
    pub(crate) fn lend_first_window(&mut self, handle: QuicHandle) -> u64 {
        let wanted = self.settings.limits.connection_receive_bytes.max(FLOOR_BYTES);
        let Some(member) = self.members.get_mut(&handle.0) else { return 0 };
        let lent = self.budget.lend_first(wanted);
        member.lent += lent;
        lent
    }

    /// Lends it more, on [`super::QuicEvent::WindowWanted`].
    pub(crate) fn lend_window(&mut self, handle: QuicHandle, wanted: u64) -> u64 {
        let Some(member) = self.members.get_mut(&handle.0) else { return 0 };
        let lent = self.budget.lend_more(wanted);
        member.lent += lent;
        lent
    }

    /// Connections that are not drained.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    fn leave_pending(&mut self, place: &PendingPlace) {
        if place.proven { &mut self.proven } else { &mut self.unproven }.leave(place.source);
    }

    fn name_drawn(&mut self, handle: QuicHandle) {
        let mut ids = Vec::new();
        self.while_drawn(|id| ids.push(id));
        let Some(member) = self.members.get_mut(&handle.0) else { return };
        for id in ids {
            if member.ids.len() == MAX_IDS {
                let oldest = member.ids.remove(0);
                self.by_id.remove(&oldest);
            }
            member.ids.push(id);
            self.by_id.insert(id, handle);
        }
    }

    fn while_drawn(&self, mut each: impl FnMut(u64)) {
        while let Some(id) = self.drawn.pop() {
            each(id);
        }
    }
}

impl fmt::Debug for QuicEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("QuicEndpoint").field("connections", &self.len()).finish_non_exhaustive()
    }
}

/// Draws connection ids from a keyed counter, and notes each for the endpoint that asked.
#[derive(Clone)]
pub(super) struct IdGenerator {
    key: hmac::Key,
    count: u64,
    drawn: Arc<SegQueue<u64>>,
}

impl IdGenerator {
    fn new(key: &[u8; 32], drawn: Arc<SegQueue<u64>>) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), count: 0, drawn }
    }
}

impl ConnectionIdGenerator for IdGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count += 1;
        let tag = hmac::sign(&self.key, &self.count.to_be_bytes());
        let id: [u8; ID_BYTES] = tag.as_ref()[..ID_BYTES].try_into().expect("a tag has 32 bytes");
        self.drawn.push(u64::from_be_bytes(id));
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Interfaces with datagram sizes of their own are few.
const MAX_CONFIGS: usize = 16;
/// Whoever has not proved its address gets a quarter of the places: forging addresses is free, a pending handshake is
/// some 30 KiB, and the proof costs an honest dialer one round trip while we are flooded.
const UNPROVEN_SHARE: usize = 4;
/// Ids remembered a connection; a peer that has more drawn makes the oldest forgotten, and is then known by its address.
const MAX_IDS: usize = 16;
