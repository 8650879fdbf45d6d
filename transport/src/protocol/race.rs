//! Happy eyeballs (RFC 8305): which attempt starts when, and when the race is over.

use std::time::{Duration, Instant};

/// The pacing of one dial over several addresses. The caller starts what `poll_start` names and reports what fails; the
/// first success ends the race.
#[derive(Debug)]
pub(crate) struct Race {
    total: usize,
    started: usize,
    running: usize,
    next_start: Instant,
    head_start: Duration,
}

impl Race {
    /// Prepares a race over so many attempts, best first.
    pub(crate) fn new(now: Instant, total: usize) -> Self {
        Self { total, started: 0, running: 0, next_start: now, head_start: ATTEMPT_DELAY }
    }

    /// The first attempt has so long until the next starts, unless it fails.
    pub(crate) fn head_start(mut self, head_start: Duration) -> Self {
        self.head_start = head_start;
        self
    }

    /// The number of the attempt to start now, if one is due. Ask until `None`.
    pub(crate) fn poll_start(&mut self, now: Instant) -> Option<usize> {
        if self.started == self.total || now < self.next_start {
            return None;
        }
        let attempt = self.started;
        self.started += 1;
        self.running += 1;
        self.next_start = now + if attempt == 0 { self.head_start } else { ATTEMPT_DELAY };
        Some(attempt)
    }

    /// When to ask again, unless something is reported before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.started < self.total).then_some(self.next_start)
    }

    /// Those under way get on: the next one may wait a little longer.
    pub(crate) fn hold_back(&mut self, now: Instant) {
        if self.started < self.total && self.next_start <= now {
            self.next_start = now + ATTEMPT_DELAY;
        }
    }

    /// One attempt failed: the next need not wait any longer (RFC 8305 §5).
    pub(crate) fn handle_failure(&mut self, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.next_start = now;
    }

    /// Whether every attempt was started and has failed.
    pub(crate) fn is_lost(&self) -> bool {
        self.started == self.total && self.running == 0
    }
}

/// Orders the addresses of one name so that the families take turns, the first as the resolver had it (RFC 8305 §4).
pub(crate) fn interleave<T>(addrs: impl IntoIterator<Item = T>, is_v6: impl Fn(&T) -> bool) -> Vec<T> {
    let mut addrs = addrs.into_iter().peekable();
    let first_is_v6 = addrs.peek().is_some_and(&is_v6);
    let (first, second): (Vec<T>, Vec<T>) = addrs.partition(|addr| is_v6(addr) == first_is_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return ordered,
            (one, other) => ordered.extend(one.into_iter().chain(other)),
        }
    }
}

/// RFC 8305 §5 recommends 250 ms: longer than most round trips, shorter than a person's patience.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    /// Any instant will do: the race only adds to it.
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn attempts_start_a_quarter_of_a_second_apart() {
        let start = start();
        let mut race = Race::new(start, 2);
        assert_eq!(race.poll_start(start), Some(0));
        assert_eq!(race.poll_start(start), None);
        assert_eq!(race.poll_timeout(), Some(start + ATTEMPT_DELAY));
        assert_eq!(race.poll_start(start + ATTEMPT_DELAY), Some(1));
        assert_eq!(race.poll_timeout(), None);
    }

    #[test]
    fn a_failure_starts_the_next_at_once_and_the_last_one_loses() {
        let start = start();
        let mut race = Race::new(start, 2);
        race.poll_start(start);
        race.handle_failure(start + Duration::from_millis(1));
        assert!(!race.is_lost());
        assert_eq!(race.poll_start(start + Duration::from_millis(1)), Some(1));
        race.handle_failure(start + Duration::from_millis(2));
        assert!(race.is_lost());
    }

    #[test]
    fn a_first_attempt_that_gets_on_keeps_its_head_start() {
        let start = start();
        let mut race = Race::new(start, 2).head_start(ATTEMPT_DELAY * 2);
        race.poll_start(start);
        assert_eq!(race.poll_timeout(), Some(start + ATTEMPT_DELAY * 2));
        race.hold_back(start);
        assert_eq!(race.poll_timeout(), Some(start + ATTEMPT_DELAY * 2), "it is not due yet");
        race.hold_back(start + ATTEMPT_DELAY * 2);
        assert_eq!(race.poll_start(start + ATTEMPT_DELAY * 2), None);
        assert_eq!(race.poll_start(start + ATTEMPT_DELAY * 3), Some(1));
    }

    #[test]
    fn families_take_turns_and_nothing_is_lost() {
        let ordered = interleave([6, 6, 6, 4, 4], |family| *family == 6);
        assert_eq!(ordered, [6, 4, 6, 4, 6]);
        assert_eq!(interleave([4], |family| *family == 6), [4]);
    }
}
