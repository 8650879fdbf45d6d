//! Whether the peer still answers by the way that carries.
//!
//! ```text
//!          something went out            nothing came for so long           its check went unanswered twice
//! at ease ────────────────────► waiting ──────────────────────────► doubtful ──────────────────────────────► cut off
//!    ▲                             │                                    │ looked at again,                       │
//!    │                             │ nobody owes us an answer           │ after a quarter of the silence         │
//!    └─────────────────────────────┴─────────── something came ─────────┴────────────────────────────────────────┘
//! ```
//!
//! Who only receives waits for no answer: where data that came steadily stops coming, the connection says so, and the ways are looked
//! at at once ([`Awaited::has_stalled`]).

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Since when datagrams that went out have not been followed by any that came in.
    since: Option<Instant>,
    /// When the ways were last looked at for it.
    looked: Option<Instant>,
    next: Option<Instant>,
    is_cut_off: bool,
    /// Somebody is to be told that it has become so.
    is_news: bool,
    /// The peer has answered after a doubt.
    is_over: bool,
}

/// What a connection knows of an answer that it may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// Whether the peer owes one: what only acknowledges is not answered.
    pub(crate) is_owed: bool,
    /// Whether data has just stopped to come, for longer than it paused lately.
    pub(crate) has_stalled: bool,
    /// How long an answer takes.
    pub(crate) round_trip: Duration,
}

impl Silence {
    /// Datagrams went out.
    pub(super) fn sent(&mut self, now: Instant) {
        if self.since.is_none() {
            self.since = Some(now);
            self.next = Some(now + FIRST_LOOK);
        }
    }

    /// Something came by the way that carries, or another one carries now.
    pub(super) fn ended(&mut self) {
        if self.since.is_none() && !self.is_cut_off {
            return;
        }
        *self = Self { is_over: self.is_over || self.looked.is_some() || self.is_cut_off, ..Self::default() };
    }

    /// Nothing has answered a check of the way that was begun lately.
    pub(super) fn cut_off(&mut self) {
        self.is_news |= !self.is_cut_off;
        self.is_cut_off = true;
    }

    /// Whether it is time to look at the ways.
    pub(super) fn look(&mut self, now: Instant, awaited: Awaited) -> bool {
        let (Some(since), Some(next)) = (self.since, self.next) else { return false };
        if now < next {
            return false;
        }
        if self.looked.is_none() {
            if !awaited.is_owed {
                (self.since, self.next) = (None, None);
                return false;
            }
            let patience = since + (awaited.round_trip * 3).min(LONGEST_PATIENCE);
            if now < patience {
                self.next = Some(patience);
                return false;
            }
        }
        self.looked = Some(now);
        let silent = now.saturating_duration_since(since);
        self.next = Some(now + (silent / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
        true
    }

    /// When to look.
    pub(super) const fn timer(&self) -> Option<Instant> {
        self.next
    }

    pub(super) const fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Whether the way has just stopped to work; once.
    pub(super) fn poll_cut_off(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// Whether the peer has just answered again; once.
    pub(super) fn poll_over(&mut self) -> bool {
        std::mem::take(&mut self.is_over)
    }
}

/// Longer than most round trips, and short enough that a person hardly notices.
const FIRST_LOOK: Duration = Duration::from_millis(300);
/// Between two looks: as long as a check asks, nearly.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// A path with a longer round trip is looked at before it can have answered.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3);
/// Where a peer may be silent for hours.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const OWED: Awaited =
        Awaited { is_owed: true, has_stalled: false, round_trip: Duration::from_millis(40) };

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_silence_is_looked_at_ever_less_often_and_within_a_quarter_of_its_length() {
        let start = start();
        let mut silence = Silence::default();
        silence.sent(start);
        let mut looks = Vec::new();
        while let Some(next) = silence.timer().filter(|next| *next < start + Duration::from_secs(600)) {
            assert!(!silence.look(next - Duration::from_millis(1), OWED));
            assert!(silence.look(next, OWED));
            looks.push(next - start);
        }
        assert_eq!(looks[0], FIRST_LOOK);
        for pair in looks.windows(2) {
            assert!(pair[1] - pair[0] <= (pair[0] / 4).max(SHORTEST_PAUSE), "{looks:?}");
        }
        let within_half_a_minute = looks.iter().filter(|at| at.as_secs() < 30).count();
        assert!((12..=20).contains(&within_half_a_minute) && looks.len() < 60, "{looks:?}");
    }

    #[test]
    fn what_is_not_to_be_answered_is_not_waited_for() {
        let start = start();
        let mut silence = Silence::default();
        silence.sent(start);
        assert!(!silence.look(start + FIRST_LOOK, Awaited { is_owed: false, ..OWED }));
        assert_eq!(silence.timer(), None);
        silence.sent(start + FIRST_LOOK);
        assert!(silence.look(start + FIRST_LOOK * 2, OWED), "what follows is");
    }

    #[test]
    fn a_long_way_gets_three_round_trips() {
        let start = start();
        let mut silence = Silence::default();
        silence.sent(start);
        let awaited = Awaited { round_trip: Duration::from_millis(700), ..OWED };
        assert!(!silence.look(start + FIRST_LOOK, awaited));
        assert_eq!(silence.timer(), Some(start + Duration::from_millis(2_100)));
        assert!(silence.look(start + Duration::from_millis(2_100), awaited));
    }

    #[test]
    fn the_end_of_a_doubt_is_told_once_and_that_of_a_mere_wait_is_not() {
        let start = start();
        let mut silence = Silence::default();
        silence.sent(start);
        silence.ended();
        assert!(!silence.poll_over() && silence.timer().is_none());
        silence.sent(start);
        assert!(silence.look(start + FIRST_LOOK, OWED));
        silence.cut_off();
        silence.cut_off();
        assert!(silence.is_cut_off() && silence.poll_cut_off() && !silence.poll_cut_off());
        silence.ended();
        assert!(!silence.is_cut_off() && silence.poll_over() && !silence.poll_over());
    }
}
