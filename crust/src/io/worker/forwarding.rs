//! Has routers forward the ports of the listeners.

use std::{net::IpAddr, time::Instant};

use nat_traversal::{MapFailure, PendingLease, PortLease, PortProtocol};
use transport::{ListenEndpoint, Scheme};

use super::Turning;
use crate::{
    event::ServiceEvent,
    protocol::forwarding::{Change, Forwarding},
    shared::Shared,
};

/// What is being asked for, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Forwarder {
    plan: Forwarding,
    pending: Vec<(ListenEndpoint, PendingLease)>,
    /// Up to which wish of others routers are being asked.
    serving: u64,
    served: u64,
}

impl Forwarder {
    /// Takes in what has happened, and asks for what is due. Does not block.
    fn turn(&mut self, now: Instant, shared: &Shared) {
        if shared.forwarded.take_news() {
            self.take_wishes(now, shared);
            self.take_answers(now, shared);
            self.look_at_leases(now, shared);
        }
        while let Some(place) = self.plan.poll_ask(now) {
            self.ask(now, place, shared);
        }
        if self.served < self.serving && self.plan.is_settled() {
            self.served = self.serving;
            shared.forwarded.settle(self.served);
        }
    }

    fn take_wishes(&mut self, now: Instant, shared: &Shared) {
        for gone in self.plan.set_places(now, &shared.listeners.local_endpoints()) {
            self.pending.retain(|(place, _)| *place != gone);
            shared.forwarded.give_back(&gone);
        }
        let wanted = shared.forwarded.wanted();
        if wanted > self.serving {
            self.serving = wanted;
            self.plan.handle_request(now);
        }
    }

    fn take_answers(&mut self, now: Instant, shared: &Shared) {
        let mut answers = Vec::new();
        self.pending.retain_mut(|(place, pending)| match pending.poll() {
            Some(answer) => {
                answers.push((*place, answer));
                false
            }
            None => true,
        });
        for (place, answer) in answers {
            match answer {
                Ok(lease) => shared.forwarded.keep(place, lease),
                Err(failures) => self.refused(now, place, &failures, shared),
            }
        }
    }

    fn refused(&mut self, now: Instant, place: ListenEndpoint, failures: &[MapFailure], shared: &Shared) {
        let text = |failure: &MapFailure| match failure {
            MapFailure::PortMap(failure) => crate::error_chain(failure),
            other => crate::error_chain(other),
        };
        let reason = failures.iter().map(text).collect::<Vec<_>>().join("; ");
        shared.forwarded.failed(Some(reason.clone()));
        if self.plan.handle_failure(now, place) {
            shared.events.tell(ServiceEvent::PortMapFailed { place, reason });
        }
    }

    /// A lease tells by itself where it leads, and whether it is lost.
    fn look_at_leases(&mut self, now: Instant, shared: &Shared) {
        for place in shared.forwarded.places() {
            let looked = shared.forwarded.with_lease(&place, |lease| {
                let (external, trouble) = (lease.external(), lease.trouble());
                (external, trouble, lease.router(), lease.method())
            });
            let Some((external, trouble, router, method)) = looked else { continue };
            let reason =
                trouble.as_ref().map_or_else(|| "it has ended".to_owned(), |it| crate::error_chain(it));
            match self.plan.handle_lease(place, external) {
                Some(Change::Mapped(external)) => {
                    shared.events.tell(ServiceEvent::PortMapped { place, external, router, method });
                }
                Some(Change::Lost(external)) => {
                    shared.events.tell(ServiceEvent::PortMapLost { place, external, reason });
                }
                None => {}
            }
            // One that nobody mends any more.
            if external.is_none() && trouble.is_none() {
                shared.forwarded.give_back(&place);
                self.plan.handle_failure(now, place);
            }
        }
    }

    fn ask(&mut self, now: Instant, place: ListenEndpoint, shared: &Shared) {
        let news = shared.forwarded.nudge();
        let protocol = protocol(place);
        let begun = shared.context.begin_map_port(place.addr(), protocol, move || news.nudge());
        let Some(mut pending) = begun else { return self.plan.handle_needless(place) };
        match pending.poll() {
            None => self.pending.push((place, pending)),
            Some(Ok(lease)) => {
                shared.forwarded.keep(place, lease);
                shared.forwarded.nudge().nudge();
            }
            Some(Err(failures)) => self.refused(now, place, &failures, shared),
        }
    }

    /// Another network: what is forwarded to addresses that this host still has is asked for again, the rest anew. Gives those that are
    /// nobody's listeners, which were asked for by other means.
    fn network_changed(
        &mut self,
        now: Instant,
        addresses: &[IpAddr],
        shared: &Shared,
    ) -> Vec<ListenEndpoint> {
        shared.context.network_changed();
        shared.forwarded.failed(None);
        self.pending.clear();
        let mut others = Vec::new();
        for place in shared.forwarded.places() {
            let stays = |lease: &PortLease| addresses.contains(&lease.local().ip());
            if shared.forwarded.with_lease(&place, stays) == Some(true) {
                shared.forwarded.with_lease(&place, PortLease::renew);
                continue;
            }
            shared.forwarded.give_back(&place);
            if !shared.listeners.local_endpoints().contains(&place) {
                others.push(place);
            } else if let Some(external) = self.plan.handle_end(now, place) {
                let reason = "this host has come into another network".to_owned();
                shared.events.tell(ServiceEvent::PortMapLost { place, external, reason });
            }
        }
        self.plan.handle_network_change(now);
        others
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.plan.poll_timeout()
    }

    /// What routers gave in the last moment is given back as well.
    pub(super) fn end(&mut self, shared: &Shared) {
        for (place, mut pending) in self.pending.drain(..) {
            if let Some(Ok(lease)) = pending.poll() {
                shared.forwarded.keep(place, lease);
            }
        }
    }
}

impl Turning {
    /// Deals with the ports of the listeners, if they are to be forwarded.
    pub(super) fn forward_ports(&mut self, now: Instant) {
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.turn(now, &self.shared);
        }
    }

    /// The routers here are asked for what the last ones did.
    pub(super) fn forward_ports_here(&mut self, now: Instant, addresses: &[IpAddr]) {
        let Some(forwarder) = &mut self.forwarder else { return };
        let others = forwarder.network_changed(now, addresses, &self.shared);
        if !others.is_empty() {
            let shared = self.shared.clone();
            let work = move || others.into_iter().for_each(|place| shared.map_place(place));
            self.help("crust-remap", work, |_| ());
        }
    }
}

/// What routers are asked for.
pub(crate) fn protocol(place: ListenEndpoint) -> PortProtocol {
    if place.scheme() == Scheme::Tcp { PortProtocol::Tcp } else { PortProtocol::Udp }
}
