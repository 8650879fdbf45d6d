use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::ServerError;
use crate::hole_punch_server::bind_both;
use crate::io::relay_host::Relaying;
use crate::io::{clock, interfaces, worker};
use crate::protocol::turn::{RelayRules, RelaySecret, RelayServer, RelayStats, TargetPolicy};

/// A TURN server on this host, over UDP and TCP at one port: lends ports of one address to who has credentials of its secret,
/// and to nobody else.
///
/// It serves on the thread `nat-io`, which all servers, relays and leases of a process share, until it is dropped. What it
/// lends to whom, and whom it lets reach which peers, is a matter of [`RelayRules`]; a peer at the host itself is reached only
/// if it is an address lent by this server.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use nat_traversal::protocol::turn::{RelayRules, RelaySecret, TargetPolicy};
/// use nat_traversal::{RelayHost, TurnServer};
///
/// let secret = RelaySecret::new([7; 32]); // 32 random bytes
/// let loopback = TargetPolicy::strict().allow(["127.0.0.0/8".parse()?]); // for this example alone
/// let rules = RelayRules::new("127.0.0.1".parse()?).targets(loopback);
/// let host = RelayHost::bind("127.0.0.1:0".parse()?, secret.clone(), rules)?;
///
/// let until = SystemTime::now() + Duration::from_secs(3600);
/// let until = until.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
/// let server: TurnServer = format!("turn:{}", host.addr()).parse()?;
/// let server = server.with(&secret.credentials(until, "someone"));
/// # let _ = server;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RelayHost {
    addr: SocketAddr,
    stats: Arc<Mutex<RelayStats>>,
    task: worker::Handle,
}

impl RelayHost {
    /// Serves at this address; port 0 chooses one that is free for UDP and TCP. Returns at once.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound or no thread started.
    pub fn bind(address: SocketAddr, secret: RelaySecret, rules: RelayRules) -> Result<Self, ServerError> {
        let (udp, listener) = bind_both(address)?;
        let addr = udp.local_addr().map_err(ServerError::Start)?;
        let known_as = rules.relays_at();
        let here = interfaces::host_addresses(SocketAddr::new(unspecified(addr.ip()), 0));
        let here = here.map_err(ServerError::Start)?.into_iter().map(|host| host.ip());
        let own = here.chain([known_as, addr.ip()]);
        let policy: TargetPolicy = rules.policy().clone().own(own);
        let rules = rules.targets(policy);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let server = RelayServer::new(clock::now(), unix, secret, rules);
        let stats = Arc::new(Mutex::new(RelayStats::default()));
        let told = Arc::clone(&stats);
        let task = worker::add(|sources| Relaying::new(sources, server, udp, listener, told, known_as));
        Ok(Self { addr, stats, task: task.map_err(ServerError::Start)? })
    }

    /// Where clients ask, over UDP and TCP.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What has been counted so far.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RelayHost {
    fn drop(&mut self) {
        self.task.stop();
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
