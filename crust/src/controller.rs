use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam::channel::Receiver;
use nat_traversal::{HolePunchServerAddr, MapError, MappedUdpSocket, MappingContext, PrivRendezvousInfo};
use transport::{
    BindError, ConnectOptions as DialOptions, Endpoint, ListenEndpoint, Listener, NamedEndpoint, NetworkName,
    PublicKey, RendezvousError, RendezvousOffer, Scheme, Stream, StreamSet, TransportStats, TurnError,
};

#[cfg(feature = "dht")]
use crate::looked_up::LookedUp;
use crate::{
    AcceptingEndpoints, ConnectError, ConnectOptions, ConnectTrace, Contact, Destination,
    EndpointCacheIterator, Introducer, LanError, LanWarning, Rendezvous, Road, ServiceEvent, StartError,
    UdpRendezvousInfo,
    dial::{Dial, Single, in_order},
    io::{
        clock,
        introduce::Interrupt,
        lookout::Lookout,
        worker::{Hosting, OnDemand},
    },
    reloading::Reloading,
    road::Roads,
    shared::Shared,
};

/// Steers a [`Service`](crate::Service): dials, adds places to listen, tells how to be reached, and shuts down when it
/// is dropped. Every method takes `&self`, from any thread.
///
/// ```
/// use crust::{Config, Scheme, Service};
///
/// let service = Service::new_from_config(Config::new().listen([]))?;
/// let place = service.controller.add_listener("tcp://127.0.0.1:0".parse()?)?;
/// let endpoints = service.controller.endpoints()?;
/// assert_eq!((endpoints[0].scheme(), endpoints[0].addr()), (Scheme::Tcp, place.addr()));
/// assert_eq!(endpoints[0].public_key(), service.controller.public_key());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ServiceController {
    shared: Arc<Shared>,
    worker: Arc<OnDemand>,
    lookout: Option<Lookout>,
}

/// How this peer dials unless told otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Dialling {
    pub(crate) schemes: Vec<Scheme>,
    pub(crate) deadline: Duration,
    /// Stay in touch with introducers, so that others find us.
    pub(crate) attach: bool,
    pub(crate) roads: Roads,
    pub(crate) network: NetworkName,
    /// The service may have threads of its own beside calls.
    pub(crate) has_threads: bool,
}

impl ServiceController {
    #[cfg(test)]
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes over what was built; keeps in touch with introducers and is one, as asked for.
    pub(crate) fn start(
        shared: Arc<Shared>,
        introducers: Vec<Introducer>,
        hosting: Option<Hosting>,
        reloading: Option<Reloading>,
    ) -> Result<Self, StartError> {
        let mut controller = Self { shared, worker: Arc::default(), lookout: None };
        if hosting.is_some() || reloading.is_some() {
            let started = controller.worker.start(&controller.shared, hosting, reloading);
            started.map_err(StartError::Thread)?;
        }
        controller.worker.forward_ports(&controller.shared).map_err(StartError::Thread)?;
        #[cfg(feature = "dht")]
        if let Some(directory) = &controller.shared.dht {
            directory.start(&controller.shared).map_err(StartError::Thread)?;
        }
        controller.lookout = Some(Lookout::start(&controller.shared, &controller.worker));
        for introducer in introducers {
            controller.attach(introducer)?;
        }
        Ok(controller)
    }

    fn attach(&self, introducer: Introducer) -> Result<(), StartError> {
        if introducer.key() == self.public_key() {
            let introducer = introducer.endpoints()[0].clone();
            self.shared.events.tell(ServiceEvent::IntroducerIsMyself { introducer });
            return Ok(());
        }
        if !self.shared.dialling().attach {
            self.shared.add_introducer(introducer);
            return Ok(());
        }
        self.shared.add_introducer(introducer.clone());
        self.worker.attach(&self.shared, introducer).map_err(StartError::Thread)
    }

    /// The key by which others know this peer.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.shared.transport.public_key()
    }

    /// Signs a message for one purpose with this service's key; [`PublicKey::has_signed_for`] judges it, and for no other purpose does it
    /// count. Over a stream put what [`Stream::export_keying_material`] gives into the message, so that nobody can pass it on.
    #[must_use]
    pub fn sign_for(&self, purpose: &str, message: &[u8]) -> [u8; 64] {
        self.shared.transport.sign_for(purpose, message)
    }

    /// Opens a stream to a peer: an [`Endpoint`], a [`NamedEndpoint`](crate::NamedEndpoint), a [`Contact`], whose token is
    /// shown, or a bare [`PublicKey`], which is looked for on the local network, asked for at this service's introducers, and, where
    /// that is switched on, looked up in the DHT.
    ///
    /// What beacons have said of the key is tried as well. A peer of whom no address is known is asked for by a beacon, on
    /// which at most three seconds are spent, with [`ConnectOptions::single`] all the time there is.
    ///
    /// Its addresses are dialled at once; if there are introducers, they are asked 50 ms later. The first road that leads there
    /// wins. Blocks until the peer has admitted the stream, at most [`Config::deadline`](crate::Config::deadline).
    ///
    /// # Errors
    ///
    /// [`ConnectError`] with every road that was tried; at once if the peer is this service itself.
    pub fn connect(&self, peer: impl Into<Destination>) -> Result<Stream, ConnectError> {
        self.connect_with(peer, &ConnectOptions::new())
    }

    /// The same with a protocol label, another deadline, or other schemes.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] with every road that was tried.
    pub fn connect_with(
        &self,
        peer: impl Into<Destination>,
        options: &ConnectOptions,
    ) -> Result<Stream, ConnectError> {
        self.connect_traced(peer, options).0
    }

    /// The same, and what was tried on the way.
    pub fn connect_traced(
        &self,
        peer: impl Into<Destination>,
        options: &ConnectOptions,
    ) -> (Result<Stream, ConnectError>, ConnectTrace) {
        let peer = peer.into();
        if peer.public_key() == self.public_key() {
            let error = ConnectError::myself(peer.public_key());
            let trace = error.trace().clone();
            return (Err(error), trace);
        }
        let dialling = self.shared.dialling();
        let schemes = options.schemes.as_deref().unwrap_or(&dialling.schemes);
        let roads = options.roads.unwrap_or(Roads::ALL).and(dialling.roads);
        let begun = clock::now();
        let introduces = roads.contains(Road::Punched) || roads.contains(Road::Relayed);
        let own = self.shared.introducers();
        let strangers = own.into_iter().filter(|ours| {
            peer.introducers().iter().all(|theirs| theirs.key() != ours.key())
                && ours.key() != peer.public_key()
        });
        let introducers = peer.introducers().iter().cloned().chain(strangers);
        let introducers = introducers.filter(|one| introduces && one.key() != self.public_key());
        let network = self.shared.network();
        let dial = Dial {
            shared: &self.shared,
            peer: peer.public_key(),
            token: peer.contact().token(),
            label: options.protocol.clone(),
            endpoints: self.known_endpoints(peer.contact(), schemes, roads),
            introducers: introducers.collect(),
            schemes,
            roads,
            single: options.single.then(|| {
                Single::new(&self.shared, peer.public_key(), options.protocol.clone(), (roads, schemes))
            }),
            network,
            before: self.shared.remembered.how(network, peer.public_key()),
            #[cfg(feature = "dht")]
            looked_up: LookedUp::new(&peer, &self.shared, roads),
            begun,
            deadline: begun + options.deadline.unwrap_or(dialling.deadline),
            interrupt: Interrupt::default(),
        };
        let (outcome, trace) = dial.run();
        if let Ok(stream) = &outcome {
            self.look_after(&dial, stream);
        }
        (outcome, trace)
    }

    /// Has the connection of a stream take another path when it has to, if that is allowed.
    fn look_after(&self, dial: &Dial<'_>, stream: &Stream) {
        let Some(detour) = dial.detour(stream) else { return };
        if !self.shared.dialling().has_threads && !self.worker.is_running() {
            return;
        }
        if let Err(error) = self.worker.look_after(&self.shared, detour) {
            tracing::warn!(%error, "a connection stays on its path");
        }
    }

    /// Stays in touch with one more introducer from now on, and names it in the contact. Returns at once;
    /// [`ServiceController::wait_attached`] waits until it knows us.
    ///
    /// # Errors
    ///
    /// [`StartError::Thread`] when the operating system gives no thread for it.
    pub fn add_introducer(&self, introducer: impl Into<NamedEndpoint>) -> Result<(), StartError> {
        self.attach(Introducer::new(introducer))
    }

    /// Blocks until an introducer knows this peer, at most until `deadline`; tells whether one does. Does not block when there
    /// are none.
    #[must_use]
    pub fn wait_attached(&self, deadline: Instant) -> bool {
        self.shared.wait_attached(deadline)
    }

    /// What happens beside the calls, the latest 256 events that nobody has taken.
    #[must_use]
    pub fn events(&self) -> &Receiver<ServiceEvent> {
        self.shared.events.receiver()
    }

    /// Admits these keys only, for streams that come in from now on; `None` admits every key.
    pub fn set_allowed(&self, keys: Option<Vec<PublicKey>>) {
        self.shared.change_gate(|gate| gate.allowed = keys.map(|keys| keys.into_iter().collect()));
    }

    /// Turns these keys away, also if they are allowed, for streams that come in from now on.
    pub fn set_blocked(&self, keys: impl IntoIterator<Item = PublicKey>) {
        self.shared.change_gate(|gate| gate.blocked = keys.into_iter().collect());
    }

    /// Whether streams are let in at all, from now on. Those that are open stay. Default: yes.
    pub fn set_accepting(&self, accepting: bool) {
        self.shared.change_gate(|gate| gate.open = accepting);
    }

    /// Listens at one more place.
    ///
    /// # Errors
    ///
    /// [`BindError`] when it cannot be bound.
    pub fn add_listener(&self, place: ListenEndpoint) -> Result<ListenEndpoint, BindError> {
        let listener = Listener::bind(&self.shared.transport, place)?;
        let local = listener.local_endpoint();
        self.shared.listeners.add_listener(listener);
        self.places_changed();
        Ok(local)
    }

    /// Stops listening at a place, named as [`ServiceController::add_listener`] returned it; streams that came from
    /// there stay. Tells whether it was there.
    pub fn remove_listener(&self, place: ListenEndpoint) -> bool {
        let was_there = self.shared.listeners.remove_listener(place);
        self.places_changed();
        was_there
    }

    fn places_changed(&self) {
        self.shared.lan.places_changed();
        #[cfg(feature = "dht")]
        if let Some(directory) = &self.shared.dht {
            directory.changed(false);
        }
        self.shared.forwarded.nudge().nudge();
        if let Err(error) = self.worker.forward_ports(&self.shared) {
            tracing::warn!(%error, "no router is asked to forward a port");
        }
    }

    /// Blocks until routers have said whether they forward the ports at which this service listens, at most until `deadline`; tells
    /// whether one does at the moment. Some take two seconds. Does not block where none is [asked](crate::Config::port_map).
    #[must_use]
    pub fn wait_port_mapped(&self, deadline: Instant) -> bool {
        self.shared.forwarded.wait(1, deadline);
        !self.shared.forwarded_endpoints().is_empty()
    }

    /// Where this peer is reached: every place where it listens, an unspecified address replaced by those of the
    /// interfaces, and outside addresses that a router forwards there at the moment. Loopback addresses are named only where there
    /// are no others.
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn endpoints(&self) -> io::Result<Vec<Endpoint>> {
        let (mut all, forwarded) = self.shared.reached_at()?;
        all.extend(forwarded);
        Ok(all)
    }

    /// How others reach this peer, as one text to paste: its key, its endpoints, its introducers and the access token it asks
    /// for. What a router forwards is in it as long as it does: who hands contacts out soon after the start may want to
    /// [wait](ServiceController::wait_port_mapped) for that.
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn contact(&self) -> io::Result<Contact> {
        self.shared.contact(true)
    }

    /// Looks for a peer on the local network: where beacons say that it is, by a question to all if none has said so yet.
    ///
    /// Blocks until an answer has come, at most until `deadline`; two seconds are enough on a network that loses every
    /// third datagram. What is found is a hint: the key is proved on connecting.
    ///
    /// # Errors
    ///
    /// [`LanError::TimedOut`] when nobody is there under that key, [`LanError::Closed`] when the service is shut down, or
    /// why listening cannot begin.
    pub fn find_on_lan(&self, key: PublicKey, deadline: Instant) -> Result<Vec<Endpoint>, LanError> {
        self.shared.lan.find(key, deadline, || false)
    }

    /// Looks a peer up in the DHT, and gives the latest contact that it has told there; [`ServiceController::connect`] with a bare key does this
    /// beside the other roads. Whoever knows no more than the key can do so.
    ///
    /// Blocks until all nodes that were asked have answered, some seconds, at most until `deadline`: what was found by then is given. What is
    /// found was signed by the peer within the last three hours; whether it is still there shows on connecting.
    ///
    /// # Errors
    ///
    /// [`DhtError`](crate::DhtError) when nothing of use is found, the DHT cannot be asked, or is [off](crate::Config::dht).
    #[cfg(feature = "dht")]
    pub fn find_in_dht(&self, key: PublicKey, deadline: Instant) -> Result<Contact, crate::DhtError> {
        let directory = self.shared.dht.as_ref().ok_or(crate::DhtError::Off)?;
        let mut found = None;
        let asked = directory.look_up(key, deadline, &|| false, &mut |finding| found = Some(finding.contact));
        match (asked, found) {
            (Err(crate::DhtError::Closed), _) => Err(crate::DhtError::Closed),
            (_, Some(contact)) => Ok(contact),
            (Err(error), None) => Err(error),
            (Ok(answered), None) => Err(crate::DhtError::NotFound { answered }),
        }
    }

    /// Who is announced on the local network as far as was heard so far, with where each is said to listen. Empty until
    /// listening has begun (see [`ServiceBeaconReceiver`](crate::ServiceBeaconReceiver)).
    #[must_use]
    pub fn lan_peers(&self) -> Vec<(PublicKey, Vec<Endpoint>)> {
        self.shared.lan.keys().into_iter().map(|key| (key, self.shared.lan.lookup(key))).collect()
    }

    /// The port of the beacon, once it was started: of use where [`Config::lan_port`](crate::Config::lan_port) is 0.
    #[must_use]
    pub fn lan_port(&self) -> Option<u16> {
        self.shared.lan.port()
    }

    /// What of the local network cannot be used at the moment while the rest goes on; usually nothing.
    #[must_use]
    pub fn lan_warnings(&self) -> Vec<LanWarning> {
        self.shared.lan.warnings()
    }

    /// The places where this service listens, and where others reach them.
    #[must_use]
    pub fn accepting_endpoints(&self) -> AcceptingEndpoints<'_> {
        AcceptingEndpoints::new(&self.shared)
    }

    /// What tells this service its outside addresses: servers, and routers that forward ports.
    #[must_use]
    pub fn mapping_context(&self) -> &MappingContext {
        &self.shared.context
    }

    /// Adds a server that tells this service its outside addresses.
    pub fn add_hole_puncher_server(&self, server: HolePunchServerAddr) {
        self.shared.add_servers([server]);
    }

    /// Where this service tells others their outside addresses: none unless it [introduces](crate::Config::introduce).
    #[must_use]
    pub fn hole_punch_addresses(&self) -> Vec<HolePunchServerAddr> {
        self.shared.hole_punching.clone()
    }

    /// A UDP socket of the caller's own, and its outside addresses. Blocks while servers and routers are asked, three seconds
    /// at most.
    ///
    /// # Errors
    ///
    /// [`MapError`] when no socket can be bound, or the service is closed.
    pub fn mapped_udp_socket(&self) -> Result<MappedUdpSocket, MapError> {
        MappedUdpSocket::new(&self.shared.context)
    }

    /// Meets a peer from a UDP socket of the caller's own (the RFC's `utp_rendezvous_connect`): `ours` stays here of what
    /// [`gen_rendezvous_info`](crate::gen_rendezvous_info) made of the socket's endpoints, and the peer, whose key is `peer`, was
    /// given the rest; `theirs` is what it gave in return. It must do the same within a few seconds. Both calls return the
    /// ends of one stream, which no `accept` sees. [`ServiceController::prepare_rendezvous`] tries more roads.
    ///
    /// A port that a router forwards to the socket is kept until the service ends. Blocks at most
    /// [`Config::deadline`](crate::Config::deadline).
    ///
    /// ```no_run
    /// use crust::{Config, Service, gen_rendezvous_info};
    ///
    /// let service = || Service::new_from_config(Config::new().listen([]));
    /// let (one, other) = (service()?, service()?);
    /// let (mine, yours) = (one.controller.mapped_udp_socket()?, other.controller.mapped_udp_socket()?);
    /// let (ours, told) = gen_rendezvous_info(mine.endpoints.clone());
    /// let (theirs, told_by_them) = gen_rendezvous_info(yours.endpoints.clone());
    /// let keys = [one.controller.public_key(), other.controller.public_key()];
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| other.controller.udp_rendezvous_connect(yours, theirs, keys[0], &told).unwrap());
    ///     let stream = one.controller.udp_rendezvous_connect(mine, ours, keys[1], &told_by_them)?;
    ///     assert_eq!(stream.public_key(), keys[1]);
    ///     Ok::<(), crust::RendezvousError>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RendezvousError`] with what became of it. Nobody vouches for the peer's addresses here, so that a NAT which draws ports at random is met
    /// only if the other side lets everybody in.
    pub fn udp_rendezvous_connect(
        &self,
        socket: MappedUdpSocket,
        ours: PrivRendezvousInfo,
        peer: PublicKey,
        theirs: &UdpRendezvousInfo,
    ) -> Result<Stream, RendezvousError> {
        let MappedUdpSocket { socket, lease, .. } = socket;
        if let Some(lease) = lease {
            self.shared.forwarded.keep(ListenEndpoint::new(Scheme::Quic, socket.local_addr()?), lease);
        }
        let options = DialOptions::new().timeout(self.shared.dialling().deadline);
        Stream::udp_rendezvous_connect(&self.shared.transport, socket, ours, peer, theirs, &options)
    }

    /// Begins a meeting with one peer whose offer comes, and ours goes, by a way of the caller's own: a line of text in a
    /// chat, a server. Give our offer to the peer and the peer's to [`Rendezvous::connect`], within a minute or so, while the
    /// addresses hold. Blocks for a round trip to the servers, at most about a second.
    ///
    /// # Errors
    ///
    /// [`RendezvousError`] when no socket can be bound, or the service is closed.
    pub fn prepare_rendezvous(&self) -> Result<(RendezvousOffer, Rendezvous), RendezvousError> {
        let options = self.shared.meeting_with_relay(self.shared.dialling().roads);
        let (offer, meeting) = self.shared.listeners.prepare_rendezvous(&self.shared.mapping, &options)?;
        Ok((offer, Rendezvous::new(meeting, self.shared.dialling().deadline)))
    }

    /// Remembers an endpoint as one that works.
    pub fn cache_endpoint(&self, endpoint: Endpoint) {
        self.shared.remembered.record(endpoint);
    }

    /// The endpoints that led to peers before, the latest first: each that was dialled with success, or
    /// [given](ServiceController::cache_endpoint).
    #[must_use]
    pub fn iter_endpoint_cache(&self) -> EndpointCacheIterator<'_> {
        EndpointCacheIterator::new(self, self.shared.remembered.endpoints())
    }

    pub(crate) fn forget(&self, endpoint: &Endpoint) {
        self.shared.remembered.remove(endpoint);
    }

    /// What has been counted so far.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        self.shared.transport.stats()
    }

    /// Makes an empty set for streams of this service, dialled or accepted: one thread then serves them all, and waits for
    /// all at once. It outlives the controller, but its streams do not.
    ///
    /// ```
    /// use std::io::Read;
    /// use crust::{Config, Service};
    ///
    /// let [server, client] =
    ///     [0, 1].map(|_| Service::new_from_config(Config::new().listen(["tcp://127.0.0.1:0".parse().unwrap()])).unwrap());
    /// let _dialled = client.controller.connect(server.controller.endpoints()?[0])?;
    ///
    /// let mut set = server.controller.stream_set()?;
    /// let key = set.add(server.acceptor.accept()?)?;
    /// drop(client); // and with it the stream, whose end the set tells of
    /// let mut ready = Vec::new();
    /// set.wait(&mut ready, None)?;
    /// assert_eq!((ready[0].key, ready[0].readable), (key, true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError::Transport`] when the operating system gives no poll.
    pub fn stream_set(&self) -> Result<StreamSet, StartError> {
        Ok(StreamSet::new(&self.shared.transport)?)
    }

    /// Lends the calling thread until something happened on the network, at most until `deadline`: the application's part
    /// with [`Driver::Caller`](crate::Driver::Caller) while none of its threads is in a blocking call.
    ///
    /// # Errors
    ///
    /// [`TurnError::TimedOut`] when nothing happened, [`TurnError::Closed`] when the service is closed.
    pub fn turn(&self, deadline: Instant) -> Result<(), TurnError> {
        self.shared.transport.turn(deadline)
    }

    /// What a contact says, after what beacons say of its key and where it was reached before: the local network is the
    /// shortest way, and what worked will likely work.
    fn known_endpoints(&self, peer: &Contact, schemes: &[Scheme], roads: Roads) -> Vec<NamedEndpoint> {
        let mut all: Vec<NamedEndpoint> =
            self.shared.lan.lookup(peer.public_key()).into_iter().map(NamedEndpoint::from).collect();
        let remembered = self.shared.remembered.of(peer.public_key()).into_iter().map(NamedEndpoint::from);
        for endpoint in remembered.chain(peer.endpoints().iter().cloned()) {
            if !all.contains(&endpoint) {
                all.push(endpoint);
            }
        }
        all.retain(|endpoint| roads.admit(endpoint));
        in_order(&all, schemes)
    }

    /// Ends everything now: streams, sockets, blocked calls, which return `Closed`. Ports that routers forward begin to be given back;
    /// dropping the controller waits for that, at most a second.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for ServiceController {
    fn drop(&mut self) {
        self.close();
        // First, so that it starts no thread any more.
        drop(self.lookout.take());
        let patience = clock::now() + GIVING_BACK;
        self.worker.join();
        #[cfg(feature = "dht")]
        if let Some(directory) = &self.shared.dht {
            directory.join();
        }
        self.shared.forwarded.finish(patience);
    }
}

/// A router on the link answers within milliseconds, one by HTTP within tenths of a second. What is not given back stays open for up to
/// two hours.
const GIVING_BACK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;
    use crate::{Config, Lan, Service, io::clock};

    #[test]
    fn a_service_listens_on_both_families_by_default() {
        let server = Service::new_from_config(Config::new().lan(Lan::Off).port_map(false)).unwrap();
        let places = server.controller.shared.listeners.local_endpoints();
        let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
        assert_eq!(places.len(), if has_ipv6 { 4 } else { 2 }, "{places:?}");
        for place in places {
            // One of its own, as it remembers where it found a peer.
            let client = Service::new_from_config(Config::new().lan(Lan::Off).listen([])).unwrap();
            let loopback = if place.addr().is_ipv4() { "127.0.0.1" } else { "::1" };
            let addr = (loopback.parse::<std::net::IpAddr>().unwrap(), place.addr().port()).into();
            let endpoint = Endpoint::new(place.scheme(), addr, server.controller.public_key());
            let dialled = client.controller.connect(endpoint).unwrap();
            let accepted = server.acceptor.accept_deadline(clock::now() + Duration::from_secs(30)).unwrap();
            assert_eq!(dialled.path().remote, addr);
            assert_eq!(accepted.public_key(), client.controller.public_key());
        }
    }
}
