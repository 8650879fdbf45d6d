use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::error::ServerError;
use crate::io::interfaces;
use crate::io::serve::Serving;
use crate::io::worker;
use crate::protocol::stun::ServerAddresses;
use crate::protocol::{MappedSocketAddr, StunServer};
use crate::{MappedUdpSocket, MappingContext, PortLease};

/// Tells others their outside addresses: a STUN server over UDP and TCP, so that a pair of peers needs no public one.
///
/// It serves on the thread `nat-io`, which all servers, relays and leases of a process share, until it is dropped. An answer is
/// never longer than three times its request, and one address gets at most twenty a second, so that it cannot be used to
/// flood others.
///
/// ```
/// use nat_traversal::{HolePunchServer, MappedUdpSocket, MappingConfig, MappingContext};
///
/// let server = HolePunchServer::bind("127.0.0.1:0".parse()?)?;
/// let config = MappingConfig::new().server(server.addresses()[0].addr);
/// let mapped = MappedUdpSocket::map(std::net::UdpSocket::bind("127.0.0.1:0")?, &MappingContext::new(config)?)?;
/// assert!(mapped.failures.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HolePunchServer {
    addresses: Vec<MappedSocketAddr>,
    /// The router forwards its UDP port for as long as it serves.
    _lease: Option<PortLease>,
    task: worker::Handle,
}

impl HolePunchServer {
    /// Serves at a free port of all IPv4 addresses, and learns by the context's servers where that is reached from outside.
    /// Blocks as [`MappedUdpSocket::new`] does.
    ///
    /// # Errors
    ///
    /// If no socket can be bound or no thread started, or the mapping is interrupted.
    pub fn new(context: &MappingContext) -> Result<Self, ServerError> {
        let (udp, listener) = bind_both(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        let mapped = MappedUdpSocket::map(udp, context).map_err(ServerError::Map)?;
        let server = StunServer::new(ServerAddresses::One);
        Self::start(server, vec![mapped.socket], vec![listener], mapped.endpoints, mapped.lease)
    }

    /// Serves at this address; port 0 chooses a free one. Returns at once.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound or no thread started.
    pub fn bind(address: SocketAddr) -> Result<Self, ServerError> {
        let (udp, listener) = bind_both(address)?;
        let local = udp.local_addr().map_err(ServerError::Start)?;
        let addresses = interfaces::host_addresses(local).map_err(ServerError::Start)?;
        let addresses = addresses.into_iter().map(MappedSocketAddr::host).collect();
        Self::start(StunServer::new(ServerAddresses::One), vec![udp], vec![listener], addresses, None)
    }

    /// Serves at this address and at the same address with the next port; port 0 chooses two free neighbours. Two answers of
    /// one host show what one cannot: whether a NAT gives each destination a port of its own (RFC 4787, section 4.1). Returns
    /// at once.
    ///
    /// # Errors
    ///
    /// If one of the two cannot be bound or no thread started.
    pub fn bind_pair(address: SocketAddr) -> Result<Self, ServerError> {
        let (first, second) = bind_neighbours(address)?;
        let mut addresses = Vec::new();
        for (udp, _) in [&first, &second] {
            let local = udp.local_addr().map_err(ServerError::Start)?;
            let hosts = interfaces::host_addresses(local).map_err(ServerError::Start)?;
            addresses.extend(hosts.into_iter().map(MappedSocketAddr::host));
        }
        let (sockets, listeners) = [first, second].into_iter().unzip();
        Self::start(StunServer::new(ServerAddresses::One), sockets, listeners, addresses, None)
    }

    /// Serves at two addresses of this host with two ports each, so that clients can learn how their NAT filters
    /// (RFC 5780). The addresses must differ in their IP address and in their port.
    ///
    /// # Errors
    ///
    /// If they do not differ so or have port 0, if they cannot be bound, or no thread can be started.
    pub fn bind_two(first: SocketAddr, second: SocketAddr) -> Result<Self, ServerError> {
        if first.ip() == second.ip()
            || first.port() == second.port()
            || first.port() == 0
            || second.port() == 0
        {
            let source = std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "two servers need addresses and ports that differ and are not 0",
            );
            return Err(ServerError::Bind { address: second, source });
        }
        let four = [
            first,
            SocketAddr::new(first.ip(), second.port()),
            SocketAddr::new(second.ip(), first.port()),
            second,
        ];
        let mut sockets = Vec::new();
        let mut listeners = Vec::new();
        for address in four {
            let (udp, listener) = bind_both(address)?;
            sockets.push(udp);
            listeners.push(listener);
        }
        let addresses = vec![MappedSocketAddr::host(first), MappedSocketAddr::host(second)];
        Self::start(StunServer::new(ServerAddresses::Four(four)), sockets, listeners, addresses, None)
    }

    /// Where it is reached: this host's addresses and, if made by [`new`](Self::new), those that other servers see. Over
    /// TCP the addresses that others see do not hold.
    #[must_use]
    pub fn addresses(&self) -> &[MappedSocketAddr] {
        &self.addresses
    }

    fn start(
        server: StunServer,
        sockets: Vec<UdpSocket>,
        listeners: Vec<TcpListener>,
        addresses: Vec<MappedSocketAddr>,
        lease: Option<PortLease>,
    ) -> Result<Self, ServerError> {
        let task = worker::add(|sources| Serving::new(sources, server, sockets, listeners));
        Ok(Self { addresses, _lease: lease, task: task.map_err(ServerError::Start)? })
    }
}

impl Drop for HolePunchServer {
    fn drop(&mut self) {
        self.task.stop();
    }
}

/// The sockets of a port and of the next.
fn bind_neighbours(address: SocketAddr) -> Result<(Both, Both), ServerError> {
    let mut attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let first = bind_both(address)?;
        let port = first.0.local_addr().map_err(ServerError::Start)?.port();
        let next = port.checked_add(1).map(|next| SocketAddr::new(address.ip(), next));
        match next.map(bind_both) {
            Some(Ok(second)) => return Ok((first, second)),
            _ if attempts > 0 => {}
            Some(Err(error)) => return Err(error),
            None => {
                let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "there is no next port");
                return Err(ServerError::Bind { address, source });
            }
        }
    }
}

/// A UDP socket and a TCP listener at the same port.
pub(crate) type Both = (UdpSocket, TcpListener);

/// Binds both.
pub(crate) fn bind_both(address: SocketAddr) -> Result<Both, ServerError> {
    let mut attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let udp = UdpSocket::bind(address).map_err(|source| ServerError::Bind { address, source })?;
        let bound = udp.local_addr().map_err(ServerError::Start)?;
        match TcpListener::bind(bound) {
            Ok(listener) => return Ok((udp, listener)),
            Err(_) if attempts > 0 => {}
            Err(source) => return Err(ServerError::Bind { address: bound, source }),
        }
    }
}

/// A port that is free for UDP is rarely taken for TCP.
const PORT_ATTEMPTS: u32 = 16;
