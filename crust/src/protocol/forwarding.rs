//! Which listeners' ports routers are asked to forward, and when they are asked again.
//!
//! ```text
//!            asked           forwarded
//! waiting ──────────► asking ──────────► held: the lease tells by itself where it leads, or that it leads nowhere now
//!    ▲                 │  │ needless
//!    └─ 5, 10 … 60 min ┘  └────────────► settled
//! ```
//!
//! Listeners at one address ask one at a time: what the first question finds out, which protocol works or that none does, serves the
//! others, so that a network without such a router sees a handful of packets and no more.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use transport::ListenEndpoint;

/// All listeners of a service.
#[derive(Debug, Default)]
pub(crate) struct Forwarding {
    places: Vec<(ListenEndpoint, State)>,
    /// What became of those at one address.
    groups: BTreeMap<IpAddr, Group>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until: Instant,
        /// It has been asked for before, in this network.
        asked: bool,
    },
    Asking,
    Held {
        external: Option<SocketAddr>,
    },
    /// No router is needed, or none may be asked.
    Settled,
}

#[derive(Debug, Default)]
struct Group {
    /// Questions in a row that no router did anything about.
    failures: u32,
}

/// What is new about where a listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is reached here from now on, and nowhere else.
    Mapped(SocketAddr),
    /// It is no longer reached here.
    Lost(SocketAddr),
}

impl Forwarding {
    /// The service listens at these places now. Gives those that are gone.
    pub(crate) fn set_places(&mut self, now: Instant, places: &[ListenEndpoint]) -> Vec<ListenEndpoint> {
        let gone = self.places.iter().map(|(place, _)| *place).filter(|place| !places.contains(place));
        let gone: Vec<_> = gone.collect();
        self.places.retain(|(place, _)| !gone.contains(place));
        for place in places {
            if self.places.len() < MAX_PLACES && self.state(*place).is_none() {
                self.places.push((*place, State::Waiting { until: now, asked: false }));
            }
        }
        let places = &self.places;
        self.groups.retain(|ip, _| places.iter().any(|(place, _)| place.addr().ip() == *ip));
        gone
    }

    /// The next listener to ask for, which then counts as being asked for.
    pub(crate) fn poll_ask(&mut self, now: Instant) -> Option<ListenEndpoint> {
        let due = |&(place, state): &(ListenEndpoint, State)| {
            matches!(state, State::Waiting { until, .. } if until <= now)
                && !self.is_asking(place.addr().ip())
        };
        let place = self.places.iter().find(|known| due(known))?.0;
        self.set(place, State::Asking);
        Some(place)
    }

    /// No router is needed for that one.
    pub(crate) fn handle_needless(&mut self, place: ListenEndpoint) {
        self.set(place, State::Settled);
    }

    /// A router forwards it, or its lease has news: where it leads now.
    pub(crate) fn handle_lease(
        &mut self,
        place: ListenEndpoint,
        leads: Option<SocketAddr>,
    ) -> Option<Change> {
        let external = leads.filter(|addr| is_announceable(*addr));
        let before = match self.state(place)? {
            State::Held { external } => external,
            _ => None,
        };
        self.set(place, State::Held { external });
        self.groups.entry(place.addr().ip()).or_default().failures = 0;
        match (before, external) {
            (before, Some(external)) if before != Some(external) => Some(Change::Mapped(external)),
            (Some(before), None) => Some(Change::Lost(before)),
            _ => None,
        }
    }

    /// None does. Tells whether that is news: it is not when the last question came to the same.
    pub(crate) fn handle_failure(&mut self, now: Instant, place: ListenEndpoint) -> bool {
        if self.state(place).is_none() {
            return false;
        }
        let ip = place.addr().ip();
        let others_are_held = self
            .places
            .iter()
            .any(|(other, state)| other.addr().ip() == ip && matches!(state, State::Held { .. }));
        let group = self.groups.entry(ip).or_default();
        let pause = (FIRST_PAUSE * (1 << group.failures.min(MAX_DOUBLINGS))).min(LONGEST_PAUSE);
        group.failures = group.failures.saturating_add(1);
        let is_news = group.failures == 1;
        let waits = State::Waiting { until: now + pause, asked: true };
        for (other, state) in &mut self.places {
            let is_one_of_them = other.addr().ip() == ip && matches!(state, State::Waiting { .. });
            if *other == place || (is_one_of_them && !others_are_held) {
                *state = waits;
            }
        }
        is_news
    }

    /// A lease is of no more use: it is asked for anew. Gives the address that is gone with it.
    pub(crate) fn handle_end(&mut self, now: Instant, place: ListenEndpoint) -> Option<SocketAddr> {
        let State::Held { external } = self.state(place)? else { return None };
        self.set(place, State::Waiting { until: now, asked: false });
        external
    }

    /// This host has come into another network: what failed there may work here.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        self.groups.clear();
        for (_, state) in &mut self.places {
            if !matches!(state, State::Held { .. }) {
                *state = State::Waiting { until: now, asked: false };
            }
        }
    }

    /// Somebody wants to know at once: those that wait are asked for now.
    pub(crate) fn handle_request(&mut self, now: Instant) {
        for (_, state) in &mut self.places {
            if matches!(state, State::Waiting { .. }) {
                *state = State::Waiting { until: now, asked: false };
            }
        }
    }

    /// Whether every listener has had an answer, or none at all.
    pub(crate) fn is_settled(&self) -> bool {
        let is_open = |state: State| matches!(state, State::Asking | State::Waiting { asked: false, .. });
        !self.places.iter().any(|(_, state)| is_open(*state))
    }

    /// When to ask again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.places.iter().filter(|(place, _)| !self.is_asking(place.addr().ip()));
        let due = waiting.filter_map(|(_, state)| match state {
            State::Waiting { until, .. } => Some(*until),
            _ => None,
        });
        due.min()
    }

    fn is_asking(&self, ip: IpAddr) -> bool {
        self.places.iter().any(|(place, state)| place.addr().ip() == ip && *state == State::Asking)
    }

    fn state(&self, place: ListenEndpoint) -> Option<State> {
        self.places.iter().find(|(known, _)| *known == place).map(|(_, state)| *state)
    }

    fn set(&mut self, place: ListenEndpoint, state: State) {
        if let Some((_, known)) = self.places.iter_mut().find(|(known, _)| *known == place) {
            *known = state;
        }
    }
}

/// Whether a peer can be told of it. A router, or who plays one, may say what it likes.
pub(crate) fn is_announceable(addr: SocketAddr) -> bool {
    let has_meaning = match addr.ip() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_link_local())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4_mapped().is_some())
        }
    };
    has_meaning && addr.port() != 0
}

/// A router that was switched on, or taught to forward ports, meanwhile.
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// A question costs a dozen packets on the local network.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
const MAX_DOUBLINGS: u32 = 8;
/// Listeners whose ports are forwarded: home routers have room for some dozens of ports of all hosts.
const MAX_PLACES: usize = 16;

#[cfg(test)]
mod tests;
