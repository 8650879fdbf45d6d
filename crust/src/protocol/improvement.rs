//! When to look for another path for the connections with one peer: around a relay, or to where the peer is now.
//!
//! ```text
//!              start                  worked, or network changed
//! waiting ───────────────► running ─────────────────────────────► waiting, due at once
//!    ▲                        │
//!    ├────────────────────────┤ not met: after 1, 2, 4 … 300 s
//!    └────────────────────────┘ not introduced: after a quarter of a second, a half … 60 s
//! ```
//!
//! A connection that is cut off does not wait for long, whatever was tried before.

use std::time::{Duration, Instant};

use super::plan::PunchBudget;

/// One peer with whom we have connections.
#[derive(Debug)]
pub(crate) struct Improvement {
    state: State,
    budget: PunchBudget,
    /// Attempts in a row for which nobody introduced us.
    strangers: u32,
    /// When the last attempt was over.
    ended: Option<Instant>,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempted {
    /// A connection has another path; if there are more, they may follow at once.
    Led,
    /// No introducer was reached, or none knew the peer: nothing was punched.
    NotIntroduced,
    /// It led nowhere.
    NotMet,
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
        let state = State::Waiting { until: now };
        Self { state, budget: PunchBudget::default(), strangers: 0, ended: None }
    }

    /// Whether the next attempt is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    /// An attempt begins.
    pub(crate) fn start(&mut self, now: Instant) {
        self.state = State::Running { until: now + LONGEST_ATTEMPT, stale: false };
    }

    /// The attempt is over.
    pub(crate) fn handle_end(&mut self, now: Instant, attempted: Attempted) {
        let is_stale = matches!(self.state, State::Running { stale: true, .. });
        self.ended = Some(now);
        match attempted {
            _ if is_stale => self.begin_anew(now),
            Attempted::Led => self.begin_anew(now),
            Attempted::NotIntroduced => {
                let wait = (FIRST_STRANGER * (1 << self.strangers.min(8))).min(LONGEST_STRANGER);
                self.strangers = self.strangers.saturating_add(1);
                self.state = State::Waiting { until: now + wait };
            }
            Attempted::NotMet => {
                self.budget.handle_failure(now);
                let until = self.budget.may_punch(now).err().unwrap_or(now);
                self.state = State::Waiting { until };
            }
        }
    }

    fn begin_anew(&mut self, now: Instant) {
        *self = Self { ended: self.ended, ..Self::new(now) };
    }

    /// A connection is cut off: the next attempt is due, but not right after the last.
    pub(crate) fn handle_cut_off(&mut self, now: Instant) {
        if let State::Waiting { until } = &mut self.state {
            let soon = self.ended.map_or(now, |ended| now.max(ended + BETWEEN));
            *until = soon.min(*until);
        }
    }

    /// This host has come into another network, which may be a better one.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { .. } => self.begin_anew(now),
            State::Running { stale, .. } => *stale = true,
        }
    }

    /// Gives up an attempt of which nothing was heard for too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::Running { until, .. } if until <= now) {
            self.handle_end(now, Attempted::NotMet);
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// From when on it may be forgotten, if nothing is to be done for the peer: while the attempts that failed still count, whoever connects
    /// again and again would get more of them.
    pub(crate) fn forget_at(&self) -> Instant {
        let until = self.poll_timeout();
        if self.budget.has_failed() || self.strangers > 0 { until + REMEMBERED } else { until }
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
/// Where nobody introduces us the network is in trouble, or the peer has just come into another one: both mostly pass within seconds.
const FIRST_STRANGER: Duration = Duration::from_millis(250);
const LONGEST_STRANGER: Duration = Duration::from_secs(60);
/// A peer that answers and falls silent again and again is not worth more.
const BETWEEN: Duration = Duration::from_secs(1);
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
            improvement.handle_end(now, Attempted::NotMet);
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
        improvement.handle_end(now, Attempted::NotMet);
        assert!(improvement.is_due(now));
    }

    #[test]
    fn what_worked_costs_nothing() {
        let start = start();
        let mut improvement = Improvement::new(start);
        for _ in 0..5 {
            improvement.start(start);
            improvement.handle_end(start, Attempted::NotMet);
        }
        improvement.start(start);
        improvement.handle_end(start, Attempted::Led);
        assert!(improvement.is_due(start));
    }

    #[test]
    fn what_failed_is_remembered_for_a_while_longer() {
        let start = start();
        let mut improvement = Improvement::new(start);
        assert_eq!(improvement.forget_at(), start);
        improvement.start(start);
        improvement.handle_end(start, Attempted::NotMet);
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
    #[test]
    fn a_stranger_asks_again_soon_and_a_connection_that_is_cut_off_at_once() {
        let start = start();
        let mut improvement = Improvement::new(start);
        let (mut now, mut waits) = (start, Vec::new());
        for _ in 0..12 {
            improvement.start(now);
            improvement.handle_end(now, Attempted::NotIntroduced);
            waits.push(improvement.poll_timeout() - now);
            now = improvement.poll_timeout();
        }
        assert_eq!((waits[0], waits[1], waits[11]), (FIRST_STRANGER, FIRST_STRANGER * 2, LONGEST_STRANGER));
        // Punched for in vain so often that the next attempt is minutes off.
        for _ in 0..9 {
            improvement.start(now);
            improvement.handle_end(now, Attempted::NotMet);
        }
        assert!(!improvement.is_due(now + BETWEEN * 60));
        improvement.handle_cut_off(now);
        assert_eq!(improvement.poll_timeout(), now + BETWEEN, "not right after the last");
        improvement.handle_cut_off(now + BETWEEN * 60);
        assert_eq!(improvement.poll_timeout(), now + BETWEEN, "and not put off");
        // One under way is not disturbed.
        improvement.start(now);
        improvement.handle_cut_off(now);
        assert!(improvement.is_running());
    }
}
