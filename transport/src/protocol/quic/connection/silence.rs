//! A peer that is silent: whether it owes an answer, when it counts as lost, and what follows when it answers again.

use std::time::{Duration, Instant};

use super::{ConnectionEnd, LOST, QuicConnection};
use crate::protocol::{paths::Awaited, quic::settings::NAT_BINDING};

impl QuicConnection {
    /// Data came: if it stops, the peer is probed.
    pub(super) fn data_came(&mut self, now: Instant) {
        // Where it was said how long all may be silent, a pause is nothing odd.
        if self.rest.is_patient() {
            return;
        }
        let due = now + self.patience();
        self.timers.stalled.get_or_insert(due);
    }

    /// Who only receives has nothing to send when its address outside changes, and the peer would go on sending to the old one.
    pub(super) fn probe_if_stalled(&mut self, now: Instant) {
        let due = self.last_heard + self.patience();
        self.timers.stalled = (due > now).then_some(due);
        if due <= now {
            self.inner.ping();
        }
    }

    fn has_stalled(&self, now: Instant) -> bool {
        self.end.is_none()
            && self.timers.stalled.is_some_and(|due| due <= now)
            && self.last_heard + self.patience() <= now
    }

    /// How long data may pause before that is odd.
    fn patience(&self) -> Duration {
        self.pauses.patience(self.inner.rtt())
    }

    pub(super) fn check_silence(&mut self, now: Instant) {
        let Some(allowed) = self.rest.dead_after() else { return };
        let due = self.last_heard.max(self.rest.counted_from()) + allowed;
        if due <= now {
            let silent_for = now.saturating_duration_since(self.last_heard);
            self.close_as(now, LOST, ConnectionEnd::Silent(silent_for));
        } else {
            self.timers.silence = Some(due);
        }
    }

    /// The peer is there again, or by another way: what was lost is repeated now.
    pub(crate) fn resume(&mut self, now: Instant) {
        if self.end.is_some() {
            return;
        }
        self.inner.ping();
        self.repeat_now(now);
        self.answers.left = ANSWERS;
    }

    /// A full window keeps the ping back, and the engine's own probe, which nothing keeps back, waits twice as long each time it
    /// is lost. So what it would do next it does now; to its timers nothing worse can happen, as it has none that ends it.
    fn repeat_now(&mut self, now: Instant) {
        for _ in 0..TIMERS_TO_RESUME {
            if let Some(due) = self.inner.poll_timeout().filter(|due| *due > now) {
                self.inner.handle_timeout(due);
            }
        }
    }

    /// Nothing is to be sent, as it seems; tells whether something is nevertheless. While its window is full and there is more to send, the
    /// engine keeps back acknowledgements as well: where that holds at both ends, as after they were cut off in the midst of transfers,
    /// each waits for the other until the next probes, which take them along.
    pub(super) fn has_answer(&mut self, now: Instant) -> bool {
        let is_owed = std::mem::take(&mut self.answers.is_owed) && self.end.is_none();
        if is_owed {
            self.answers.left -= 1;
            self.repeat_now(now);
        }
        is_owed
    }

    /// What the peer owes us, as far as the engine's timers tell: it has one for whatever it would repeat.
    pub(crate) fn awaited(&mut self, now: Instant) -> Awaited {
        let round_trip = self.inner.rtt();
        let silent = now.saturating_duration_since(self.last_heard);
        let soon = now + (silent * 2).max(round_trip * 6).clamp(REPEATED_WITHIN, NAT_BINDING / 2);
        let is_owed = self.end.is_none() && self.inner.poll_timeout().is_some_and(|due| due <= soon);
        Awaited { is_owed, has_stalled: self.has_stalled(now), round_trip }
    }
}

/// What is to be answered after a silence though the engine would not.
#[derive(Debug, Default)]
pub(super) struct Answers {
    left: u8,
    /// A datagram came that nothing has followed yet.
    is_owed: bool,
}

impl Answers {
    pub(super) const fn datagram_came(&mut self) {
        self.is_owed = self.left > 0;
    }

    pub(super) const fn sent(&mut self) {
        self.is_owed = false;
    }
}

/// How long the peer paused lately between two datagrams: who sends steadily and stops has either nothing more to say or is gone, and
/// who speaks now and then is not probed after each word.
#[derive(Debug)]
pub(super) struct Pauses {
    /// The longest since `begun`, and in the span before.
    longest: [Duration; 2],
    begun: Instant,
}

impl Pauses {
    pub(super) const fn new(now: Instant) -> Self {
        Self { longest: [Duration::ZERO; 2], begun: now }
    }

    pub(super) fn ended(&mut self, now: Instant, pause: Duration) {
        let [current, before] = &mut self.longest;
        let span = now.saturating_duration_since(self.begun);
        if span >= SPAN {
            // Of two spans ago nothing counts.
            *before = if span >= SPAN * 2 { Duration::ZERO } else { *current };
            (*current, self.begun) = (Duration::ZERO, now);
        }
        *current = pause.max(*current);
    }

    fn patience(&self, round_trip: Duration) -> Duration {
        let [current, before] = self.longest;
        let least = (round_trip * 4).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE);
        (current.max(before).min(LONGEST_PATIENCE) * 4).clamp(least, LONGEST_PATIENCE)
    }
}

/// What a pause is compared with is of the last four to eight seconds.
const SPAN: Duration = Duration::from_secs(4);
/// After the last data that came, once: longer than most round trips, shorter than a person's patience.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(300);
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);
/// The first repetition comes within a few round trips.
const REPEATED_WITHIN: Duration = Duration::from_secs(1);
/// That for an acknowledgement that is due, or for the pace, may come before the one that counts.
const TIMERS_TO_RESUME: usize = 2;
/// The first may be lost, or be for what came by the old path.
const ANSWERS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_steady_flow_is_missed_soon_and_one_that_pauses_later() {
        let mut now = start();
        let mut pauses = Pauses::new(now);
        assert_eq!(pauses.patience(MS * 40), SHORTEST_PATIENCE);
        assert_eq!(pauses.patience(MS * 100), MS * 400, "a long way takes longer");
        assert_eq!(pauses.patience(MS * 900), LONGEST_PATIENCE);
        let mut flow = |count: usize, pause: Duration| {
            for _ in 0..count {
                now += pause;
                pauses.ended(now, pause);
            }
            pauses.patience(MS * 40)
        };
        assert_eq!(flow(10, MS * 5), SHORTEST_PATIENCE);
        assert_eq!(flow(1, MS * 200), MS * 800);
        assert_eq!(flow(10, MS * 5), MS * 800, "it may do so again");
        assert_eq!(flow(3, MS * 700), LONGEST_PATIENCE);
        assert_eq!(flow(2_000, MS * 5), SHORTEST_PATIENCE, "ten seconds later that is forgotten");
        assert_eq!(flow(1, MS * 60_000), LONGEST_PATIENCE);
    }
}
