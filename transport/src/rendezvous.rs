//! Meeting a peer that cannot simply be dialled: each side tells the other how it may be reached, and both try at once.

use std::{
    fmt, io,
    net::{self, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use nat_traversal::{MapFailure, MappedSocketAddr, MappingContext, PrivRendezvousInfo, PubRendezvousInfo};

mod channel;
#[cfg(test)]
mod tests;

pub use channel::RendezvousChannel;

use crate::{
    Path, PathKind, Stream, StreamError, Transport,
    admission::Refusal,
    connect_options::ConnectOptions,
    connection::Connection,
    endpoint::{Endpoint, Scheme},
    identity::PublicKey,
    interrupter::Interrupter,
    io::{
        rendezvous::{self, Half},
        udp::UdpSocket,
    },
    listener_set::ListenerSet,
    path::PathKinds,
    protocol::offer::{Offer, OfferError},
    stream::Carrier,
    transport::Shared,
};

/// Our half of one meeting with one peer. It serves once; dropping it gives the meeting up.
///
/// ```
/// use std::{io::{Read, Write}, thread};
/// use nat_traversal::{MappingConfig, MappingContext};
/// use transport::{
///     ConnectOptions, Identity, Listener, Rendezvous, RendezvousOffer, RendezvousOptions, Transport, TransportConfig,
/// };
///
/// let context = MappingContext::new(MappingConfig::new())?;
/// let peer = || -> Result<_, Box<dyn std::error::Error>> {
///     let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
///     // With a listener its socket is the one to punch from; loopback keeps this example on this host.
///     let listener = Listener::bind(&transport, "quic://127.0.0.1:0")?;
///     let (offer, rendezvous) = Rendezvous::prepare(&transport, &context, &RendezvousOptions::new())?;
///     Ok((transport, listener, offer, rendezvous))
/// };
/// let (_transport, _listener, my_offer, mine) = peer()?;
/// let (_other, _other_listener, your_offer, yours) = peer()?;
///
/// // The offers go to the other side as bytes, by any channel.
/// let my_offer = RendezvousOffer::from_bytes(&my_offer.to_bytes())?;
/// thread::scope(|scope| {
///     scope.spawn(move || {
///         let mut stream = yours.connect(&my_offer, &ConnectOptions::new()).unwrap();
///         stream.write_all(b"hello").unwrap();
///     });
///     let mut stream = mine.connect(&your_offer, &ConnectOptions::new())?;
///     let mut text = String::new();
///     stream.read_to_string(&mut text)?;
///     assert_eq!((text.as_str(), stream.public_key()), ("hello", your_offer.public_key()));
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rendezvous {
    half: Arc<Half>,
}

impl Rendezvous {
    /// Finds out how this transport may be reached, and opens what a meeting needs.
    ///
    /// The sockets to punch from are those of the transport's QUIC listeners, whose addresses stay what they are; for lack of
    /// one, the socket that dials go from. TCP gets a socket of its own. Addresses of other listeners are told as well.
    ///
    /// Blocks while the servers of `context`, and routers for a TCP port, are asked, for UDP and TCP at the same time: a round
    /// trip or two, at most
    /// [`MappingConfig::map_timeout`](nat_traversal::MappingConfig::map_timeout); not at all without servers. Who has a way to tell the
    /// peer more later need not wait: see [`open`](Rendezvous::open).
    ///
    /// # Errors
    ///
    /// [`RendezvousError::Socket`] if no socket can be bound, [`RendezvousError::Interrupted`] and
    /// [`RendezvousError::Closed`]. That servers do not answer is no error; see [`Rendezvous::failures`].
    pub fn prepare(
        transport: &Transport,
        context: &MappingContext,
        options: &RendezvousOptions,
    ) -> Result<(RendezvousOffer, Self), RendezvousError> {
        Self::open(transport, options)?.prepared(context, options)
    }

    /// Opens what a meeting needs, and returns at once. How the sockets are seen from outside is learned by
    /// [`RendezvousChannel::gather`] of its [`channel`](Rendezvous::channel), before or while it connects; the peer is told all that is known
    /// by [`RendezvousChannel::offer`], as often as there is news, and the first time before it can connect.
    ///
    /// # Errors
    ///
    /// [`RendezvousError::Socket`] if no socket can be bound and [`RendezvousError::Closed`].
    pub fn open(transport: &Transport, options: &RendezvousOptions) -> Result<Self, RendezvousError> {
        let shared = transport.shared();
        Self::open_with(shared, &shared.listening(), options)
    }

    fn open_with(
        shared: &Arc<Shared>,
        listening: &Listening,
        options: &RendezvousOptions,
    ) -> Result<Self, RendezvousError> {
        Ok(Self { half: rendezvous::open(shared, listening, options)? })
    }

    fn prepared(
        self,
        context: &MappingContext,
        options: &RendezvousOptions,
    ) -> Result<(RendezvousOffer, Self), RendezvousError> {
        let channel = self.channel();
        channel.gather(context, options.interrupter.as_ref(), |_| ())?;
        Ok((channel.complete(), self))
    }

    /// What carries news between the two sides while the meeting goes on.
    #[must_use]
    pub fn channel(&self) -> RendezvousChannel {
        RendezvousChannel::new(self.half.clone())
    }

    /// Meets the peer, which must do the same with our offer within a few seconds. Blocks until there is a stream: both keys
    /// proved, and the other end in the hands of the peer's call.
    ///
    /// UDP punch, TCP punch and dials to the peer's listeners go on side by side, and the peer may dial ours; the first that
    /// works is used, and ends the rest. Both calls return the two ends of one stream; no `accept` ever sees it. Blocks for
    /// at most [`TransportConfig::connect_timeout`](crate::TransportConfig::connect_timeout) or what the options say. The
    /// options' label must be the same on both sides; what they say of [punching](ConnectOptions::punch) counts; their token and local
    /// address are not used, and who calls this admits
    /// the peer, whatever the transport's admission says.
    ///
    /// # Errors
    ///
    /// [`RendezvousError::Failed`] with what became of each way, at the deadline or as soon as none is left; the others are
    /// about the call itself.
    pub fn connect(
        self,
        theirs: &RendezvousOffer,
        options: &ConnectOptions,
    ) -> Result<Stream, RendezvousError> {
        rendezvous::connect(&self.half, &theirs.offer, options)
    }

    /// Gives a stream that is there already a better path, such as one that began over a relay: punches holes for UDP as
    /// [`connect`](Rendezvous::connect) does, and offers what it finds to the stream's connection. The peer must do the same with its end of
    /// a stream of that connection. Blocks until the connection takes a new path, with all its streams, and gives that; nothing is lost,
    /// and other threads may read and write meanwhile.
    ///
    /// Blocks for at most [`TransportConfig::connect_timeout`](crate::TransportConfig::connect_timeout) or what the options say; of
    /// these only deadline and interrupter are used.
    ///
    /// # Errors
    ///
    /// As for `connect`; besides [`RendezvousError::Offer`] if the offer is another peer's than the stream's, and
    /// [`RendezvousError::Stream`] if the stream's connection is over or goes over TCP, which does not move.
    pub fn improve(
        self,
        stream: &Stream,
        theirs: &RendezvousOffer,
        options: &ConnectOptions,
    ) -> Result<Path, RendezvousError> {
        let Carrier::Quic(stream) = stream.carrier() else {
            return Err(RendezvousError::Stream(StreamError::Io { kind: io::ErrorKind::Unsupported }));
        };
        rendezvous::improve(&self.half, &theirs.offer, &stream.connection(), options)
    }

    /// The same for a connection, which need not stay open for it: where it ends, so does this.
    ///
    /// # Errors
    ///
    /// As for [`improve`](Rendezvous::improve).
    pub fn improve_connection(
        self,
        connection: &Connection,
        theirs: &RendezvousOffer,
        options: &ConnectOptions,
    ) -> Result<Path, RendezvousError> {
        let connection = connection.upgrade().map_err(RendezvousError::Stream)?;
        rendezvous::improve(&self.half, &theirs.offer, &connection, options)
    }

    /// The same for a connection that [is cut off](Connection::is_cut_off), at either end: of the kinds that may be used at all a path over a
    /// relay serves as well, and by another attempt for the same connection than this one.
    ///
    /// # Errors
    ///
    /// As for [`improve`](Rendezvous::improve).
    pub fn rescue_connection(
        self,
        connection: &Connection,
        theirs: &RendezvousOffer,
        options: &ConnectOptions,
    ) -> Result<Path, RendezvousError> {
        let connection = connection.upgrade().map_err(RendezvousError::Stream)?;
        rendezvous::rescue(&self.half, &theirs.offer, &connection, options)
    }

    pub(crate) const fn half(&self) -> &Arc<Half> {
        &self.half
    }

    /// Whether servers were asked by UDP and none answered, or none before one did over TCP, as where UDP is blocked.
    #[must_use]
    pub fn udp_is_silent(&self) -> bool {
        self.half.udp_is_silent()
    }

    /// Sources of addresses that did not help, and why.
    #[must_use]
    pub fn failures(&self) -> Vec<MapFailure> {
        self.half.failures()
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rendezvous").field("half", &self.half).finish_non_exhaustive()
    }
}

impl Stream {
    /// [`Rendezvous::connect`] by the name it has in the RFC.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn rendezvous_connect(
        ours: Rendezvous,
        theirs: &RendezvousOffer,
        options: &ConnectOptions,
    ) -> Result<Self, RendezvousError> {
        ours.connect(theirs, options)
    }

    /// Meets a peer from one UDP socket of the caller's own, which has told the peer where the socket is reached and heard the
    /// same of the peer: what [`nat_traversal::gen_rendezvous_info`] gives on both sides. The peer, whose key is `peer`, must
    /// do the same within a few seconds; both calls return the ends of one stream, which no `accept` sees. Nothing but that hole
    /// is tried. The transport takes the socket over, until the connections over it end. Where one side draws ports at random, the options
    /// must say [where](ConnectOptions::punch) the peer is by the word of somebody else.
    ///
    /// Blocks as [`Rendezvous::connect`] does.
    ///
    /// ```
    /// use nat_traversal::{MappedUdpSocket, MappingConfig, MappingContext, gen_rendezvous_info};
    /// use transport::{ConnectOptions, Identity, Stream, Transport, TransportConfig};
    ///
    /// let context = MappingContext::new(MappingConfig::new())?;
    /// let peer = || -> Result<_, Box<dyn std::error::Error>> {
    ///     let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
    ///     let mapped = MappedUdpSocket::map(std::net::UdpSocket::bind("127.0.0.1:0")?, &context)?;
    ///     let (ours, told) = gen_rendezvous_info(mapped.endpoints);
    ///     Ok((transport, mapped.socket, ours, told))
    /// };
    /// let (a, a_socket, a_ours, a_told) = peer()?;
    /// let (b, b_socket, b_ours, b_told) = peer()?;
    /// let (a_key, b_key, options) = (a.public_key(), b.public_key(), ConnectOptions::new());
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| Stream::udp_rendezvous_connect(&b, b_socket, b_ours, a_key, &a_told, &options).unwrap());
    ///     let stream = Stream::udp_rendezvous_connect(&a, a_socket, a_ours, b_key, &b_told, &options)?;
    ///     assert_eq!(stream.public_key(), b_key);
    ///     Ok::<(), transport::RendezvousError>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Rendezvous::connect`].
    pub fn udp_rendezvous_connect(
        transport: &Transport,
        socket: net::UdpSocket,
        ours: PrivRendezvousInfo,
        peer: PublicKey,
        theirs: &PubRendezvousInfo,
        options: &ConnectOptions,
    ) -> Result<Self, RendezvousError> {
        rendezvous::connect_from(transport.shared(), socket, ours, peer, theirs, options)
    }
}

impl ListenerSet {
    /// [`Rendezvous::prepare`] with the listeners of this set only.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn prepare_rendezvous(
        &self,
        context: &MappingContext,
        options: &RendezvousOptions,
    ) -> Result<(RendezvousOffer, Rendezvous), RendezvousError> {
        self.open_rendezvous(options)?.prepared(context, options)
    }

    /// [`Rendezvous::open`] with the listeners of this set only.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_rendezvous(&self, options: &RendezvousOptions) -> Result<Rendezvous, RendezvousError> {
        let (shared, listening) = self.listening();
        Rendezvous::open_with(shared, &listening, options)
    }

    /// [`Rendezvous::connect`]: the stream may come in by one of the listeners, and is returned here, never by
    /// [`accept`](ListenerSet::accept).
    ///
    /// # Errors
    ///
    /// As there; [`RendezvousError::Closed`] as well if `ours` was prepared by another transport.
    pub fn rendezvous_connect(
        &self,
        ours: Rendezvous,
        theirs: &RendezvousOffer,
        options: &ConnectOptions,
    ) -> Result<Stream, RendezvousError> {
        if !Arc::ptr_eq(self.listening().0, ours.half.shared()) {
            return Err(RendezvousError::Closed);
        }
        ours.connect(theirs, options)
    }
}

/// What a peer must know to meet us: our key, addresses, and a public key for this one meeting.
///
/// Whoever carries it can read the addresses but cannot take part in the meeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RendezvousOffer {
    pub(crate) offer: Offer,
}

impl RendezvousOffer {
    /// The key that the sender will have to prove.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.offer.public_key
    }

    /// Whether the sender is going to say more, in another offer of the same meeting.
    #[must_use]
    pub fn has_more_to_come(&self) -> bool {
        self.offer.more
    }

    /// The byte form, drawn in `docs/wire.md`: at most 3 KiB, mostly some hundred bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.offer.encode()
    }

    /// Reads the byte form.
    ///
    /// # Errors
    ///
    /// [`OfferError`] if it is none, or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OfferError> {
        Ok(Self { offer: Offer::decode(bytes)? })
    }
}

/// What to prepare for a meeting.
#[derive(Debug, Clone)]
pub struct RendezvousOptions {
    pub(crate) udp: bool,
    pub(crate) tcp: bool,
    pub(crate) listeners: bool,
    pub(crate) also_at: Vec<(Scheme, SocketAddr)>,
    pub(crate) interrupter: Option<Interrupter>,
    /// Sockets at relays, and their addresses there.
    pub(crate) relays: Vec<(Arc<UdpSocket>, MappedSocketAddr)>,
    /// How sockets were seen from outside before.
    pub(crate) known: Vec<(SocketAddr, MappedSocketAddr)>,
    pub(crate) second: bool,
    pub(crate) relay_follows: bool,
    pub(crate) ways: PathKinds,
    pub(crate) relay_at_once: bool,
}

impl Default for RendezvousOptions {
    fn default() -> Self {
        Self {
            udp: true,
            tcp: true,
            listeners: true,
            also_at: Vec::new(),
            interrupter: None,
            relays: Vec::new(),
            known: Vec::new(),
            second: false,
            relay_follows: false,
            relay_at_once: false,
            ways: PathKinds::ALL,
        }
    }
}

impl RendezvousOptions {
    /// The defaults: all ways.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to punch UDP. Default: yes.
    #[must_use]
    pub fn udp(mut self, udp: bool) -> Self {
        self.udp = udp;
        self
    }

    /// Whether to punch TCP, which costs a socket and connections to the servers. Default: yes.
    #[must_use]
    pub fn tcp(mut self, tcp: bool) -> Self {
        self.tcp = tcp;
        self
    }

    /// Whether to tell the peer where we listen. Default: yes.
    #[must_use]
    pub fn listeners(mut self, listeners: bool) -> Self {
        self.listeners = listeners;
        self
    }

    /// Tells the peer that our listeners are reached there too, such as at an address that a router forwards.
    #[must_use]
    pub fn also_at(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        self.also_at.extend(endpoints.into_iter().map(|endpoint| (endpoint.scheme(), endpoint.addr())));
        self
    }

    /// Uses only ways of these kinds. Without `Punched` no holes are punched, without `Relayed` neither relays of ours nor the peer's
    /// are used, and without `Lan` or `Direct` the peer's listeners at such addresses are not dialled; without both, it is not told
    /// of ours. What the peer tries on its own is its choice. Default: all.
    #[must_use]
    pub fn ways(mut self, kinds: impl IntoIterator<Item = PathKind>) -> Self {
        self.ways = kinds.into_iter().collect();
        self
    }

    /// Does not wait those 300 ms before a relay is used, as where it is known to be needed, and tells the peer so. Default: no.
    #[must_use]
    pub fn relay_at_once(mut self, at_once: bool) -> Self {
        self.relay_at_once = at_once;
        self
    }

    /// Meets the peer over that relay as well, if nothing else has worked after 300 ms; at once where UDP is not to be punched.
    /// At most two count. Default: none.
    #[cfg(feature = "turn")]
    #[must_use]
    pub fn relay(mut self, relay: &crate::Relay) -> Self {
        self.relays.push((relay.socket().clone(), relay.endpoint()));
        self
    }

    /// Says that a relay is [added](RendezvousChannel::add_relay) later, so that without `Punched` among the [ways](RendezvousOptions::ways) the
    /// peer is told nothing but that. Default: no.
    #[must_use]
    pub fn relay_follows(mut self, follows: bool) -> Self {
        self.relay_follows = follows;
        self
    }

    /// Takes for granted how the socket with the local address `socket` is seen from outside, as
    /// [`RendezvousChannel::mapped`] told of a meeting shortly before. At most sixteen addresses a socket count.
    #[must_use]
    pub fn known(mut self, socket: SocketAddr, seen: impl IntoIterator<Item = MappedSocketAddr>) -> Self {
        self.known.extend(seen.into_iter().map(|endpoint| (socket, endpoint)));
        self
    }

    /// Says that this side gets the other's offer last, as whoever is called does, and that the other begins as soon as it has sent it.
    /// This side then need not open its NAT first, and leads, which saves two round trips. If both say so it is as if none did.
    /// Default: no.
    #[must_use]
    pub fn second(mut self, second: bool) -> Self {
        self.second = second;
        self
    }

    /// Lets another thread end [`Rendezvous::prepare`].
    #[must_use]
    pub fn interrupter(mut self, interrupter: &Interrupter) -> Self {
        self.interrupter = Some(interrupter.clone());
        self
    }
}

/// The sockets on which streams come in.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    pub(crate) udp: Vec<Arc<UdpSocket>>,
    pub(crate) tcp: Vec<SocketAddr>,
}

/// Why no meeting came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RendezvousError {
    /// The offer is our own, or was tampered with.
    #[error("the peer's offer is our own or was tampered with")]
    Offer,
    /// No socket could be bound, or the system does not tell its interfaces.
    #[error("the operating system refused what a rendezvous needs")]
    Socket(#[from] io::Error),
    /// The peer is there and wants another protocol.
    #[error("{peer} refused: {reason}")]
    Refused {
        /// The peer.
        peer: PublicKey,
        /// Why.
        reason: Refusal,
    },
    /// Every way failed, or none had worked at the deadline.
    #[error("no way to {peer} after {waited:.1?} ({} tried)", .failures.len())]
    Failed {
        /// The peer.
        peer: PublicKey,
        /// How long it took.
        waited: Duration,
        /// What became of each way that was tried.
        failures: Vec<RendezvousFailure>,
    },
    /// The stream that was to be improved is over, or cannot move.
    #[error("the stream cannot move")]
    Stream(#[source] StreamError),
    /// Too many rendezvous at once, or this one was begun before.
    #[error("too many rendezvous at once")]
    Full,
    /// Someone called [`Interrupter::interrupt`].
    #[error("interrupted")]
    Interrupted,
    /// The transport is shut down.
    #[error("the transport is closed")]
    Closed,
}

/// One way that did not lead to the peer.
#[derive(Debug)]
#[non_exhaustive]
pub struct RendezvousFailure {
    /// The way.
    pub road: RendezvousRoad,
    /// From its start to its end.
    pub waited: Duration,
    /// Why, for a person to read.
    pub reason: String,
}

/// A way to meet a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RendezvousRoad {
    /// A hole punched for UDP, over IPv6 or IPv4.
    UdpPunch {
        /// Whether over IPv6.
        v6: bool,
    },
    /// A hole punched for TCP.
    TcpPunch {
        /// Whether over IPv6.
        v6: bool,
    },
    /// QUIC or TLS over a hole that was punched.
    Punched {
        /// The scheme.
        scheme: Scheme,
        /// The peer's end of the hole; not known for TCP that was broken off.
        remote: Option<SocketAddr>,
    },
    /// A dial to where the peer listens.
    Listener {
        /// The scheme.
        scheme: Scheme,
        /// Its address.
        remote: SocketAddr,
    },
    /// The peer's own dials to us.
    Incoming,
}

impl RendezvousFailure {
    pub(crate) fn new(road: RendezvousRoad, begun: Instant, now: Instant, reason: impl fmt::Display) -> Self {
        Self { road, waited: now.saturating_duration_since(begun), reason: reason.to_string() }
    }
}
