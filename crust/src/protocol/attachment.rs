//! Which introducers to keep in touch with, and when to try again.
//!
//! ```text
//!              dial           stream is there          Attached
//! waiting ───────────► dialling ───────────► asking ──────────► attached
//!    ▲                    │                    │                    │
//!    └────────────────────┴── failed, after 1, 2, 4 … 60 s ─────────┘
//! ```
//!
//! One that called us lately is dialled every two seconds: who is cut off for some minutes is found again within seconds.

use std::time::{Duration, Instant};

use super::pulse::{Pulse, Rhythm};

/// One introducer and how it stands with it.
#[derive(Debug)]
pub(crate) struct Attachment {
    state: State,
    /// When it last called us.
    called: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    pulse: Pulse,
    /// Spreads the peers of an introducer that comes back.
    jitter: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Dialling,
    Asking { until: Instant },
    Attached { since: Instant },
}

impl Attachment {
    /// One to be dialled at once.
    pub(crate) const fn new(now: Instant, seed: u64) -> Self {
        // Xorshift has no way out of zero.
        let pulse = Pulse::new();
        Self { state: State::Waiting { until: now }, called: None, failures: 0, pulse, jitter: seed | 1 }
    }

    /// Whether to dial now; then it counts as being dialled.
    pub(crate) fn poll_dial(&mut self, now: Instant) -> bool {
        let due = matches!(self.state, State::Waiting { until } if until <= now);
        if due {
            self.state = State::Dialling;
        }
        due
    }

    /// The stream is there and has been asked.
    pub(crate) fn handle_dialled(&mut self, now: Instant) {
        self.state = State::Asking { until: now + ASKING };
    }

    /// The introducer calls us from now on. Tells what is to hold for the stream.
    pub(crate) fn handle_attached(&mut self, now: Instant) -> Rhythm {
        self.state = State::Attached { since: now };
        self.pulse.handle_attached(now)
    }

    /// How long it may be silent, as far as that is known.
    pub(crate) const fn pulse(&mut self) -> &mut Pulse {
        &mut self.pulse
    }

    /// The dial failed, or the stream has ended.
    pub(crate) fn handle_failure(&mut self, now: Instant) {
        if let State::Attached { since } = self.state
            && since + STEADY <= now
        {
            (self.failures, self.called) = (0, Some(now));
        }
        self.pulse.handle_lost(now);
        let lately = self.called.is_some_and(|called| now < called + LATELY);
        let longest = if lately { WAIT_LATELY } else { LONGEST_WAIT };
        let wait = (FIRST_WAIT * (1 << self.failures.min(6))).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        // From three quarters of it to the whole.
        let less = wait / 4 * u32::try_from(self.jitter % 256).expect("below 256") / 256;
        self.state = State::Waiting { until: now + wait - less };
    }

    /// This host has come into another network: who waits is dialled at once, and who calls us is to be asked again whether it
    /// still does, which this tells.
    pub(crate) fn handle_network_change(&mut self, now: Instant) -> bool {
        self.pulse.handle_network_change();
        match self.state {
            State::Waiting { .. } => {
                self.failures = 0;
                self.state = State::Waiting { until: now };
                false
            }
            State::Attached { .. } => {
                self.failures = 0;
                self.state = State::Asking { until: now + ASKING_AGAIN };
                true
            }
            State::Dialling | State::Asking { .. } => false,
        }
    }

    /// Whether the introducer has not answered in time.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        matches!(self.state, State::Asking { until } if until <= now)
    }

    /// When to look at it again.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Asking { until } => Some(until),
            State::Dialling | State::Attached { .. } => None,
        }
    }
}

/// An introducer that restarts is back within seconds.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// One that is down for long is asked once a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// An outage of the network here ends within that time, mostly.
const LATELY: Duration = Duration::from_secs(600);
/// A dial tries for five seconds, so that something is sent every few seconds.
const WAIT_LATELY: Duration = Duration::from_secs(2);
/// Which long it held counts as good again.
const STEADY: Duration = Duration::from_secs(60);
/// The answer takes a round trip.
const ASKING: Duration = Duration::from_secs(10);

/// The stream is there already, so that it takes a round trip and the checks of its paths.
const ASKING_AGAIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_minute() {
        let mut now = start();
        let mut attachment = Attachment::new(now, 7);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert!(attachment.poll_dial(now) && !attachment.poll_dial(now));
            attachment.handle_failure(now);
            let until = attachment.poll_timeout().unwrap();
            assert!(!attachment.poll_dial(until - Duration::from_millis(1)));
            waits.push(until - now);
            now = until;
        }
        for (wait, whole) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            let whole = Duration::from_secs(whole);
            assert!(*wait <= whole && *wait >= whole * 3 / 4, "{waits:?}");
        }
    }

    #[test]
    fn one_that_held_for_long_is_dialled_soon() {
        let start = start();
        let mut attachment = Attachment::new(start, 7);
        for _ in 0..9 {
            attachment.handle_failure(start);
        }
        attachment.handle_dialled(start);
        attachment.handle_attached(start);
        assert!(attachment.poll_timeout().is_none());
        attachment.handle_failure(start + STEADY);
        assert!(attachment.poll_timeout().unwrap() <= start + STEADY + FIRST_WAIT);
    }

    #[test]
    fn one_that_called_lately_is_dialled_every_two_seconds_for_ten_minutes() {
        let mut now = start();
        let mut attachment = Attachment::new(now, 7);
        attachment.handle_dialled(now);
        attachment.handle_attached(now);
        now += STEADY;
        let lost = now;
        attachment.handle_failure(now);
        let mut waits = Vec::new();
        while now < lost + LATELY * 2 {
            let until = attachment.poll_timeout().unwrap();
            waits.push((now - lost, until - now));
            now = until;
            assert!(attachment.poll_dial(now));
            now += Duration::from_secs(5);
            attachment.handle_failure(now);
        }
        let (early, late): (Vec<_>, Vec<_>) = waits.into_iter().partition(|(at, _)| *at < LATELY);
        assert!(early.len() > 60 && early.iter().all(|(_, wait)| *wait <= WAIT_LATELY), "{early:?}");
        assert!(late.iter().any(|(_, wait)| *wait > WAIT_LATELY * 4), "{late:?}");
    }

    #[test]
    fn in_another_network_all_are_asked_at_once() {
        let start = start();
        let mut waiting = Attachment::new(start, 7);
        for _ in 0..9 {
            waiting.handle_failure(start);
        }
        assert!(!waiting.poll_dial(start));
        assert!(!waiting.handle_network_change(start));
        assert!(waiting.poll_dial(start) && !waiting.handle_network_change(start));
        let mut attached = Attachment::new(start, 7);
        attached.handle_dialled(start);
        attached.handle_attached(start);
        assert!(attached.handle_network_change(start));
        assert!(!attached.is_late(start) && attached.is_late(start + ASKING_AGAIN));
        attached.handle_attached(start);
        assert!(attached.poll_timeout().is_none());
    }

    #[test]
    fn one_that_does_not_answer_is_late() {
        let start = start();
        let mut attachment = Attachment::new(start, 7);
        attachment.handle_dialled(start);
        assert!(!attachment.is_late(start) && attachment.is_late(start + ASKING));
        attachment.handle_failure(start + ASKING);
        assert!(attachment.poll_dial(start + ASKING + FIRST_WAIT));
    }
}
