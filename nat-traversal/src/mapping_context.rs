use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::error::ContextError;
use crate::io::interrupt::Interrupter;
use crate::protocol::{MappedSocketAddr, Mapper};
use crate::{MappingConfig, io};

/// What sockets are mapped with: the servers to ask, and a way to end the calls that use it.
///
/// Share it between threads by reference or in an `Arc`. It has no thread and no socket of its own, but for the thread
/// `nat-io` while relays are held.
#[derive(Debug)]
pub struct MappingContext {
    config: MappingConfig,
    servers: Mutex<Vec<HolePunchServerAddr>>,
    interrupter: Interrupter,
    #[cfg(feature = "turn")]
    relays: std::sync::Arc<io::relays::Relays>,
}

/// Something outside that helps to learn addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolePunchServerAddr {
    /// A STUN server, such as a [`HolePunchServer`](crate::HolePunchServer).
    Stun(SocketAddr),
    /// A TURN server, which relays for us.
    #[cfg(feature = "turn")]
    Turn(crate::TurnServer),
}

impl MappingContext {
    /// Makes a context. Returns at once.
    ///
    /// # Errors
    ///
    /// If the system does not tell its network interfaces.
    pub fn new(config: MappingConfig) -> Result<Self, ContextError> {
        io::interfaces::check().map_err(ContextError::Interfaces)?;
        let servers = config.servers().iter().copied().map(HolePunchServerAddr::Stun).collect();
        Ok(Self {
            config,
            servers: Mutex::new(servers),
            interrupter: Interrupter::default(),
            #[cfg(feature = "turn")]
            relays: std::sync::Arc::default(),
        })
    }

    /// Adds servers for all later calls.
    pub fn add_servers(&self, servers: impl IntoIterator<Item = HolePunchServerAddr>) {
        let mut known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        for server in servers {
            if known.len() < MAX_SERVERS && !known.contains(&server) {
                known.push(server);
            }
        }
    }

    /// What ends the calls that use this context.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// For programs that share a socket between this and another protocol: a machine that asks this context's servers for
    /// the addresses of a socket bound to `local`, as [`MappedUdpSocket::map`](crate::MappedUdpSocket::map) does with a
    /// socket of its own. Begins now; it ends by itself after
    /// [`MappingConfig::map_timeout`](crate::MappingConfig::map_timeout) at the latest, at once if there are no servers.
    #[must_use]
    pub fn mapper(&self, local: SocketAddr) -> Mapper {
        let now = io::clock::now();
        Mapper::new(now, &self.stun_servers(local), io::entropy::seed(), now + self.config.map_time())
    }

    /// The addresses of this host at which a socket bound to `local` is reached; loopback only if it is bound to that.
    ///
    /// # Errors
    ///
    /// If the system does not tell its network interfaces.
    pub fn host_endpoints(&self, local: SocketAddr) -> std::io::Result<Vec<MappedSocketAddr>> {
        let hosts = io::interfaces::host_addresses(local)?;
        Ok(hosts.into_iter().map(MappedSocketAddr::host).collect())
    }

    /// The STUN servers of one address family.
    pub(crate) fn stun_servers(&self, like: SocketAddr) -> Vec<SocketAddr> {
        let known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = known.iter().filter_map(|server| match server {
            HolePunchServerAddr::Stun(address) => Some(*address),
            #[cfg(feature = "turn")]
            HolePunchServerAddr::Turn(_) => None,
        });
        addresses.filter(|address| address.is_ipv4() == like.is_ipv4()).collect()
    }

    /// The TURN servers that the context knows.
    #[cfg(feature = "turn")]
    #[must_use]
    pub fn turn_servers(&self) -> Vec<crate::TurnServer> {
        let known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let relays = known.iter().filter_map(|server| match server {
            HolePunchServerAddr::Turn(server) => Some(server.clone()),
            HolePunchServerAddr::Stun(_) => None,
        });
        relays.collect()
    }

    #[cfg(feature = "turn")]
    pub(crate) const fn relays(&self) -> &std::sync::Arc<io::relays::Relays> {
        &self.relays
    }

    pub(crate) const fn config(&self) -> &MappingConfig {
        &self.config
    }

    pub(crate) const fn waits(&self) -> &Interrupter {
        &self.interrupter
    }
}

/// Servers remembered. A call asks at most eight of them.
const MAX_SERVERS: usize = 64;
