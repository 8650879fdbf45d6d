use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::summary::{Dot, Summary};

/// What a node remembers of another.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// What it is known to have.
    pub(super) known: Summary,
    /// By when it must have heard from us, because it sent a batch.
    pub(super) acknowledge_at: Option<Instant>,
    /// When to send again what it has not acknowledged, and for how long to wait then.
    pub(super) send_again: Option<(Instant, Duration)>,
}

impl Peer {
    pub(super) fn timeout(&self) -> Option<Instant> {
        let again = self.send_again.map(|(at, _)| at);
        [self.acknowledge_at, again].into_iter().flatten().min()
    }

    /// Stops sending again once it has all of these.
    pub(super) fn knows_all_of(&mut self, relayed: &BTreeMap<Dot, Instant>) {
        if self.send_again.is_some() && relayed.keys().all(|dot| self.known.has(dot)) {
            self.send_again = None;
        }
    }
}
