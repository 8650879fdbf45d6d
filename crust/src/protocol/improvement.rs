//! When to look for a way around the relay for the connections with one peer.
//!
//! ```text
//!              start                  worked, or network changed
//! waiting ───────────────► running ─────────────────────────────► waiting, due at once
//!    ▲                        │
//!    └────────────────────────┘ failed: after 1, 2, 4 … 300 s
//! ```

use std::time::{Duration, Instant};

use super::plan::PunchBudget;

/// One peer with whom we speak over a relay.
#[derive(Debug)]
pub(crate) struct Improvement {
    state: State,
    budget: PunchBudget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until: Instant,
    },
    Running {
        /// By then it is over, even if nobody told us.
        until: Instant,
        /// The network has changed meanwhile.
        stale: bool,
    },
}

impl Improvement {
    /// One that is due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { state: State::Waiting { until: now }, budget: PunchBudget::default() }
    }

    /// Whether the next attempt is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    /// An attempt begins.
    pub(crate) fn start(&mut self, now: Instant) {
        self.state = State::Running { until: now + LONGEST_ATTEMPT, stale: false };
    }

    /// The attempt led nowhere.
    pub(crate) fn handle_failure(&mut self, now: Instant) {
        if let State::Running { stale: true, .. } = self.state {
            return self.handle_success(now);
        }
        self.budget.handle_failure(now);
        let until = self.budget.may_punch(now).err().unwrap_or(now);
        self.state = State::Waiting { until };
    }

    /// The attempt has led one connection around the relay; if there are others, they may follow at once.
    pub(crate) fn handle_success(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// This host has come into another network, which may be a better one.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { .. } => self.handle_success(now),
            State::Running { stale, .. } => *stale = true,
        }
    }

    /// Gives up an attempt of which nothing was heard for too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::Running { until, .. } if until <= now) {
            self.handle_failure(now);
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// From when on it may be forgotten, if nothing is to be done for the peer: while the attempts that failed still count, whoever connects
    /// again and again would get more of them.
    pub(crate) fn forget_at(&self) -> Instant {
        let until = self.poll_timeout();
        if self.budget.has_failed() { until + REMEMBERED } else { until }
    }

    /// When to look at it again.
    pub(crate) const fn poll_timeout(&self) -> Instant {
        match self.state {
            State::Waiting { until } | State::Running { until, .. } => until,
        }
    }
}

/// The pause after the last of many failures.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Four introducers, each asked for as long as one may take, and the punch.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    /// The attempts until then, when each fails after so long.
    fn attempts(improvement: &mut Improvement, from: Instant, until: Instant, each: Duration) -> usize {
        let (mut now, mut count) = (from, 0);
        loop {
            now = improvement.poll_timeout().max(now);
            if now >= until {
                return count;
            }
            assert!(improvement.is_due(now));
            improvement.start(now);
            assert!(!improvement.is_due(now + each));
            count += 1;
            now += each;
            improvement.handle_failure(now);
        }
    }

    #[test]
    fn twenty_attempts_an_hour_at_most_however_quickly_they_fail() {
        let hour = Duration::from_secs(3_600);
        for each in [0, 1_000, 15_000].map(Duration::from_millis) {
            let start = start();
            let mut improvement = Improvement::new(start);
            let count = attempts(&mut improvement, start, start + hour, each);
            assert!((10..=20).contains(&count), "{count}");
            // And never more often later.
            let count = attempts(&mut improvement, start + hour, start + hour * 2, each);
            assert!((10..=13).contains(&count), "{count}");
        }
    }

    #[test]
    fn another_network_begins_anew() {
        let start = start();
        let mut improvement = Improvement::new(start);
        attempts(&mut improvement, start, start + Duration::from_secs(3_600), Duration::ZERO);
        let now = start + Duration::from_secs(3_600);
        assert!(!improvement.is_due(now));
        improvement.handle_network_change(now);
        assert!(improvement.is_due(now));
        // One that was under way when it changed counts for the old network.
        improvement.start(now);
        improvement.handle_network_change(now);
        assert!(!improvement.is_due(now));
        improvement.handle_failure(now);
        assert!(improvement.is_due(now));
    }

    #[test]
    fn what_worked_costs_nothing() {
        let start = start();
        let mut improvement = Improvement::new(start);
        for _ in 0..5 {
            improvement.start(start);
            improvement.handle_failure(start);
        }
        improvement.start(start);
        improvement.handle_success(start);
        assert!(improvement.is_due(start));
    }

    #[test]
    fn what_failed_is_remembered_for_a_while_longer() {
        let start = start();
        let mut improvement = Improvement::new(start);
        assert_eq!(improvement.forget_at(), start);
        improvement.start(start);
        improvement.handle_failure(start);
        assert_eq!(improvement.forget_at(), improvement.poll_timeout() + REMEMBERED);
        improvement.handle_network_change(start);
        assert_eq!(improvement.forget_at(), start);
    }

    #[test]
    fn an_attempt_of_which_nothing_is_heard_has_failed() {
        let start = start();
        let mut improvement = Improvement::new(start);
        improvement.start(start);
        improvement.handle_timeout(improvement.poll_timeout() - Duration::from_millis(1));
        assert!(improvement.is_running());
        let over = improvement.poll_timeout();
        improvement.handle_timeout(over);
        assert!(!improvement.is_running() && improvement.poll_timeout() > over);
    }
}
