use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::now;
use super::entropy;
use super::interfaces::{self, DefaultRouter};
use super::interrupt::Interrupter;
use super::lease_slot::{News, Slot, Watcher};
use super::leases::{Leases, system};
use super::run::RunError;
use super::upnp::Search;
use crate::protocol::port_map::{
    PortMapFailure, PortMapMethod, PortMapRequest, PortMapper, PortMapping, PortProtocol,
};
use crate::protocol::{MapFailure, is_global};
use crate::{MappingConfig, PortLease};

/// Asks routers for ports, and remembers which protocol they answered to.
#[derive(Default)]
pub(crate) struct Routers {
    leases: Leases,
    memory: Arc<Mutex<Vec<Memory>>>,
}

/// What is known of the router that is asked for one address of ours.
struct Memory {
    local: IpAddr,
    outcome: Outcome,
}

#[derive(Clone)]
enum Outcome {
    Works(PortMapMethod),
    Fails { until: Instant, failures: Vec<PortMapFailure> },
}

/// The port that a router forwards, if one does.
pub(crate) type Forwarded = Option<(PortMapping, PortLease)>;

/// A question under way, or why there is none.
pub(crate) struct Asking {
    state: Result<Pending, Vec<PortMapFailure>>,
    local: SocketAddr,
    memory: Arc<Mutex<Vec<Memory>>>,
}

/// A question whose outcome nobody has taken is taken back.
struct Pending {
    leases: Leases,
    number: usize,
    slot: Arc<Slot>,
    is_kept: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_kept && !self.slot.is_over() {
            self.leases.release(self.number);
        }
    }
}

impl Routers {
    /// Begins to ask for the port of a socket; `None` where none is needed or wanted. Returns at once.
    pub(crate) fn ask(
        &self,
        bound: SocketAddr,
        protocol: PortProtocol,
        config: &MappingConfig,
        known: Vec<igd::Gateway>,
        watcher: Option<Watcher>,
    ) -> Option<Asking> {
        if !config.maps_ports() {
            return None;
        }
        let router = match config.named_router() {
            Some(ip) if ip.is_ipv4() == bound.is_ipv4() => Some(DefaultRouter { ip, scope: 0 }),
            Some(_) => None,
            None => interfaces::default_router(bound.is_ipv4()),
        };
        let local = local_ip(bound, router)?;
        // A loopback address is nobody's business unless the router is there as well, and a global one of IPv4 needs no
        // router's help.
        let needless = (local.is_loopback() && config.named_router().is_none() && known.is_empty())
            || (local.is_ipv4() && is_global(local));
        if needless {
            return None;
        }
        let request = PortMapRequest {
            protocol,
            local: SocketAddr::new(local, bound.port()),
            lifetime: config.lease_time(),
        };
        let search = Search { known, router: config.named_router() };
        let state = self.start(request, router, search, watcher);
        Some(Asking { state, local: request.local, memory: Arc::clone(&self.memory) })
    }

    fn start(
        &self,
        request: PortMapRequest,
        router: Option<DefaultRouter>,
        search: Search,
        watcher: Option<Watcher>,
    ) -> Result<Pending, Vec<PortMapFailure>> {
        let time = now();
        let first = match recall(&self.memory, request.local.ip()) {
            Some(Outcome::Works(method)) => Some(method),
            Some(Outcome::Fails { until, failures }) if time < until && search.known.is_empty() => {
                return Err(failures);
            }
            _ => None,
        };
        let scope = router.map_or(0, |router| router.scope);
        let ip = router.map(|router| router.ip);
        let mapper = PortMapper::new(time, ip, scope, request, first, entropy::seed());
        match self.leases.start(mapper, request, search, watcher) {
            Ok((number, slot)) => Ok(Pending { leases: self.leases.clone(), number, slot, is_kept: false }),
            Err(error) => Err(vec![system(&error)]),
        }
    }
}

impl Routers {
    /// Forgets what routers do not do.
    pub(crate) fn forget_failures(&self) {
        lock(&self.memory).retain(|known| matches!(known.outcome, Outcome::Works(_)));
    }
}

impl Asking {
    /// Waits for the outcome until `deadline`. What comes later is given back.
    pub(crate) fn finish(
        self,
        deadline: Instant,
        interrupter: &Interrupter,
    ) -> Result<(Forwarded, Vec<MapFailure>), RunError> {
        let news = match &self.state {
            Ok(pending) => match pending.slot.wait_for_outcome(deadline, interrupter) {
                Ok(news) => news,
                Err(RunError::TimedOut) => News::Asking,
                Err(error) => return Err(error),
            },
            Err(known) => News::Failed(known.clone()),
        };
        Ok(match self.take(news) {
            Ok(forwarded) => (Some(forwarded), Vec::new()),
            Err(failures) => (None, failures),
        })
    }

    /// The same if there is an outcome already; else the question, which goes on.
    pub(crate) fn poll(self) -> Result<Result<PortLease, Vec<MapFailure>>, Self> {
        let news = match &self.state {
            Ok(pending) => pending.slot.news(),
            Err(known) => News::Failed(known.clone()),
        };
        if matches!(news, News::Asking) { Err(self) } else { Ok(self.take(news).map(|(_, lease)| lease)) }
    }

    /// What news come to for whoever asked.
    fn take(self, news: News) -> Result<(PortMapping, PortLease), Vec<MapFailure>> {
        let failed =
            |failures: Vec<PortMapFailure>| Err(failures.into_iter().map(MapFailure::PortMap).collect());
        match (news, self.state) {
            (_, Err(known)) => failed(known),
            (News::Open(mapping), Ok(mut pending)) => {
                remember(&self.memory, self.local.ip(), Outcome::Works(mapping.method));
                pending.is_kept = true;
                let slot = Arc::clone(&pending.slot);
                let leases = pending.leases.clone();
                Ok((mapping, PortLease::new(leases, pending.number, slot, mapping, self.local)))
            }
            (News::Failed(reasons), Ok(_)) => {
                let until = now() + FAILURE_MEMORY;
                let outcome = Outcome::Fails { until, failures: reasons.clone() };
                remember(&self.memory, self.local.ip(), outcome);
                failed(reasons)
            }
            (_, Ok(_)) => failed(vec![PortMapFailure::Late]),
        }
    }
}

/// The address that the router is to forward to.
fn local_ip(bound: SocketAddr, router: Option<DefaultRouter>) -> Option<IpAddr> {
    if !bound.ip().is_unspecified() {
        return Some(bound.ip());
    }
    let remote = match (router, bound) {
        (Some(DefaultRouter { ip: IpAddr::V4(ip), .. }), _) => SocketAddr::from((ip, 1)),
        // Whatever the system would send to the internet from; documentation's addresses are as good as any.
        (_, SocketAddr::V4(_)) => SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1)),
        (_, SocketAddr::V6(_)) => SocketAddr::from((Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1), 1)),
    };
    let local = interfaces::local_towards(remote).filter(|local| !local.is_unspecified());
    // Without a default route there may still be a router that UPnP finds.
    local.or_else(|| {
        let usable = |ip: &IpAddr| ip.is_ipv4() == bound.is_ipv4() && !ip.is_loopback();
        interfaces::all().ok()?.into_iter().map(|interface| interface.ip).find(usable)
    })
}

fn recall(memory: &Mutex<Vec<Memory>>, local: IpAddr) -> Option<Outcome> {
    lock(memory).iter().find(|known| known.local == local).map(|known| known.outcome.clone())
}

fn remember(memory: &Mutex<Vec<Memory>>, local: IpAddr, outcome: Outcome) {
    let mut memory = lock(memory);
    memory.retain(|known| known.local != local);
    if memory.len() >= MAX_MEMORY {
        memory.remove(0);
    }
    memory.push(Memory { local, outcome });
}

fn lock(memory: &Mutex<Vec<Memory>>) -> MutexGuard<'_, Vec<Memory>> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a router that did nothing for us is not asked again: someone who maps many sockets need not wait each time.
const FAILURE_MEMORY: Duration = Duration::from_secs(30);

/// Addresses of this host that are remembered.
const MAX_MEMORY: usize = 16;
