use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use transport::{
    AccessToken, BindError, ConnectOptions as DialOptions, Endpoint, ListenEndpoint, Listener, ListenerSet,
    NamedEndpoint, PublicKey, Scheme, Stream, Transport, TransportStats, TurnError,
};

use crate::{
    ConnectError, ConnectOptions, Contact, LanError, LanWarning,
    io::{clock, lan::LanBeacon},
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
    listeners: Arc<ListenerSet>,
    lan: Arc<LanBeacon>,
    dialling: Dialling,
    token: Option<AccessToken>,
    // Dropped last: its drop waits for streams that are still ending.
    transport: Transport,
}

/// How this peer dials unless told otherwise.
#[derive(Debug)]
pub(crate) struct Dialling {
    pub(crate) schemes: Vec<Scheme>,
    pub(crate) deadline: Duration,
}

impl ServiceController {
    pub(crate) const fn new(
        transport: Transport,
        listeners: Arc<ListenerSet>,
        lan: Arc<LanBeacon>,
        dialling: Dialling,
        token: Option<AccessToken>,
    ) -> Self {
        Self { listeners, lan, dialling, token, transport }
    }

    /// The key by which others know this peer.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.transport.public_key()
    }

    /// Opens a stream to a peer: an [`Endpoint`], a [`NamedEndpoint`], a [`Contact`], whose token is shown, or a bare
    /// [`PublicKey`], which is looked for on the local network.
    ///
    /// What beacons have said of the key is tried as well. A peer of whom no address is known is asked for by a beacon, on
    /// which at most three seconds are spent.
    ///
    /// Blocks until the peer has admitted the stream, at most [`Config::deadline`](crate::Config::deadline).
    ///
    /// # Errors
    ///
    /// [`ConnectError`] with every road that was tried.
    pub fn connect(&self, peer: impl Into<Contact>) -> Result<Stream, ConnectError> {
        self.connect_with(peer, &ConnectOptions::new())
    }

    /// The same with a protocol label, another deadline, or other schemes.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] with every road that was tried.
    pub fn connect_with(
        &self,
        peer: impl Into<Contact>,
        options: &ConnectOptions,
    ) -> Result<Stream, ConnectError> {
        let peer = peer.into();
        let schemes = options.schemes.as_deref().unwrap_or(&self.dialling.schemes);
        let started = clock::now();
        let deadline = started + options.deadline.unwrap_or(self.dialling.deadline);
        let endpoints = in_order(&self.known_endpoints(&peer, deadline), schemes);
        let Some(first) = endpoints.first() else { return Err(ConnectError::nowhere(peer.public_key())) };
        let mut dial = DialOptions::new().protocol(options.protocol.clone()).deadline(deadline);
        if let Some(token) = peer.token() {
            dial = dial.access_token(token.clone());
        }
        Stream::connect_with(&self.transport, &endpoints, &dial)
            .map_err(|error| ConnectError::of(error, first, clock::now().saturating_duration_since(started)))
    }

    /// Listens at one more place.
    ///
    /// # Errors
    ///
    /// [`BindError`] when it cannot be bound.
    pub fn add_listener(&self, place: ListenEndpoint) -> Result<ListenEndpoint, BindError> {
        let listener = Listener::bind(&self.transport, place)?;
        let local = listener.local_endpoint();
        self.listeners.add_listener(listener);
        self.lan.places_changed();
        Ok(local)
    }

    /// Stops listening at a place, named as [`ServiceController::add_listener`] returned it; streams that came from
    /// there stay. Tells whether it was there.
    pub fn remove_listener(&self, place: ListenEndpoint) -> bool {
        let was_there = self.listeners.remove_listener(place);
        self.lan.places_changed();
        was_there
    }

    /// Where this peer is reached: every place where it listens, an unspecified address replaced by those of the
    /// interfaces. Loopback addresses are named only where there are no others.
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn endpoints(&self) -> io::Result<Vec<Endpoint>> {
        let all = self.listeners.endpoints()?;
        let outside: Vec<_> = all.iter().copied().filter(|one| !one.addr().ip().is_loopback()).collect();
        Ok(if outside.is_empty() { all } else { outside })
    }

    /// How others reach this peer, as one text to paste: its key, its endpoints and the access token it asks for.
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn contact(&self) -> io::Result<Contact> {
        let mut contact = Contact::new(self.public_key());
        if let Some(token) = &self.token {
            contact = contact.access_token(token.clone());
        }
        for endpoint in self.endpoints()? {
            match contact.clone().endpoint(endpoint) {
                Ok(longer) => contact = longer,
                // There is room for the first sixteen.
                Err(_) => break,
            }
        }
        Ok(contact)
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
        self.lan.find(key, deadline)
    }

    /// Who is announced on the local network as far as was heard so far, with where each is said to listen. Empty until
    /// listening has begun (see [`ServiceBeaconReceiver`](crate::ServiceBeaconReceiver)).
    #[must_use]
    pub fn lan_peers(&self) -> Vec<(PublicKey, Vec<Endpoint>)> {
        self.lan.keys().into_iter().map(|key| (key, self.lan.lookup(key))).collect()
    }

    /// The port of the beacon, once it was started: of use where [`Config::lan_port`](crate::Config::lan_port) is 0.
    #[must_use]
    pub fn lan_port(&self) -> Option<u16> {
        self.lan.port()
    }

    /// What of the local network cannot be used at the moment while the rest goes on; usually nothing.
    #[must_use]
    pub fn lan_warnings(&self) -> Vec<LanWarning> {
        self.lan.warnings()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        self.transport.stats()
    }

    /// Lends the calling thread until something happened on the network, at most until `deadline`: the application's part
    /// with [`Driver::Caller`](crate::Driver::Caller) while none of its threads is in a blocking call.
    ///
    /// # Errors
    ///
    /// [`TurnError::TimedOut`] when nothing happened, [`TurnError::Closed`] when the service is closed.
    pub fn turn(&self, deadline: Instant) -> Result<(), TurnError> {
        self.transport.turn(deadline)
    }

    /// Ends everything now: streams, sockets, blocked calls, which return `Closed`.
    pub fn close(&self) {
        self.lan.close();
        self.transport.close();
    }

    /// What a contact says, after what beacons say of its key: the local network is the shortest way.
    fn known_endpoints(&self, peer: &Contact, deadline: Instant) -> Vec<NamedEndpoint> {
        let key = peer.public_key();
        let mut endpoints = self.lan.lookup(key);
        if endpoints.is_empty() && peer.endpoints().is_empty() {
            let until = deadline.min(clock::now() + LOOKING);
            endpoints = self.lan.find(key, until).unwrap_or_else(|error| {
                tracing::debug!(%key, %error, "not found on the local network");
                Vec::new()
            });
        }
        let mut all: Vec<NamedEndpoint> = endpoints.into_iter().map(NamedEndpoint::from).collect();
        let others = peer.endpoints().iter().filter(|endpoint| !all.contains(endpoint)).cloned();
        let others: Vec<_> = others.collect();
        all.extend(others);
        all
    }
}

impl Drop for ServiceController {
    fn drop(&mut self) {
        self.lan.close();
    }
}

/// The endpoints of the wanted schemes, those of the preferred scheme first.
fn in_order(endpoints: &[NamedEndpoint], schemes: &[Scheme]) -> Vec<NamedEndpoint> {
    let of = |scheme| endpoints.iter().filter(move |endpoint| endpoint.scheme() == scheme);
    schemes.iter().flat_map(|&scheme| of(scheme)).cloned().collect()
}

/// A beacon asks six times within two seconds; who has not answered then is not there.
const LOOKING: Duration = Duration::from_secs(3);
