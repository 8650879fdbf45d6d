use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::time::Instant;

use crate::error::MapError;
use crate::io::ask_router::{Asking, Forwarded};
use crate::io::run::{RunError, Sockets, run};
use crate::io::{clock, entropy, interfaces};
use crate::protocol::port_map::{PortMapping, PortProtocol};
use crate::protocol::{MapFailure, MappedSocketAddr, Mapper, Mapping, SocketIndex, is_global};
use crate::{MappingContext, PortLease};

/// A UDP socket and the addresses at which peers may reach it.
///
/// ```
/// use nat_traversal::{MappedUdpSocket, MappingConfig, MappingContext};
///
/// let context = MappingContext::new(MappingConfig::new())?;
/// let mapped = MappedUdpSocket::map(std::net::UdpSocket::bind("127.0.0.1:0")?, &context)?;
/// for endpoint in &mapped.endpoints {
///     println!("{} ({:?})", endpoint.addr, endpoint.kind);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MappedUdpSocket {
    /// The socket, in blocking mode.
    pub socket: UdpSocket,
    /// Where it may be reached: this host's own addresses, the one that a router forwards, and those that servers see.
    pub endpoints: Vec<MappedSocketAddr>,
    /// Which servers and routers did not help, and why.
    pub failures: Vec<MapFailure>,
    /// The port that a router forwards, given back when this is dropped. Keep it for as long as peers are to come in.
    pub lease: Option<PortLease>,
}

impl MappedUdpSocket {
    /// Binds a socket to all IPv4 addresses and a free port, and maps it as [`map`](Self::map) does.
    ///
    /// # Errors
    ///
    /// As for `map`, and if no socket can be bound.
    pub fn new(context: &MappingContext) -> Result<Self, MapError> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = UdpSocket::bind(address).map_err(|source| MapError::Bind { address, source })?;
        Self::map(socket, context)
    }

    /// Learns the addresses of `socket`: asks the context's servers of its address family, all at once, and beside that the
    /// router for a port. Blocks for one round trip if all answer, else at most as long as
    /// [`MappingConfig::map_timeout`](crate::MappingConfig::map_timeout) says; without servers and with
    /// [`port_map(false)`](crate::MappingConfig::port_map) it does not block. Datagrams that arrive meanwhile and are no
    /// answers are lost.
    ///
    /// # Errors
    ///
    /// If the socket fails or someone [interrupts](crate::Interrupter). That servers do not answer is no error.
    pub fn map(socket: UdpSocket, context: &MappingContext) -> Result<Self, MapError> {
        let local = socket.local_addr().map_err(MapError::Socket)?;
        let hosts = interfaces::host_addresses(local).map_err(MapError::Socket)?;
        let asking = context.ask_router(local, PortProtocol::Udp, None);
        let start = clock::now();
        let end = start + context.config().map_time();
        let mut mapper = Mapper::new(start, &context.stun_servers(local), entropy::seed(), end);
        let mut sockets = Sockets::new(socket);
        // The mapper ends by itself at `end`; the driver's deadline is for a machine that does not.
        let outcome = run(&mut mapper, &mut sockets, end + GRACE, context.waits(), ControlFlow::Break);
        let mapping = match outcome {
            Ok(mapping) => mapping,
            Err(RunError::TimedOut) => Mapping::default(),
            Err(RunError::Interrupted) => return Err(MapError::Interrupted),
            Err(RunError::Io(error)) => return Err(MapError::Socket(error)),
        };
        let socket = sockets.take(SocketIndex::MAIN).map_err(MapError::Socket)?;
        let (forwarded, refusals) = finish(asking, end, context)?;
        let (endpoints, lease) = merge(hosts, forwarded, mapping.addresses);
        let failures = [mapping.failures, refusals].concat();
        tracing::debug!(?endpoints, ?failures, "mapped a UDP socket");
        Ok(Self { socket, endpoints, failures, lease })
    }
}

/// Waits for the router, if it was asked.
pub(crate) fn finish(
    asking: Option<Asking>,
    deadline: Instant,
    context: &MappingContext,
) -> Result<(Forwarded, Vec<MapFailure>), MapError> {
    let Some(asking) = asking else { return Ok((None, Vec::new())) };
    asking.finish(deadline, context.waits()).map_err(|error| match error {
        RunError::Interrupted => MapError::Interrupted,
        RunError::TimedOut => unreachable!("it is told as a failure"),
        RunError::Io(error) => MapError::Socket(error),
    })
}

/// All addresses, each once. An address of this host that servers see as well has no NAT before it, and one that the
/// router forwards is open to all although servers see it too.
pub(crate) fn merge(
    hosts: Vec<SocketAddr>,
    forwarded: Forwarded,
    seen: Vec<MappedSocketAddr>,
) -> (Vec<MappedSocketAddr>, Option<PortLease>) {
    let mut endpoints: Vec<MappedSocketAddr> = hosts.into_iter().map(MappedSocketAddr::host).collect();
    let (mapping, lease) = forwarded.unzip();
    let forwarded = mapping.map(|mapping: PortMapping| {
        MappedSocketAddr::port_mapped(mapping.external, !is_global(mapping.external.ip()))
    });
    for address in forwarded.into_iter().chain(seen) {
        if endpoints.iter().all(|known| known.addr != address.addr) {
            endpoints.push(address);
        }
    }
    (endpoints, lease)
}

/// How much later than the mapper the driver would end.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
