//! What a connection says while nobody uses it, so that NATs on the way keep it in mind and the peer sees that it lives.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use quinn_proto::StreamId;

use super::QuicConnection;

/// How long we may be silent, and how long the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) keep_alive: Duration,
    pub(crate) dead_after: Option<Duration>,
}

/// What is agreed about it, and when it is due.
#[derive(Debug)]
pub(super) struct Resting {
    /// What holds as soon as one stream has no wish of its own.
    usual: Rest,
    wishes: BTreeMap<StreamId, Rest>,
    now: Rest,
    /// Since when the peer's silence counts: a stricter rule says nothing of the time before it.
    counted_from: Instant,
    last_sent: Instant,
    /// When to say something; there once the handshake is over. What only moves away is moved when it is due.
    speak: Option<Instant>,
}

impl Resting {
    pub(super) const fn new(now: Instant, usual: Rest) -> Self {
        Self { usual, wishes: BTreeMap::new(), now: usual, counted_from: now, last_sent: now, speak: None }
    }

    pub(super) const fn dead_after(&self) -> Option<Duration> {
        self.now.dead_after
    }

    /// Whether all streams have wishes of their own.
    pub(super) fn is_patient(&self) -> bool {
        self.now != self.usual
    }

    pub(super) const fn counted_from(&self) -> Instant {
        self.counted_from
    }

    pub(super) const fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// The handshake is over.
    pub(super) fn begin(&mut self, now: Instant) {
        self.speak = Some(now + self.now.keep_alive);
    }

    pub(super) const fn timer(&self) -> Option<Instant> {
        self.speak
    }

    /// Whether it is time to say something.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let Some(speak) = self.speak.filter(|speak| *speak <= now) else { return false };
        let due = self.last_sent + self.now.keep_alive;
        let is_due = due <= speak.max(now);
        self.speak = Some(if is_due { now + self.now.keep_alive } else { due });
        is_due
    }
}

impl QuicConnection {
    /// What is to hold for a stream at rest. It does while all streams of the connection have such a wish: the least of each.
    pub(crate) fn set_rest(&mut self, now: Instant, stream: StreamId, rest: Rest) {
        if self.streams.get(&stream).is_some() {
            self.rest.wishes.insert(stream, rest);
            self.agree_on_rest(now);
        }
    }

    /// How long the peer may be silent now.
    #[cfg(test)]
    pub(crate) fn dead_after(&self) -> Option<Duration> {
        self.rest.dead_after()
    }

    /// Streams may have come or gone.
    pub(super) fn agree_on_rest(&mut self, now: Instant) {
        // Nobody has a wish, mostly.
        if self.rest.wishes.is_empty() {
            return;
        }
        let streams = &self.streams;
        self.rest.wishes.retain(|id, _| streams.get(id).is_some());
        let all_wish = self.rest.wishes.len() == self.streams.len() && self.waiting.is_empty();
        let wishes = self.rest.wishes.values();
        let agreed = wishes.copied().reduce(Rest::least).filter(|_| all_wish).unwrap_or(self.rest.usual);
        if agreed == self.rest.now {
            return;
        }
        self.rest.now = agreed;
        self.rest.counted_from = now;
        self.timers.silence = agreed.dead_after.map(|silence| now + silence);
        let due = self.rest.last_sent + agreed.keep_alive;
        self.rest.speak = self.rest.speak.map(|_| due);
    }
}

impl Rest {
    fn least(self, other: Self) -> Self {
        let dead_after = match (self.dead_after, other.dead_after) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { keep_alive: self.keep_alive.min(other.keep_alive), dead_after }
    }
}
