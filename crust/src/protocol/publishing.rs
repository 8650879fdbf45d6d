//! When a service tells the DHT where it is.

use std::time::{Duration, Instant};

/// The times of publishing. The caller publishes when `poll_publish` says so, and reports what came of it.
#[derive(Debug)]
pub(crate) struct Publishing {
    due: Option<Instant>,
    /// When the last attempt began.
    last: Option<Instant>,
    failures: u32,
}

impl Publishing {
    /// Has something to tell from `now` on.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { due: Some(now), last: None, failures: 0 }
    }

    /// What is to be told may have changed: soon, with whatever changes beside it, but not too often.
    pub(crate) fn handle_change(&mut self, now: Instant) {
        let soon = now + SETTLING;
        let allowed = self.last.map_or(soon, |last| soon.max(last + BETWEEN));
        self.due = Some(self.due.map_or(allowed, |due| due.min(allowed)));
    }

    /// The network is another one: what failed in the last one says nothing.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        self.failures = 0;
        self.handle_change(now);
    }

    /// Whether to publish now.
    pub(crate) fn poll_publish(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
            self.last = Some(now);
        }
        is_due
    }

    /// It stands there. `spread` is drawn at random, so that peers that began at once part.
    pub(crate) fn handle_published(&mut self, now: Instant, spread: u64) {
        self.failures = 0;
        let spread = Duration::from_secs(spread % (SPREAD.as_secs() + 1));
        self.again(now + AGAIN - spread);
    }

    /// What stands there is still right, and need not be told again before `until`.
    pub(crate) fn handle_unchanged(&mut self, until: Instant) {
        self.again(until);
    }

    /// There is nothing to tell until something changes.
    pub(crate) const fn handle_nothing(&mut self) {
        self.failures = 0;
    }

    /// It did not work; tells whether it did before.
    pub(crate) fn handle_failure(&mut self, now: Instant) -> bool {
        let wait = (FIRST_PAUSE * (1 << self.failures.min(6))).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.again(now + wait);
        self.failures == 1
    }

    /// Something may have changed meanwhile, which then comes first.
    fn again(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When to ask again, unless something happens before.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

/// A router answers within seconds, and introducers within one: their news are told together.
const SETTLING: Duration = Duration::from_millis(500);
/// However often the address changes.
const BETWEEN: Duration = Duration::from_secs(5);
/// Nodes forget an item two hours after it came, and should be told each hour (BEP 44).
const AGAIN: Duration = Duration::from_secs(3_600);
const SPREAD: Duration = Duration::from_secs(900);
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(1_800);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn it_is_told_at_once_and_then_each_hour_or_sooner() {
        let start = start();
        let mut publishing = Publishing::new(start);
        assert!(publishing.poll_publish(start) && !publishing.poll_publish(start));
        for spread in 0..2_000 {
            publishing.due = None;
            publishing.handle_published(start, spread);
            let due = publishing.poll_timeout().unwrap();
            assert!((start + AGAIN - SPREAD..=start + AGAIN).contains(&due), "{spread}");
        }
    }

    #[test]
    fn changes_are_told_soon_together_and_never_oftener_than_every_five_seconds() {
        let start = start();
        let mut publishing = Publishing::new(start);
        let mut told = Vec::new();
        // An address that changes ten times a second for half a minute.
        for step in 0..300 {
            let now = start + Duration::from_millis(100) * step;
            publishing.handle_change(now);
            if publishing.poll_publish(now) {
                told.push(now - start);
                publishing.handle_published(now, 0);
            }
        }
        assert_eq!(told, [0, 5, 10, 15, 20, 25].map(Duration::from_secs));
        // And one that changes once, later, is told after half a second.
        let later = start + Duration::from_secs(600);
        let mut publishing = Publishing::new(start);
        assert!(publishing.poll_publish(start));
        publishing.handle_published(start, 0);
        publishing.handle_change(later);
        assert_eq!(publishing.poll_timeout(), Some(later + SETTLING));
    }

    #[test]
    fn a_change_during_the_attempt_is_not_lost() {
        let start = start();
        let mut publishing = Publishing::new(start);
        assert!(publishing.poll_publish(start));
        publishing.handle_change(start + Duration::from_secs(1));
        publishing.handle_published(start + Duration::from_secs(2), 0);
        assert_eq!(publishing.poll_timeout(), Some(start + BETWEEN));
    }

    #[test]
    fn failures_are_told_once_and_tried_again_ever_more_rarely() {
        let mut now = start();
        let mut publishing = Publishing::new(now);
        let mut pauses = Vec::new();
        for attempt in 0..9 {
            assert!(publishing.poll_publish(now));
            assert_eq!(publishing.handle_failure(now), attempt == 0);
            let due = publishing.poll_timeout().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1_800, 1_800, 1_800]);
        publishing.handle_network_change(now);
        assert!(publishing.poll_publish(now + BETWEEN));
        publishing.handle_nothing();
        assert_eq!(publishing.poll_timeout(), None);
    }
}
