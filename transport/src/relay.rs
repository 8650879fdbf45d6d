use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use nat_traversal::{
    AddrKind, MappedSocketAddr, PortRule, RelayError, TurnServer, protocol::turn::TurnFailure,
};

use crate::{
    Interrupter, Transport,
    io::{clock, crank::Waited, rendezvous::Hold, udp::UdpSocket},
    transport::Shared,
};

/// An address at a TURN relay (RFC 8656) that carries QUIC for a transport where nothing direct does. It sees ciphertext
/// between proved keys.
///
/// Hand it to [`RendezvousOptions::relay`](crate::RendezvousOptions::relay): the peer is then met over the relay if
/// nothing else works, and the stream can go on without it later ([`Rendezvous::improve`](crate::Rendezvous::improve)). The
/// transport's own poll serves it; there is no thread. Dropping it gives the address back once no connection uses it.
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// use transport::{Identity, Relay, RendezvousOptions, Transport, TransportConfig};
///
/// let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let server = "turns:alice:secret@relay.example".parse()?;
/// let relay = Relay::allocate(&transport, &server, Instant::now() + Duration::from_secs(10))?;
/// let options = RendezvousOptions::new().relay(&relay);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Relay {
    hold: Hold,
    server: String,
    addr: SocketAddr,
}

impl Relay {
    /// Asks a server for an IPv4 address. Blocks for the lookup of its name, two round trips over UDP, one more over TCP and
    /// two more over TLS; at most until the deadline.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, does not prove itself, does not accept the credentials or has no room; at the
    /// deadline; and [`RelayError::Interrupted`] when the transport closes.
    pub fn allocate(
        transport: &Transport,
        server: &TurnServer,
        deadline: Instant,
    ) -> Result<Self, RelayError> {
        Self::allocate_until(transport, server, &Interrupter::default(), deadline)
    }

    /// The same, until somebody interrupts: of several servers that are asked at a time, say, the first that answers may be
    /// enough. Only the lookup of a name goes on until it is answered.
    ///
    /// # Errors
    ///
    /// As for [`allocate`](Relay::allocate), and [`RelayError::Interrupted`] by the interrupter.
    pub fn allocate_until(
        transport: &Transport,
        server: &TurnServer,
        interrupter: &Interrupter,
        deadline: Instant,
    ) -> Result<Self, RelayError> {
        let shared = transport.shared();
        let begun = clock::now();
        let mut error = None;
        for address in look_up(shared, server, begun, deadline)? {
            match Self::allocate_at(shared, server, address, interrupter, begun, deadline) {
                Ok(relay) => return Ok(relay),
                Err(RelayError::Interrupted) => return Err(RelayError::Interrupted),
                Err(failed) => error = Some(failed),
            }
        }
        Err(error.unwrap_or_else(|| RelayError::Resolve {
            host: server.host().to_owned(),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    fn allocate_at(
        shared: &Arc<Shared>,
        server: &TurnServer,
        address: SocketAddr,
        interrupter: &Interrupter,
        begun: Instant,
        deadline: Instant,
    ) -> Result<Self, RelayError> {
        let slot = shared.crank.slot();
        let _watch = interrupter.watch(&slot);
        let start = |source| RelayError::Start { server: server.to_string(), source };
        let socket = shared.quic.relay(shared, server, address, &slot).map_err(start)?;
        let hold = Hold::new(shared, socket.clone());
        loop {
            match socket.relay().and_then(|relay| Some((relay.outcome()?, relay))) {
                Some((Ok(addr), _)) => return Ok(Self { hold, server: server.to_string(), addr }),
                Some((Err(source), relay)) => {
                    let server = server.to_string();
                    return Err(match relay.take_error() {
                        Some(source) => RelayError::Connection { server, source: Arc::new(source) },
                        None => RelayError::Server { server, source },
                    });
                }
                None if interrupter.is_interrupted() => return Err(RelayError::Interrupted),
                None => {}
            }
            match shared.crank.wait(&slot, Some(deadline)) {
                Waited::Ready => {}
                Waited::TimedOut => return Err(timed_out(begun)),
                Waited::Closed => return Err(RelayError::Interrupted),
            }
        }
    }

    /// The address at which peers reach us by the relay.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Why the relay serves us no more, if so; connections over it go silent then.
    #[must_use]
    pub fn failure(&self) -> Option<TurnFailure> {
        self.socket().relay()?.outcome()?.err()
    }

    /// Asks the relay whether it still knows us, which one that was started anew does not; tells whether it does. Blocks for one round trip,
    /// or two; at most until the deadline, or until somebody interrupts.
    ///
    /// One that does not answer in time need not be lost: [`failure`](Relay::failure) tells when it is.
    #[must_use]
    pub fn is_served(&self, interrupter: &Interrupter, deadline: Instant) -> bool {
        let (Some(relay), shared) = (self.socket().relay(), self.hold.shared()) else { return false };
        let asked = clock::now();
        let slot = shared.crank.slot();
        let _watch = interrupter.watch(&slot);
        relay.check(asked, &slot);
        loop {
            if self.failure().is_some() || interrupter.is_interrupted() {
                return false;
            }
            if relay.last_served() >= Some(asked) {
                return true;
            }
            if !matches!(shared.crank.wait(&slot, Some(deadline)), Waited::Ready) {
                return false;
            }
        }
    }

    /// Lets a peer send to us, from any port of its address, before we have sent to it; for some minutes.
    pub fn permit(&self, peer: IpAddr) {
        if let Some(relay) = self.socket().relay() {
            relay.permit(peer);
        }
    }

    pub(crate) fn socket(&self) -> &Arc<UdpSocket> {
        self.hold.socket()
    }

    pub(crate) fn endpoint(&self) -> MappedSocketAddr {
        MappedSocketAddr {
            addr: self.addr,
            kind: AddrKind::Relayed,
            nat_restricted: true,
            ports: PortRule::Stable,
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Relay")
            .field("server", &self.server)
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

fn look_up(
    shared: &Arc<Shared>,
    server: &TurnServer,
    begun: Instant,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, RelayError> {
    if let Ok(ip) = server.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, server.port())]);
    }
    let mut addrs = shared.resolver.resolve(shared, server.host(), server.port(), deadline).map_err(
        |source| match source.kind() {
            io::ErrorKind::TimedOut => timed_out(begun),
            io::ErrorKind::NotConnected => RelayError::Interrupted,
            _ => RelayError::Resolve { host: server.host().to_owned(), source },
        },
    )?;
    // Relays of old know nothing else than IPv4; and a few addresses of one server are enough.
    addrs.sort_by_key(SocketAddr::is_ipv6);
    addrs.truncate(MAX_ADDRESSES);
    Ok(addrs)
}

fn timed_out(begun: Instant) -> RelayError {
    let waited = clock::now().saturating_duration_since(begun);
    RelayError::TimedOut { waited }
}

const MAX_ADDRESSES: usize = 4;
