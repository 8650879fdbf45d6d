use std::net::SocketAddr;
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
}

impl MappingConfig {
    /// No servers, and the defaults below.
    #[must_use]
    pub const fn new() -> Self {
        Self { servers: Vec::new(), map_timeout: Self::MAP_TIMEOUT }
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

    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    pub(crate) const fn map_time(&self) -> Duration {
        self.map_timeout
    }

    /// Four sendings to each server: with a tenth of all packets lost each way, one server in a thousand is missed.
    const MAP_TIMEOUT: Duration = Duration::from_secs(3);
}

impl Default for MappingConfig {
    fn default() -> Self {
        Self::new()
    }
}
