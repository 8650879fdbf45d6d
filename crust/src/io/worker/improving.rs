//! Connections that go over relays, and when each is tried to be led around.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use transport::{Path, PublicKey};

use super::{Command, Turning};
use crate::{event::ServiceEvent, improving::Detour, io::clock, protocol::improvement::Improvement};

/// Those with one peer.
#[derive(Debug)]
struct Detours {
    improvement: Improvement,
    open: VecDeque<Detour>,
}

impl Detours {
    fn poll_timeout(&self) -> Instant {
        if self.open.is_empty() { self.improvement.forget_at() } else { self.improvement.poll_timeout() }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Improving {
    peers: BTreeMap<PublicKey, Detours>,
}

impl Improving {
    /// One more connection goes over a relay.
    fn add(&mut self, now: Instant, detour: Detour) {
        let peer = detour.connection.public_key();
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, detours| !detours.open.is_empty());
        }
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            return tracing::debug!(%peer, "too many peers are met over relays; this one stays there");
        }
        let detours = self
            .peers
            .entry(peer)
            .or_insert_with(|| Detours { improvement: Improvement::new(now), open: VecDeque::new() });
        if detours.open.len() >= CONNECTIONS {
            detours.open.pop_front();
        }
        detours.open.push_back(detour);
    }

    fn over(&mut self, now: Instant, peer: PublicKey, worked: bool) {
        let Some(detours) = self.peers.get_mut(&peer) else { return };
        if worked {
            detours.improvement.handle_success(now);
        } else {
            detours.improvement.handle_failure(now);
            // The next attempt is another's, if there is another.
            detours.open.rotate_left(usize::from(!detours.open.is_empty()));
        }
    }

    /// The next attempt that is due, which counts as begun. Peers for whom nothing is to be done any more are forgotten in time.
    fn poll_start(&mut self, now: Instant) -> Option<Detour> {
        for detours in self.peers.values_mut() {
            detours.improvement.handle_timeout(now);
            if detours.improvement.is_due(now) {
                detours.open.retain(Detour::is_open);
            }
        }
        self.peers.retain(|_, detours| !detours.open.is_empty() || now < detours.improvement.forget_at());
        if self.is_busy() {
            return None;
        }
        let is_due = |detours: &&mut Detours| !detours.open.is_empty() && detours.improvement.is_due(now);
        let due = self.peers.values_mut().find(is_due)?;
        due.improvement.start(now);
        due.open.front().cloned()
    }

    fn is_busy(&self) -> bool {
        self.peers.values().filter(|detours| detours.improvement.is_running()).count() >= AT_A_TIME
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let busy = self.is_busy();
        let looked_at = self.peers.values().filter(|detours| !busy || detours.improvement.is_running());
        looked_at.map(Detours::poll_timeout).min()
    }

    pub(super) fn handle_network_change(&mut self, now: Instant) {
        for detours in self.peers.values_mut() {
            detours.improvement.handle_network_change(now);
        }
    }
}

impl Turning {
    pub(super) fn add_detour(&mut self, detour: Detour) {
        self.improving.add(clock::now(), detour);
    }

    pub(super) fn improved(&mut self, peer: PublicKey, path: Option<Path>) {
        self.improving.over(clock::now(), peer, path.is_some());
        if let Some(path) = path {
            self.shared.events.tell(ServiceEvent::PathImproved { peer, path });
        }
    }

    /// Begins what is due, each on a thread that ends within seconds.
    pub(super) fn improve(&mut self, now: Instant) {
        while let Some(detour) = self.improving.poll_start(now) {
            let peer = detour.connection.public_key();
            let (shared, commands) = (self.shared.clone(), self.commands.clone());
            let work = move || {
                let outcome = detour.leave(&shared);
                let outcome = outcome.inspect_err(|error| {
                    let error = crate::error_chain(error);
                    tracing::debug!(%peer, error, "a connection stays on its relay for now");
                });
                commands.give(Command::Improved { peer, path: outcome.ok() });
            };
            self.help("crust-improve", work, |turning| turning.improving.over(now, peer, false));
        }
    }
}

/// Peers with whom one speaks over relays; each has some hundred bytes here.
const PEERS: usize = 256;
/// With one peer.
const CONNECTIONS: usize = 16;
/// Attempts under way, each on three threads for some seconds.
const AT_A_TIME: usize = 8;
