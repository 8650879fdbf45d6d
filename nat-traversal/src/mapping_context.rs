use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{ContextError, MapError};
use crate::io::ask_router::{Asking, Routers};
use crate::io::interrupt::Interrupter;
use crate::io::lease_slot::Watcher;
use crate::io::run::RunError;
use crate::protocol::nat_profile::BindingLifetime;
use crate::protocol::port_map::{PortMapFailure, PortProtocol};
use crate::protocol::{MapFailure, MappedSocketAddr, Mapper, NatProfile};
use crate::{MappingConfig, PendingLease, PortLease, io};

/// What sockets are mapped with: the servers to ask, and a way to end the calls that use it.
///
/// Share it between threads by reference or in an `Arc`. One thread for the whole process, named `nat-io`, runs while any context has
/// leases of ports or relays, or there are servers, and one named `nat-slow` while a router is asked by UPnP, whose HTTP cannot be interrupted: it is waited for by
/// nobody, and outlives a context that is dropped meanwhile by at most a few answers of ten seconds.
pub struct MappingContext {
    config: MappingConfig,
    servers: Mutex<Vec<HolePunchServerAddr>>,
    routers: Routers,
    /// How many routers away our outermost NAT is, if it was measured.
    nat_distance: Mutex<Option<u8>>,
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
    /// A router that speaks UPnP, found by the crate [`igd`]; asked instead of one that we would search for.
    IgdGateway(igd::Gateway),
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
            routers: Routers::default(),
            nat_distance: Mutex::new(None),
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

    /// Another context with the servers and settings of this one as they are now, that can be interrupted by itself: for calls that may
    /// have to end before the rest. It ends with this one. Asks routers anew.
    #[must_use]
    pub fn part(&self) -> Self {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self {
            config: self.config.clone(),
            servers: Mutex::new(servers),
            routers: Routers::default(),
            nat_distance: Mutex::new(*self.nat_distance.lock().unwrap_or_else(PoisonError::into_inner)),
            interrupter: self.interrupter.part(),
            #[cfg(feature = "turn")]
            relays: self.relays.clone(),
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

    /// Measures what the NATs and firewalls before this host do, over IPv4: with one server that has two addresses
    /// ([RFC 5780](https://www.rfc-editor.org/rfc/rfc5780)) all that [`NatProfile`] has but lifetimes, with two ordinary
    /// ones when ports change and how. Whether UDP is blocked is known if a server answers over TCP. Blocks for some round
    /// trips and a second for each thing that does not happen, 3 s at most; without servers it returns at once.
    ///
    /// ```
    /// use nat_traversal::{HolePunchServer, MappingConfig, MappingContext};
    ///
    /// let server = HolePunchServer::bind("127.0.0.1:0".parse()?)?;
    /// let config = MappingConfig::new().server(server.addresses()[0].addr);
    /// let profile = MappingContext::new(config)?.nat_profile()?;
    /// println!("UDP: {:?}, mapping: {:?}, ports: {:?}", profile.udp, profile.mapping, profile.ports);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If no socket can be used or someone [interrupts](Interrupter). That servers do not answer is no error.
    pub fn nat_profile(&self) -> Result<NatProfile, MapError> {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let profile =
            io::profile::measure(any, &self.stun_servers(any), &self.interrupter).map_err(map_error)?;
        *self.nat_distance.lock().unwrap_or_else(PoisonError::into_inner) = profile.nat_distance;
        Ok(profile)
    }

    /// How many routers a packet has to pass to open our outermost NAT and die behind it, once
    /// [`nat_profile`](Self::nat_profile) has measured that: for [`UdpPuncher::opener_hops`](crate::protocol::UdpPuncher::opener_hops).
    /// Holes that are punched with this context make use of it.
    #[must_use]
    pub fn opener_hops(&self) -> Option<u8> {
        self.nat_distance.lock().unwrap_or_else(PoisonError::into_inner).map(|routers| routers + 1)
    }

    /// Measures how long an outside port lives without traffic, over IPv4, up to `most`: a second at least and
    /// [`LifetimeProber::LONGEST`](crate::protocol::nat_profile::LifetimeProber::LONGEST) at most are taken. It is found to a
    /// 24th of `most`, with 26 sockets. Blocks for `most` and five seconds at the longest, less if ports close sooner, some
    /// seconds for each server that cannot help: it must send answers to another port
    /// ([RFC 5780, section 7.5](https://www.rfc-editor.org/rfc/rfc5780#section-7.5)), as a
    /// [`HolePunchServer`](crate::HolePunchServer) does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use nat_traversal::{HolePunchServer, MappingConfig, MappingContext};
    ///
    /// let server = HolePunchServer::bind("127.0.0.1:0".parse()?)?;
    /// let config = MappingConfig::new().server(server.addresses()[0].addr);
    /// let lifetime = MappingContext::new(config)?.binding_lifetime(Duration::from_secs(1))?;
    /// assert_eq!(lifetime.at_least(), Some(Duration::from_secs(1)), "no NAT forgets ports of this host");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If no socket can be used or someone [interrupts](Interrupter). That servers do not help is no error.
    pub fn binding_lifetime(&self, most: Duration) -> Result<BindingLifetime, MapError> {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        io::profile::measure_lifetime(any, &self.stun_servers(any), most, &self.interrupter)
            .map_err(map_error)
    }

    /// For programs that share a socket between this and another protocol: has a router forward the port of a socket bound
    /// to `local`, as [`MappedUdpSocket::map`](crate::MappedUdpSocket::map) does with a socket of its own. `None` where no
    /// router is needed, as with loopback or global addresses of IPv4, or asked, by [`MappingConfig::port_map`].
    ///
    /// Blocks until a router has answered, at most until `deadline`; about two seconds if none does.
    ///
    /// # Errors
    ///
    /// What each way of asking came to.
    pub fn map_port(
        &self,
        local: SocketAddr,
        protocol: PortProtocol,
        deadline: Instant,
    ) -> Result<Option<PortLease>, Vec<MapFailure>> {
        let Some(asking) = self.ask_router(local, protocol, None) else { return Ok(None) };
        match asking.finish(deadline, self.waits()) {
            Ok((Some((_, lease)), _)) => Ok(Some(lease)),
            Ok((None, failures)) => Err(failures),
            Err(error) => Err(vec![MapFailure::PortMap(PortMapFailure::System { reason: error.reason() })]),
        }
    }

    /// Begins the same, and returns at once. `changed` is called, on a thread that must not be held up, whenever there may be news:
    /// of the question, and of the lease for as long as it is held. Some routers take ten seconds to answer.
    ///
    /// ```no_run
    /// use std::{net::UdpSocket, sync::mpsc};
    /// use nat_traversal::{MappingConfig, MappingContext, PortProtocol};
    ///
    /// let context = MappingContext::new(MappingConfig::new())?;
    /// let local = UdpSocket::bind("0.0.0.0:0")?.local_addr()?;
    /// let (tell, news) = mpsc::channel();
    /// let changed = move || tell.send(()).unwrap_or_default();
    /// if let Some(mut pending) = context.begin_map_port(local, PortProtocol::Udp, changed) {
    ///     // …until there is time to look:
    ///     news.recv()?;
    ///     match pending.poll() {
    ///         Some(Ok(lease)) => println!("reached at {:?}", lease.external()),
    ///         Some(Err(failures)) => println!("no router forwards the port: {failures:?}"),
    ///         None => println!("no router has answered yet"),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin_map_port(
        &self,
        local: SocketAddr,
        protocol: PortProtocol,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Option<PendingLease> {
        self.ask_router(local, protocol, Some(Watcher(Box::new(changed)))).map(PendingLease::new)
    }

    /// Has routers that did nothing for us asked again by the next call, which otherwise happens half a minute later at the earliest:
    /// for whoever knows that the network has changed.
    pub fn network_changed(&self) {
        self.routers.forget_failures();
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
            HolePunchServerAddr::IgdGateway(_) => None,
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
            _ => None,
        });
        relays.collect()
    }

    #[cfg(feature = "turn")]
    pub(crate) const fn relays(&self) -> &std::sync::Arc<io::relays::Relays> {
        &self.relays
    }

    /// Begins to ask routers for the port of a socket.
    pub(crate) fn ask_router(
        &self,
        bound: SocketAddr,
        protocol: PortProtocol,
        watcher: Option<Watcher>,
    ) -> Option<Asking> {
        let known = {
            let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            let gateways = servers.iter().filter_map(|server| match server {
                HolePunchServerAddr::IgdGateway(gateway) => Some(gateway.clone()),
                _ => None,
            });
            gateways.collect()
        };
        self.routers.ask(bound, protocol, &self.config, known, watcher)
    }

    pub(crate) const fn config(&self) -> &MappingConfig {
        &self.config
    }

    pub(crate) const fn waits(&self) -> &Interrupter {
        &self.interrupter
    }
}

fn map_error(error: RunError) -> MapError {
    match error {
        RunError::Interrupted => MapError::Interrupted,
        RunError::TimedOut => MapError::Socket(std::io::ErrorKind::TimedOut.into()),
        RunError::Io(error) => MapError::Socket(error),
    }
}

impl std::fmt::Debug for MappingContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappingContext")
            .field("config", &self.config)
            .field("servers", &self.servers)
            .field("interrupter", &self.interrupter)
            .finish_non_exhaustive()
    }
}

/// Servers remembered. A call asks at most eight of them.
const MAX_SERVERS: usize = 64;
