use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;

use crate::MappingContext;
use crate::error::MapError;
use crate::io::run::{RunError, Sockets, run};
use crate::io::{clock, entropy, interfaces};
use crate::protocol::{MapFailure, MappedSocketAddr, Mapper, Mapping, SocketIndex};

/// A UDP socket and the addresses at which peers may reach it.
///
/// ```
/// use nat_traversal::{MappedUdpSocket, MappingConfig, MappingContext};
///
/// let context = MappingContext::new(MappingConfig::new())?;
/// let mapped = MappedUdpSocket::new(&context)?;
/// for endpoint in &mapped.endpoints {
///     println!("{} ({:?})", endpoint.addr, endpoint.kind);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MappedUdpSocket {
    /// The socket, in blocking mode.
    pub socket: UdpSocket,
    /// Where it may be reached: this host's own addresses, and those that servers see.
    pub endpoints: Vec<MappedSocketAddr>,
    /// Which servers did not help, and why.
    pub failures: Vec<MapFailure>,
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

    /// Learns the addresses of `socket`: asks the context's servers of its address family, all at once. Blocks for one
    /// round trip if all answer, else at most as long as [`MappingConfig::map_timeout`](crate::MappingConfig::map_timeout)
    /// says; without servers it does not block. Datagrams that arrive meanwhile and are no answers are lost.
    ///
    /// # Errors
    ///
    /// If the socket fails or someone [interrupts](crate::Interrupter). That servers do not answer is no error.
    pub fn map(socket: UdpSocket, context: &MappingContext) -> Result<Self, MapError> {
        let local = socket.local_addr().map_err(MapError::Socket)?;
        let hosts = interfaces::host_addresses(local).map_err(MapError::Socket)?;
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
        let endpoints = merge(hosts, mapping.addresses);
        tracing::debug!(?endpoints, failures = ?mapping.failures, "mapped a UDP socket");
        Ok(Self { socket, endpoints, failures: mapping.failures })
    }
}

/// All addresses, each once. An address of this host that servers see as well has no NAT before it.
pub(crate) fn merge(hosts: Vec<SocketAddr>, seen: Vec<MappedSocketAddr>) -> Vec<MappedSocketAddr> {
    let mut endpoints: Vec<MappedSocketAddr> = hosts.into_iter().map(MappedSocketAddr::host).collect();
    for address in seen {
        if endpoints.iter().all(|known| known.addr != address.addr) {
            endpoints.push(address);
        }
    }
    endpoints
}

/// How much later than the mapper the driver would end.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
