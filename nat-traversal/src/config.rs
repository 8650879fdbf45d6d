use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How a [`MappingContext`](crate::MappingContext) learns addresses.
///
/// ```
/// use std::time::Duration;
/// use nat_traversal::MappingConfig;
///
/// let config = MappingConfig::new()
///     .server("203.0.113.10:3478".parse()?)
///     .map_timeout(Duration::from_secs(1));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct MappingConfig {
    servers: Vec<SocketAddr>,
    map_timeout: Duration,
    port_map: bool,
    router: Option<IpAddr>,
    lease_lifetime: Duration,
}

impl MappingConfig {
    /// No servers, and the defaults below.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            servers: Vec::new(),
            map_timeout: Self::MAP_TIMEOUT,
            port_map: true,
            router: None,
            lease_lifetime: Self::LEASE_LIFETIME,
        }
    }

    /// Adds a STUN server. Two at different addresses tell more than one: whether the NAT keeps ports.
    #[must_use]
    pub fn server(mut self, server: SocketAddr) -> Self {
        self.servers.push(server);
        self
    }

    /// How long a socket is mapped at most; 3 s unless set. When all servers answer, it takes one round trip.
    #[must_use]
    pub const fn map_timeout(mut self, timeout: Duration) -> Self {
        self.map_timeout = timeout;
        self
    }

    /// Whether routers are asked to forward ports, by PCP, NAT-PMP or UPnP; they are unless this is set to false. It costs
    /// a second or two where no router answers, beside the servers' time and once in half a minute.
    #[must_use]
    pub const fn port_map(mut self, port_map: bool) -> Self {
        self.port_map = port_map;
        self
    }

    /// The router to ask for ports; unless set, the system's default gateway, and whatever UPnP's search finds on any
    /// network. Only Linux tells its default gateway: elsewhere PCP and NAT-PMP need this.
    #[must_use]
    pub const fn router(mut self, router: IpAddr) -> Self {
        self.router = Some(router);
        self
    }

    /// How long a router is asked to keep a port without hearing from us, 10 s to a day; 2 h unless set, as
    /// [RFC 6886, section 3.3](https://www.rfc-editor.org/rfc/rfc6886#section-3.3) recommends. So long it stays open if
    /// this program is killed. It is renewed at half of that time.
    #[must_use]
    pub fn lease_lifetime(mut self, lifetime: Duration) -> Self {
        self.lease_lifetime = lifetime.clamp(Duration::from_secs(10), Duration::from_secs(24 * 60 * 60));
        self
    }

    pub(crate) const fn maps_ports(&self) -> bool {
        self.port_map
    }

    pub(crate) const fn named_router(&self) -> Option<IpAddr> {
        self.router
    }

    pub(crate) const fn lease_time(&self) -> Duration {
        self.lease_lifetime
    }

    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    pub(crate) const fn map_time(&self) -> Duration {
        self.map_timeout
    }

    /// Four sendings to each server: with a tenth of all packets lost each way, one server in a thousand is missed.
    const MAP_TIMEOUT: Duration = Duration::from_secs(3);

    const LEASE_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
}

impl Default for MappingConfig {
    fn default() -> Self {
        Self::new()
    }
}
