use std::net::{Ipv4Addr, SocketAddr};

use socket2::Socket;

use crate::error::MapError;
use crate::io::run::RunError;
use crate::io::{clock, entropy, interfaces, socket, stun_tcp};
use crate::mapped_udp_socket::{finish, merge};
use crate::protocol::port_map::PortProtocol;
use crate::protocol::{MapFailure, MappedSocketAddr};
use crate::{MappingContext, PortLease};

/// A bound TCP socket and the addresses at which peers may reach its port.
///
/// The socket is neither connected nor listening. It has `SO_REUSEADDR` and, on Unix, `SO_REUSEPORT`, so that the many
/// sockets of a hole punch can share its port.
#[derive(Debug)]
pub struct MappedTcpSocket {
    /// The socket.
    pub socket: Socket,
    /// Where it may be reached: this host's own addresses, the one that a router forwards, and those that servers see.
    pub endpoints: Vec<MappedSocketAddr>,
    /// Which servers and routers did not help, and why.
    pub failures: Vec<MapFailure>,
    /// The port that a router forwards, given back when this is dropped. Keep it for as long as peers are to come in.
    pub lease: Option<PortLease>,
}

impl MappedTcpSocket {
    /// Binds a socket to all IPv4 addresses and a free port, and maps it as [`map`](Self::map) does.
    ///
    /// # Errors
    ///
    /// As for `map`, and if no socket can be bound.
    pub fn new(context: &MappingContext) -> Result<Self, MapError> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = socket::reusable_tcp(address).map_err(|source| MapError::Bind { address, source })?;
        Self::map(socket, context)
    }

    /// Learns the addresses of the port that `socket` is bound to: connects from it to the context's servers of its address
    /// family, all at once, and asks them, and beside that the router for a port. Blocks for two round trips if all answer, else at most as long as
    /// [`MappingConfig::map_timeout`](crate::MappingConfig::map_timeout) says.
    ///
    /// The socket must have been bound with `SO_REUSEADDR` and, on Unix, `SO_REUSEPORT`.
    ///
    /// # Errors
    ///
    /// If the socket fails or someone [interrupts](crate::Interrupter). That servers do not answer is no error.
    pub fn map(socket: Socket, context: &MappingContext) -> Result<Self, MapError> {
        let local = socket.local_addr().map_err(MapError::Socket)?;
        let local =
            local.as_socket().ok_or_else(|| MapError::Socket(std::io::ErrorKind::InvalidInput.into()))?;
        let hosts = interfaces::host_addresses(local).map_err(MapError::Socket)?;
        let asking = context.ask_router(local, PortProtocol::Tcp, None);
        let end = clock::now() + context.config().map_time();
        let servers = context.stun_servers(local);
        let mapping = match stun_tcp::learn(local, &servers, entropy::seed(), end, context.waits()) {
            Ok(mapping) => mapping,
            Err(RunError::Interrupted) => return Err(MapError::Interrupted),
            Err(RunError::TimedOut) => unreachable!("it ends with what it has"),
            Err(RunError::Io(error)) => return Err(MapError::Socket(error)),
        };
        let (forwarded, refusals) = finish(asking, end, context)?;
        let (endpoints, lease) = merge(hosts, forwarded, mapping.addresses);
        let failures = [mapping.failures, refusals].concat();
        tracing::debug!(?endpoints, ?failures, "mapped a TCP socket");
        Ok(Self { socket, endpoints, failures, lease })
    }
}
