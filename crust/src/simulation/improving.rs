//! Connections that go over relays, and when each is tried to be led around, as the thread `crust-io` keeps them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use transport::PublicKey;

use crate::protocol::improvement::{Attempted, Improvement};

/// Those with one peer.
#[derive(Debug)]
struct Detours<D> {
    improvement: Improvement,
    open: VecDeque<D>,
}

impl<D> Detours<D> {
    fn poll_timeout(&self) -> Instant {
        if self.open.is_empty() { self.improvement.forget_at() } else { self.improvement.poll_timeout() }
    }
}

/// All of them; `D` is what leads one around.
#[derive(Debug)]
pub(super) struct Improving<D> {
    peers: BTreeMap<PublicKey, Detours<D>>,
}

impl<D> Default for Improving<D> {
    fn default() -> Self {
        Self { peers: BTreeMap::new() }
    }
}

impl<D: Clone> Improving<D> {
    /// One more connection goes over a relay.
    pub(super) fn add(&mut self, now: Instant, peer: PublicKey, detour: D) {
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

    /// An attempt for that peer is over.
    pub(super) fn over(&mut self, now: Instant, peer: PublicKey, worked: bool) {
        let Some(detours) = self.peers.get_mut(&peer) else { return };
        let attempted = if worked { Attempted::Led } else { Attempted::NotMet };
        detours.improvement.handle_end(now, attempted);
        if !worked {
            // The next attempt is another's, if there is another.
            detours.open.rotate_left(usize::from(!detours.open.is_empty()));
        }
    }

    /// The next attempt that is due, which counts as begun. Peers for whom nothing is to be done any more are forgotten in time.
    /// `is_open` tells whether a connection goes over a relay still.
    pub(super) fn poll_start(&mut self, now: Instant, is_open: impl Fn(&D) -> bool) -> Option<D> {
        for detours in self.peers.values_mut() {
            detours.improvement.handle_timeout(now);
            if detours.improvement.is_due(now) {
                detours.open.retain(&is_open);
            }
        }
        self.peers.retain(|_, detours| !detours.open.is_empty() || now < detours.improvement.forget_at());
        if self.is_busy() {
            return None;
        }
        let is_due = |detours: &&mut Detours<D>| !detours.open.is_empty() && detours.improvement.is_due(now);
        let due = self.peers.values_mut().find(is_due)?;
        due.improvement.start(now);
        due.open.front().cloned()
    }

    fn is_busy(&self) -> bool {
        self.peers.values().filter(|detours| detours.improvement.is_running()).count() >= AT_A_TIME
    }

    /// When to ask for the next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let busy = self.is_busy();
        let looked_at = self.peers.values().filter(|detours| !busy || detours.improvement.is_running());
        looked_at.map(Detours::poll_timeout).min()
    }

    /// This host has come into another network.
    pub(super) fn handle_network_change(&mut self, now: Instant) {
        for detours in self.peers.values_mut() {
            detours.improvement.handle_network_change(now);
        }
    }
}

/// Peers with whom one speaks over relays; each has some hundred bytes here.
const PEERS: usize = 256;
/// With one peer.
const CONNECTIONS: usize = 16;
/// Attempts under way, each on three threads for some seconds.
const AT_A_TIME: usize = 8;
