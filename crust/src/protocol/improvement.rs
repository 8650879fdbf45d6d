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
//! A connection that is cut off does not wait for long, whatever was tried before, and not for an attempt to leave its relay either, which is
//! about a path that is dead now. Where nobody introduces us to its peer, that is tried again after a quarter of the time for which it has been
//! cut off, so that an outage costs little more than it lasts.

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
    /// Since when one is cut off.
    cut_off: Option<Instant>,
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
        /// It is for one that is cut off.
        rescues: bool,
        /// What it is about has changed meanwhile.
        stale: Option<Stale>,
    },
}

/// Why an attempt that is under way leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stale {
    /// This host is in another network.
    Network,
    /// The path that was to become a better one is dead.
    CutOff,
}

impl Improvement {
    /// One that is due at once.
    pub(crate) fn new(now: Instant) -> Self {
        let state = State::Waiting { until: now };
        Self { state, budget: PunchBudget::default(), strangers: 0, ended: None, cut_off: None }
    }

    /// Whether the next attempt is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    /// An attempt to leave a relay begins.
    pub(crate) fn start(&mut self, now: Instant) {
        self.state = State::Running { until: now + LONGEST_ATTEMPT, rescues: false, stale: None };
    }

    /// One for a connection that is cut off begins.
    pub(crate) fn start_rescue(&mut self, now: Instant) {
        self.state = State::Running { until: now + LONGEST_ATTEMPT, rescues: true, stale: None };
    }

    /// The attempt is over.
    pub(crate) fn handle_end(&mut self, now: Instant, attempted: Attempted) {
        let stale = match self.state {
            State::Running { stale, .. } => stale,
            State::Waiting { .. } => None,
        };
        self.ended = Some(now);
        match attempted {
            _ if stale == Some(Stale::Network) => self.begin_anew(now),
            Attempted::Led => self.begin_anew(now),
            _ if stale == Some(Stale::CutOff) => self.state = State::Waiting { until: now },
            Attempted::NotIntroduced => {
                let wait = (FIRST_STRANGER * (1 << self.strangers.min(8))).min(LONGEST_STRANGER);
                let silent = self.cut_off.map(|since| now.saturating_duration_since(since) / 4);
                let wait = silent.map_or(wait, |quarter| wait.min(quarter).max(FIRST_STRANGER));
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
        *self = Self { ended: self.ended, cut_off: self.cut_off, ..Self::new(now) };
    }

    /// A connection is cut off: the next attempt is due, but not right after the last. Tells whether one is under way that is to be ended.
    pub(crate) fn handle_cut_off(&mut self, now: Instant) -> bool {
        self.cut_off = Some(now);
        match &mut self.state {
            State::Waiting { until } => {
                let soon = self.ended.map_or(now, |ended| now.max(ended + BETWEEN));
                *until = soon.min(*until);
                false
            }
            State::Running { rescues: true, .. } => false,
            State::Running { stale, .. } => {
                stale.get_or_insert(Stale::CutOff);
                true
            }
        }
    }

    /// None is cut off any more.
    pub(crate) fn handle_answered_again(&mut self) {
        self.cut_off = None;
    }

    /// This host has come into another network, which may be a better one.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { .. } => self.begin_anew(now),
            State::Running { stale, .. } => *stale = Some(Stale::Network),
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
    }

    #[test]
    fn who_is_cut_off_does_not_wait_for_an_attempt_to_leave_the_relay() {
        let start = start();
        let mut improvement = Improvement::new(start);
        improvement.start(start);
        let now = start + Duration::from_secs(2);
        assert!(improvement.handle_cut_off(now), "that one is to be ended");
        assert!(improvement.is_running() && !improvement.is_due(now));
        improvement.handle_end(now, Attempted::NotMet);
        assert!(improvement.is_due(now));
        // A rescue that is under way is not disturbed.
        improvement.start_rescue(now);
        assert!(!improvement.handle_cut_off(now));
        improvement.handle_end(now, Attempted::NotMet);
        assert!(!improvement.is_due(now) && improvement.poll_timeout() <= now + Duration::from_secs(1));
    }

    #[test]
    fn whose_introducer_is_away_meanwhile_asks_within_a_quarter_of_the_outage() {
        let start = start();
        let mut improvement = Improvement::new(start);
        improvement.handle_cut_off(start);
        let (mut now, mut waits) = (start, Vec::new());
        while now < start + Duration::from_secs(30) {
            improvement.start_rescue(now);
            improvement.handle_end(now, Attempted::NotIntroduced);
            waits.push((now - start, improvement.poll_timeout() - now));
            now = improvement.poll_timeout();
        }
        assert!(waits.iter().all(|(after, wait)| *wait <= FIRST_STRANGER.max(*after / 4)), "{waits:?}");
        assert!((10..=25).contains(&waits.len()), "{waits:?}");
        improvement.handle_answered_again();
        improvement.start_rescue(now);
        improvement.handle_end(now, Attempted::NotIntroduced);
        assert_eq!(improvement.poll_timeout() - now, LONGEST_STRANGER);
    }
}
