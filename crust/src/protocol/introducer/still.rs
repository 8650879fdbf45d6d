//! Which attached peers wait to be told that we are still there, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::ClientId;

/// Peers that have asked for it.
#[derive(Debug, Default)]
pub(super) struct Stills {
    peers: BTreeMap<ClientId, Silence>,
    /// One entry a peer. One that has said something since is looked at again.
    due: BTreeSet<(Instant, ClientId)>,
}

#[derive(Debug)]
struct Silence {
    longest: Duration,
    since: Instant,
    due: Instant,
}

impl Stills {
    /// The peer is to hear from us after so much silence; `None`: never.
    pub(super) fn set(&mut self, now: Instant, id: ClientId, longest: Option<Duration>) {
        self.forget(id);
        if let Some(longest) = longest {
            let due = now + longest;
            self.peers.insert(id, Silence { longest, since: now, due });
            self.due.insert((due, id));
        }
    }

    pub(super) fn forget(&mut self, id: ClientId) {
        if let Some(silence) = self.peers.remove(&id) {
            self.due.remove(&(silence.due, id));
        }
    }

    /// The peer has said something.
    pub(super) fn heard(&mut self, now: Instant, id: ClientId) {
        if let Some(silence) = self.peers.get_mut(&id) {
            silence.since = now;
        }
    }

    /// Who is to hear from us now, until `None`.
    pub(super) fn poll(&mut self, now: Instant) -> Option<ClientId> {
        while let Some(&(due, id)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, id));
            let Some(silence) = self.peers.get_mut(&id) else { continue };
            let is_silent = silence.since + silence.longest <= now;
            if is_silent {
                silence.since = now;
            }
            silence.due = silence.since + silence.longest;
            self.due.insert((silence.due, id));
            if is_silent {
                return Some(id);
            }
        }
        None
    }

    /// Whether all whom it knows are such, and none has two entries.
    #[cfg(test)]
    pub(super) fn is_of(&self, such: impl Fn(ClientId) -> bool) -> bool {
        self.due.len() == self.peers.len() && self.peers.keys().all(|id| such(*id))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}
