use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::client::server_at;
use super::{
    ClientEvent, MAX_LIFETIME, PortMapClient, PortMapFailure, PortMapMethod, PortMapRequest, PortMapping,
};
use crate::protocol::{Datagram, Machine, Seed, Transmit};

/// The life of one forwarded port: asks the router by PCP, then by NAT-PMP, then by UPnP, keeps the port open for as long
/// as it lives, and begins anew when it is lost.
///
/// UPnP is HTTP, which is no business of a machine of datagrams: the driver does what [`PortMapEvent::Upnp`] asks for, by
/// whatever library, and tells the outcome by [`handle_upnp`](Self::handle_upnp).
#[derive(Debug)]
pub struct PortMapper {
    router: Option<SocketAddr>,
    request: PortMapRequest,
    seed: Seed,
    attempts: u32,
    state: State,
    search: Search,
    /// What is left to try, and what has been refused so far.
    left: VecDeque<PortMapMethod>,
    refusals: Vec<PortMapFailure>,
    /// The mapping has been told of at least once, so that its loss is no reason to give up.
    had_one: bool,
    events: VecDeque<PortMapEvent>,
}

/// What a [`PortMapper`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMapEvent {
    /// The port is forwarded, or from another outside address than before.
    Mapped(PortMapping),
    /// The port is no longer forwarded. The mapper goes on trying.
    Lost(PortMapFailure),
    /// Nothing worked, and each attempt's reason. The mapper is at its end.
    Failed(Vec<PortMapFailure>),
    /// The driver is to do this.
    Upnp(UpnpTask),
    /// The port has been given back. The mapper is at its end.
    Closed,
}

/// A step of UPnP. There is never more than one under way, besides a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpnpTask {
    /// Find a router.
    Search,
    /// Have the router found forward a port, again if it does so already; any outside port serves if the wanted one is
    /// not free.
    Add {
        /// The outside port wanted.
        external_port: u16,
        /// How long the router is to keep it.
        lifetime: Duration,
    },
    /// End the forwarding.
    Remove {
        /// The outside port.
        external_port: u16,
    },
}

/// The outcome of an [`UpnpTask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpnpAnswer {
    /// A router was found.
    Found(IpAddr),
    /// None was, and why.
    NotFound(Cow<'static, str>),
    /// It forwards the port.
    Added {
        /// The outside address.
        external: SocketAddr,
        /// How long it keeps it; `None` for ever, which some routers insist on.
        lifetime: Option<Duration>,
    },
    /// It does not, and why.
    Refused(Cow<'static, str>),
    /// It was asked to end the forwarding, with whatever success.
    Removed,
}

#[derive(Debug)]
enum State {
    /// A router is asked by PCP or NAT-PMP, or forwards by it.
    Client(Box<PortMapClient>),
    /// UPnP is next, and its search is not over.
    Searching,
    /// A router was asked by UPnP.
    Adding,
    /// A router forwards by UPnP and is asked again then.
    Open {
        renew: Instant,
    },
    /// It is asked again.
    Renewing,
    /// All is lost; begins anew then.
    Resting {
        until: Instant,
    },
    /// The client gives the port back.
    ClosingClient(Box<PortMapClient>),
    /// The answer to a question of UPnP is awaited, to undo what it did.
    ClosingUpnp,
    Closed,
}

/// UPnP's search goes on beside the other protocols, since it is the slow one.
#[derive(Debug)]
enum Search {
    NotBegun(Instant),
    Running,
    Found(IpAddr, Option<PortMapping>),
    Failed(Cow<'static, str>),
}

impl PortMapper {
    /// Begins to ask at `now`: `router` by PCP and NAT-PMP, if it is known, and whatever UPnP finds, beginning with the
    /// method that is known to work, if one is.
    #[must_use]
    pub fn new(
        now: Instant,
        router: Option<IpAddr>,
        scope: u32,
        request: PortMapRequest,
        first: Option<PortMapMethod>,
        seed: Seed,
    ) -> Self {
        let mut mapper = Self {
            router: router.map(|ip| match ip {
                IpAddr::V4(ip) => server_at(SocketAddr::from((ip, 0))),
                IpAddr::V6(ip) => server_at(std::net::SocketAddrV6::new(ip, 0, 0, scope).into()),
            }),
            request,
            seed,
            attempts: 0,
            state: State::Closed,
            search: Search::NotBegun(now),
            left: VecDeque::new(),
            refusals: Vec::new(),
            had_one: false,
            events: VecDeque::new(),
        };
        mapper.begin(now, first);
        mapper
    }

    /// Tells the outcome of what [`PortMapEvent::Upnp`] asked for.
    pub fn handle_upnp(&mut self, now: Instant, answer: UpnpAnswer) {
        let is_searching = matches!(self.search, Search::Running);
        match (answer, &self.state) {
            // Of a search that was begun before the last loss.
            (UpnpAnswer::Found(_) | UpnpAnswer::NotFound(_), _) if !is_searching => {}
            (UpnpAnswer::Found(router), _) => {
                self.search = Search::Found(router, None);
                if matches!(self.state, State::Searching) {
                    self.add();
                }
            }
            (UpnpAnswer::NotFound(reason), _) => {
                self.search = Search::Failed(reason.clone());
                if matches!(self.state, State::Searching) {
                    self.refuse(now, PortMapFailure::NotFound { reason });
                }
            }
            (UpnpAnswer::Added { external, lifetime }, State::Adding | State::Renewing) => {
                self.keep(now, external, lifetime);
            }
            (UpnpAnswer::Added { external, .. }, State::ClosingUpnp) => {
                self.upnp(UpnpTask::Remove { external_port: external.port() });
            }
            (UpnpAnswer::Refused(reason), State::Adding | State::Renewing) => {
                let failure = self.upnp_refused(reason);
                if matches!(self.state, State::Renewing) {
                    self.lose(now, failure);
                } else {
                    self.refuse(now, failure);
                }
            }
            (UpnpAnswer::Refused(_) | UpnpAnswer::Removed, State::ClosingUpnp) => self.close(),
            _ => {}
        }
    }

    /// Gives the port back. [`PortMapEvent::Closed`] follows.
    pub fn release(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Client(mut client) | State::ClosingClient(mut client) => {
                client.release(now);
                self.state = State::ClosingClient(client);
                self.take_client_events(now);
            }
            // What is under way comes to an end first.
            State::Adding | State::Renewing | State::ClosingUpnp => self.state = State::ClosingUpnp,
            State::Open { .. } => {
                self.state = State::ClosingUpnp;
                if let Search::Found(_, Some(mapping)) = self.search {
                    self.upnp(UpnpTask::Remove { external_port: mapping.external.port() });
                }
            }
            State::Searching | State::Resting { .. } => self.close(),
            State::Closed => {}
        }
    }

    /// Has the router asked again within a second whether it still forwards the port, as after a change of the network.
    pub fn renew(&mut self, now: Instant) {
        match &mut self.state {
            State::Client(client) => client.renew_soon(now),
            State::Open { renew: due } | State::Resting { until: due } => *due = (*due).min(now + MIN_PAUSE),
            _ => {}
        }
    }

    fn begin(&mut self, now: Instant, first: Option<PortMapMethod>) {
        self.attempts += 1;
        self.refusals.clear();
        self.search = Search::NotBegun(now + SEARCH_AFTER);
        let usual = [PortMapMethod::Pcp, PortMapMethod::NatPmp, PortMapMethod::Upnp];
        self.left =
            first.into_iter().chain(usual.into_iter().filter(|usual| Some(*usual) != first)).collect();
        self.next(now);
    }

    fn next(&mut self, now: Instant) {
        let Some(method) = self.left.pop_front() else { return self.give_up(now) };
        if method == PortMapMethod::Upnp {
            return match &self.search {
                Search::NotBegun(_) => {
                    self.search();
                    self.state = State::Searching;
                }
                Search::Running => self.state = State::Searching,
                Search::Found(..) => self.add(),
                Search::Failed(reason) => {
                    let reason = reason.clone();
                    self.refuse(now, PortMapFailure::NotFound { reason });
                }
            };
        }
        let Some(router) = self.router else {
            if !self.refusals.contains(&PortMapFailure::NoRouter) {
                self.refusals.push(PortMapFailure::NoRouter);
            }
            return self.next(now);
        };
        if method == PortMapMethod::NatPmp && self.request.local.is_ipv6() {
            return self.next(now);
        }
        let seed = self.seed.derive(&format!("{method} {}", self.attempts));
        self.state = State::Client(Box::new(PortMapClient::new(now, method, router, self.request, seed)));
    }

    fn refuse(&mut self, now: Instant, failure: PortMapFailure) {
        self.refusals.push(failure);
        self.next(now);
    }

    fn give_up(&mut self, now: Instant) {
        if self.had_one {
            let doubled = FIRST_REST * 2_u32.saturating_pow(self.attempts.min(MAX_DOUBLINGS));
            self.state = State::Resting { until: now + doubled };
        } else {
            self.state = State::Closed;
            self.events.push_back(PortMapEvent::Failed(std::mem::take(&mut self.refusals)));
        }
    }

    fn search(&mut self) {
        self.search = Search::Running;
        self.upnp(UpnpTask::Search);
    }

    fn add(&mut self) {
        let known = match self.search {
            Search::Found(_, Some(mapping)) => mapping.external.port(),
            _ => self.request.local.port(),
        };
        self.state = match self.state {
            State::Open { .. } => State::Renewing,
            _ => State::Adding,
        };
        self.upnp(UpnpTask::Add { external_port: known, lifetime: self.request.lifetime });
    }

    fn upnp(&mut self, task: UpnpTask) {
        self.events.push_back(PortMapEvent::Upnp(task));
    }

    fn keep(&mut self, now: Instant, external: SocketAddr, lifetime: Option<Duration>) {
        let Search::Found(router, known) = &mut self.search else { return };
        let (router, known_external) = (*router, known.map(|mapping| mapping.external));
        if external.port() == 0 || external.ip().is_unspecified() {
            let failure = self.upnp_refused("it gives no address");
            return if known_external.is_some() {
                self.lose(now, failure);
            } else {
                self.refuse(now, failure);
            };
        }
        let lifetime = lifetime.map(|lifetime| lifetime.min(MAX_LIFETIME));
        let mapping = PortMapping { external, method: PortMapMethod::Upnp, router, lifetime };
        self.search = Search::Found(router, Some(mapping));
        let renew = lifetime.map_or(UPNP_CHECK, |lifetime| (lifetime / 2).clamp(MIN_PAUSE, UPNP_CHECK));
        self.state = State::Open { renew: now + renew };
        if known_external != Some(external) {
            self.tell(mapping);
        }
    }

    fn tell(&mut self, mapping: PortMapping) {
        self.had_one = true;
        self.attempts = 0;
        self.events.push_back(PortMapEvent::Mapped(mapping));
    }

    fn lose(&mut self, now: Instant, failure: PortMapFailure) {
        self.events.push_back(PortMapEvent::Lost(failure));
        self.state = State::Resting { until: now + MIN_PAUSE };
    }

    fn upnp_refused(&self, reason: impl Into<Cow<'static, str>>) -> PortMapFailure {
        let router = match self.search {
            Search::Found(router, _) => router,
            _ => self.request.local.ip(),
        };
        PortMapFailure::Refused { method: PortMapMethod::Upnp, router, reason: reason.into() }
    }

    fn take_client_events(&mut self, now: Instant) {
        while let State::Client(client) | State::ClosingClient(client) = &mut self.state {
            let Some(event) = client.poll_event() else { return };
            match event {
                ClientEvent::Mapped(mapping) => self.tell(mapping),
                ClientEvent::Failed(failure) => self.refuse(now, failure),
                ClientEvent::Lost(failure) => self.lose(now, failure),
                ClientEvent::Closed => self.close(),
            }
        }
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.events.push_back(PortMapEvent::Closed);
    }

    /// UPnP's search begins while the others are still silent.
    const fn search_due(&self) -> Option<Instant> {
        match (&self.search, &self.state) {
            (Search::NotBegun(due), State::Client(client)) if client.is_opening() => Some(*due),
            _ => None,
        }
    }
}

impl Machine for PortMapper {
    type Event = PortMapEvent;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        if let State::Client(client) | State::ClosingClient(client) = &mut self.state {
            client.handle_datagram(now, datagram);
        }
        self.take_client_events(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.search_due().is_some_and(|due| now >= due) {
            self.search();
        }
        match &mut self.state {
            State::Client(client) | State::ClosingClient(client) => client.handle_timeout(now),
            State::Open { renew } if now >= *renew => self.add(),
            State::Resting { until } if now >= *until => self.begin(now, None),
            _ => {}
        }
        self.take_client_events(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        match &mut self.state {
            State::Client(client) | State::ClosingClient(client) => client.poll_transmit(),
            _ => None,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = match &self.state {
            State::Client(client) | State::ClosingClient(client) => client.poll_timeout(),
            State::Open { renew: due } | State::Resting { until: due } => Some(*due),
            State::Searching | State::Adding | State::Renewing | State::ClosingUpnp | State::Closed => None,
        };
        due.into_iter().chain(self.search_due()).min()
    }

    fn poll_event(&mut self) -> Option<PortMapEvent> {
        self.events.pop_front()
    }
}

/// A router that answers to PCP has done so by then; all others are asked by UPnP meanwhile, which only reads.
const SEARCH_AFTER: Duration = Duration::from_millis(250);

/// UPnP tells nobody that a router has restarted, so that it is asked again this often.
const UPNP_CHECK: Duration = Duration::from_secs(5 * 60);

/// The least time between two requests, whatever lifetimes a router gives.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// After a loss that a further attempt did not mend, the pause before the next, doubled at each up to some minutes.
const FIRST_REST: Duration = Duration::from_secs(5);
const MAX_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests;
