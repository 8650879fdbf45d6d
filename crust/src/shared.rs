use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Condvar, LazyLock, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

#[cfg(feature = "turn")]
use nat_traversal::TurnServer;
use nat_traversal::{HolePunchServerAddr, MappingContext};
use transport::{
    Connection, Endpoint, Interrupter, ListenEndpoint, ListenerSet, NamedEndpoint, ProtocolLabel, PublicKey,
    RendezvousChannel, RendezvousOptions, Transport,
};

#[cfg(feature = "dht")]
use crate::io::dht::Directory;
#[cfg(feature = "turn")]
use crate::relaying::Relaying;

use crate::{
    Introducer, Road, ServiceEvent,
    controller::Dialling,
    dial::Singles,
    event::Events,
    forwarded::Forwarded,
    gate::Gate,
    io::{clock, lan::LanBeacon, lock::Lock as _, worker::forwarded_protocol},
    protocol::{network_memory::NetworkId, outside::Outside, plan::PunchBudget},
    remembered::Remembered,
    road::Roads,
};

/// The protocol spoken with introducers.
pub(crate) static INTRODUCE: LazyLock<ProtocolLabel> =
    LazyLock::new(|| ProtocolLabel::new("crust-introduce/1").expect("it is short"));

/// What the parts and threads of a service share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) listeners: Arc<ListenerSet>,
    pub(crate) lan: Arc<LanBeacon>,
    dialling: Mutex<Arc<Dialling>>,
    pub(crate) events: Events,
    /// For meetings: asks servers only, and not for long.
    pub(crate) mapping: MappingContext,
    /// For everything else: asks routers too.
    pub(crate) context: MappingContext,
    pub(crate) remembered: Remembered,
    pub(crate) forwarded: Forwarded,
    /// How our sockets were seen from outside.
    outside: Mutex<Outside>,
    #[cfg(feature = "turn")]
    relaying: Relaying,
    /// Where we tell others their addresses, if we do.
    pub(crate) hole_punching: Vec<HolePunchServerAddr>,
    #[cfg(feature = "dht")]
    pub(crate) dht: Option<Directory>,
    gate: Mutex<Arc<Gate>>,
    introducers: Mutex<Vec<Attached>>,
    /// Told whenever the list of introducers changes.
    introduced: Condvar,
    punches: Mutex<BTreeMap<PublicKey, PunchBudget>>,
    /// Calls that their peers make too.
    pub(crate) singles: Singles,
    // Dropped last: its drop waits for streams that are still ending.
    pub(crate) transport: Transport,
}

/// What ends [`Shared::learn`], each part for itself.
#[derive(Debug, Default)]
pub(crate) struct Learning {
    pub(crate) mapping: Interrupter,
    pub(crate) relaying: Interrupter,
}

impl Learning {
    /// Ends it; who waits for a relay that others ask for needs [`Shared::nudge`] as well.
    pub(crate) fn interrupt(&self) {
        self.mapping.interrupt();
        self.relaying.interrupt();
    }
}

/// An introducer that we keep in touch with.
#[derive(Debug, Clone)]
struct Attached {
    introducer: Introducer,
    attached: bool,
}

/// What a service begins with.
pub(crate) struct Parts {
    pub(crate) transport: Transport,
    pub(crate) listeners: Arc<ListenerSet>,
    pub(crate) lan: Arc<LanBeacon>,
    pub(crate) dialling: Dialling,
    pub(crate) gate: Gate,
    pub(crate) mapping: MappingContext,
    pub(crate) context: MappingContext,
    pub(crate) cache: Option<PathBuf>,
    #[cfg(feature = "turn")]
    pub(crate) relaying: Relaying,
    pub(crate) hole_punching: Vec<HolePunchServerAddr>,
    #[cfg(feature = "dht")]
    pub(crate) dht: Option<Directory>,
    /// Routers are to forward the listeners' ports.
    pub(crate) forwards_ports: bool,
    pub(crate) names_router: bool,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let events = Events::new();
        #[cfg(feature = "dht")]
        if let Some(directory) = &parts.dht {
            events.tell_of_moves(directory.clone());
        }
        Self {
            listeners: parts.listeners,
            lan: parts.lan,
            dialling: Mutex::new(Arc::new(parts.dialling)),
            remembered: Remembered::open(parts.cache.as_deref(), &events),
            events,
            mapping: parts.mapping,
            context: parts.context,
            forwarded: Forwarded::new(parts.forwards_ports, parts.names_router),
            outside: Mutex::default(),
            #[cfg(feature = "turn")]
            relaying: parts.relaying,
            hole_punching: parts.hole_punching,
            #[cfg(feature = "dht")]
            dht: parts.dht,
            gate: Mutex::new(Arc::new(parts.gate)),
            introducers: Mutex::default(),
            introduced: Condvar::new(),
            punches: Mutex::default(),
            singles: Singles::default(),
            transport: parts.transport,
        }
    }

    /// Adds servers that tell us our addresses.
    pub(crate) fn add_servers(&self, servers: impl IntoIterator<Item = HolePunchServerAddr>) {
        let servers: Vec<_> = servers.into_iter().collect();
        self.mapping.add_servers(servers.iter().cloned());
        self.context.add_servers(servers);
    }

    /// How to meet: by every way that may be used and is known of. Does not block.
    pub(crate) fn meeting(&self, roads: Roads) -> RendezvousOptions {
        let mut options = RendezvousOptions::new().ways(roads.kinds());
        for (socket, seen) in self.outside.hold().known(clock::now(), &self.host_addresses()) {
            options = options.known(socket, seen);
        }
        if roads.contains(Road::Direct) {
            options = options.also_at(self.forwarded_endpoints());
        }
        #[cfg(feature = "turn")]
        if roads.contains(Road::Relayed) {
            options = match self.relaying.held() {
                Some(relay) => options.relay(&relay),
                None => options.relay_follows(self.relaying.has_servers()),
            };
        }
        options
    }

    /// The same, after an address at a relay was asked for if one is to be used.
    pub(crate) fn meeting_with_relay(&self, roads: Roads) -> RendezvousOptions {
        #[cfg(feature = "turn")]
        if roads.contains(Road::Relayed) {
            drop(self.relaying.relay(&self.transport, &self.events, &Interrupter::default()));
        }
        self.meeting(roads)
    }

    /// Learns what there is to know for a meeting: how we are seen from outside, and an address at a relay. `tell` is called, from any
    /// thread, whenever the peer is to be told something. Blocks until everything is known or has had its time.
    #[cfg_attr(
        not(feature = "turn"),
        expect(unused_variables, reason = "only relays are asked by a thread of their own")
    )]
    pub(crate) fn learn(
        &self,
        channel: &RendezvousChannel,
        roads: Roads,
        ends: &Learning,
        tell: &(dyn Fn() + Sync),
    ) {
        thread::scope(|scope| {
            #[cfg(feature = "turn")]
            if roads.contains(Road::Relayed) && self.relaying.has_servers() {
                let told = self.relaying.held().map(|relay| relay.addr());
                let relay = move || {
                    let found = self.relaying.relay(&self.transport, &self.events, &ends.relaying);
                    let news = found.filter(|relay| Some(relay.addr()) != told);
                    if news.is_some_and(|relay| channel.add_relay(&relay).is_some()) {
                        tell();
                    }
                };
                if let Err(error) =
                    thread::Builder::new().name("crust-relay".into()).spawn_scoped(scope, relay)
                {
                    tracing::warn!(%error, "no thread to ask for a relay");
                }
            }
            match channel.gather(&self.mapping, Some(&ends.mapping), |_| tell()) {
                Ok(()) => {
                    let hosts = self.host_addresses();
                    self.outside.hold().learned(clock::now(), hosts, channel.mapped());
                }
                Err(error) => tracing::debug!(%error, "how we are seen from outside was not learned"),
            }
        });
        drop(channel.complete());
        tell();
    }

    /// Learns in advance what peers that knock would have to wait for. Blocks as [`Shared::learn`] does.
    pub(crate) fn learn_in_advance(&self) {
        let roads = self.dialling().roads;
        match self.listeners.open_rendezvous(&self.meeting(roads).tcp(false)) {
            Ok(rendezvous) => self.learn(&rendezvous.channel(), roads, &Learning::default(), &|| ()),
            Err(error) => tracing::debug!(%error, "nothing is learned in advance"),
        }
    }

    /// This host's own addresses: while they are the same, so is the network.
    fn host_addresses(&self) -> Vec<SocketAddr> {
        let anywhere = [SocketAddr::from(([0; 4], 1)), SocketAddr::from(([0_u16; 8], 1))];
        let found = anywhere.iter().filter_map(|all| self.mapping.host_endpoints(*all).ok());
        found.flatten().map(|host| host.addr).collect()
    }

    /// Has those who wait for a relay or a beacon look whether they are interrupted.
    pub(crate) fn nudge(&self) {
        self.lan.nudge();
        #[cfg(feature = "dht")]
        if let Some(directory) = &self.dht {
            directory.nudge();
        }
        #[cfg(feature = "turn")]
        self.relaying.nudge();
    }

    /// Where routers forward the ports of our listeners from.
    pub(crate) fn forwarded_endpoints(&self) -> Vec<Endpoint> {
        let key = self.transport.public_key();
        let places = self.listeners.local_endpoints().into_iter();
        let forwarded = places
            .filter_map(|place| Some(Endpoint::new(place.scheme(), self.forwarded.leads_to(&place)?, key)));
        forwarded.collect()
    }

    /// This host has come into another network: streams go on there or end, and what was found out in the old one is forgotten.
    pub(crate) fn network_changed(&self, addresses: &[IpAddr]) {
        self.transport.network_changed(addresses);
        self.punches.hold().clear();
        *self.outside.hold() = Outside::default();
        #[cfg(feature = "turn")]
        self.relaying.forget();
        self.lan.nudge();
    }

    /// A connection is cut off: if it goes over a relay, an address at one is asked for anew.
    #[cfg_attr(not(feature = "turn"), expect(unused_variables, reason = "there are no relays"))]
    pub(crate) fn doubt_relay(&self, connection: &Connection) {
        #[cfg(feature = "turn")]
        if let Ok(path) = connection.path()
            && path.kind == transport::PathKind::Relayed
        {
            self.relaying.doubt(clock::now(), path.local);
        }
    }

    /// Has a router forward the port of a listener, if one does. Blocks until it has answered, at most three seconds.
    pub(crate) fn map_listener(&self, place: ListenEndpoint) {
        if self.forwarded.leads_to(&place).is_some() {
            return;
        }
        if self.forwarded.is_asked_for() {
            self.forwarded.wait(self.forwarded.want(), clock::now() + ROUTER);
        } else {
            self.map_place(place);
        }
    }

    /// The same for any socket, by the calling thread.
    pub(crate) fn map_place(&self, place: ListenEndpoint) {
        match self.context.map_port(place.addr(), forwarded_protocol(place), clock::now() + ROUTER) {
            Ok(Some(lease)) => self.forwarded.keep(place, lease),
            Ok(None) => {}
            Err(failures) => tracing::debug!(local = %place, ?failures, "no router forwards the port"),
        }
    }

    /// Ends every wait.
    pub(crate) fn close(&self) {
        self.forwarded.close();
        self.lan.close();
        #[cfg(feature = "dht")]
        if let Some(directory) = &self.dht {
            directory.close();
        }
        self.transport.close();
        self.mapping.interrupter().interrupt();
        self.context.interrupter().interrupt();
        self.introducers.hold().clear();
        self.introduced.notify_all();
    }

    /// The network that this host is in.
    pub(crate) fn network(&self) -> Option<NetworkId> {
        let unspecified = [IpAddr::from([0; 4]), IpAddr::from([0; 16])].map(|ip| SocketAddr::new(ip, 0));
        let hosts = unspecified.into_iter().filter_map(|any| self.mapping.host_endpoints(any).ok()).flatten();
        NetworkId::of(hosts.map(|host| host.addr.ip()))
    }

    /// How to dial.
    pub(crate) fn dialling(&self) -> Arc<Dialling> {
        self.dialling.hold().clone()
    }

    /// Changes how to dial, for calls that begin from now on.
    pub(crate) fn change_dialling(&self, change: impl FnOnce(&mut Dialling)) {
        change(Arc::make_mut(&mut self.dialling.hold()));
    }

    /// Uses an introducer's relay, where no other serves.
    #[cfg(feature = "turn")]
    pub(crate) fn lend_relay(&self, introducer: PublicKey, servers: Vec<TurnServer>) {
        self.relaying.lend(introducer, servers);
    }

    /// Uses these relays from now on.
    #[cfg(feature = "turn")]
    pub(crate) fn set_relays(&self, servers: Vec<TurnServer>) {
        self.relaying.set(servers);
    }

    /// The rules in force.
    pub(crate) fn gate(&self) -> Arc<Gate> {
        self.gate.hold().clone()
    }

    /// Changes the rules, for streams that come in from now on.
    pub(crate) fn change_gate(&self, change: impl FnOnce(&mut Gate)) {
        let mut gate = self.gate.hold();
        change(Arc::make_mut(&mut gate));
        self.transport.set_admission(gate.admission());
    }

    /// Notes an introducer that is to be kept in touch with.
    pub(crate) fn add_introducer(&self, introducer: Introducer) {
        let mut introducers = self.introducers.hold();
        if introducers.iter().all(|known| known.introducer.key() != introducer.key()) {
            introducers.push(Attached { introducer, attached: false });
        }
    }

    /// The introducers, those that call us first.
    pub(crate) fn introducers(&self) -> Vec<Introducer> {
        let mut all = self.introducers.hold().clone();
        all.sort_by_key(|known| !known.attached);
        all.into_iter().map(|known| known.introducer).collect()
    }

    /// An introducer calls us from now on; `seen` is its address.
    pub(crate) fn attached(&self, introducer: Introducer, seen: Option<IpAddr>) {
        if let Some(ip) = seen {
            self.add_servers(introducer.stun_servers(ip));
        }
        // It may have several addresses, and answer at another than that by which we have it.
        self.ask_for_addresses(&introducer);
        let endpoint = introducer.endpoints[0].clone();
        let mut introducers = self.introducers.hold();
        if let Some(known) = introducers.iter_mut().find(|known| known.introducer.key() == introducer.key()) {
            *known = Attached { introducer, attached: true };
        }
        drop(introducers);
        self.introduced.notify_all();
        self.events.tell(ServiceEvent::IntroducerAttached { introducer: endpoint });
    }

    /// It does so no more.
    pub(crate) fn detached(&self, introducer: &Introducer, reason: String) {
        let mut introducers = self.introducers.hold();
        if let Some(known) = introducers.iter_mut().find(|known| known.introducer.key() == introducer.key()) {
            known.attached = false;
        }
        drop(introducers);
        let introducer = introducer.endpoints[0].clone();
        self.events.tell(ServiceEvent::IntroducerLost { introducer, reason });
    }

    /// Has our sockets' addresses asked from an introducer, if it is known where it answers.
    pub(crate) fn ask_for_addresses(&self, introducer: &Introducer) {
        let hosts = introducer.endpoints.iter().filter_map(NamedEndpoint::to_endpoint);
        self.add_servers(hosts.flat_map(|endpoint| introducer.stun_servers(endpoint.addr().ip())));
    }

    /// Waits until one introducer at least calls us; tells whether one does.
    pub(crate) fn wait_attached(&self, deadline: Instant) -> bool {
        let mut introducers = self.introducers.hold();
        loop {
            if introducers.iter().any(|known| known.attached) {
                return true;
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() || introducers.is_empty() {
                return false;
            }
            let waited = self.introduced.wait_timeout(introducers, left);
            introducers = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The budget of one peer, to ask or to change.
    pub(crate) fn with_budget<R>(&self, peer: PublicKey, work: impl FnOnce(&mut PunchBudget) -> R) -> R {
        let mut punches = self.punches.hold();
        if punches.len() >= MAX_BUDGETS && !punches.contains_key(&peer) {
            punches.pop_first();
        }
        work(punches.entry(peer).or_default())
    }
}

/// Three protocols one after the other, each asked twice.
const ROUTER: Duration = Duration::from_secs(3);
/// Peers whom we failed to reach lately; one that is forgotten begins anew.
const MAX_BUDGETS: usize = 1_024;
