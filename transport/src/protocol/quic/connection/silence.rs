//! A peer that is silent: whether it owes an answer, when it counts as lost, and what follows when it answers again.

use std::time::{Duration, Instant};

use super::{ConnectionEnd, LOST, QuicConnection};
use crate::protocol::{paths::Awaited, quic::settings::NAT_BINDING};

impl QuicConnection {
    /// Who only receives has nothing to send when its address outside changes, and the peer would go on sending to the old one.
    pub(super) fn probe_if_stalled(&mut self, now: Instant) {
        let due = self.last_heard + STALLED;
        self.timers.stalled = (due > now).then_some(due);
        if due <= now {
            self.inner.ping();
        }
    }

    pub(super) fn check_silence(&mut self, now: Instant) {
        let Some(allowed) = self.timers.dead_after else { return };
        let silent_for = now.saturating_duration_since(self.last_heard);
        if silent_for >= allowed {
            self.close_as(now, LOST, ConnectionEnd::Silent(silent_for));
        } else {
            self.timers.silence = Some(self.last_heard + allowed);
        }
    }

    /// The peer is there again, or by another way: what was lost is repeated now.
    pub(crate) fn resume(&mut self, now: Instant) {
        if self.end.is_some() {
            return;
        }
        self.inner.ping();
        // A full window keeps the ping back, and the engine's own probe, which nothing keeps back, waits twice as long each time it
        // is lost. So what it would do next it does now; to its timers nothing worse can happen, as it has none that ends it.
        for _ in 0..TIMERS_TO_RESUME {
            if let Some(due) = self.inner.poll_timeout().filter(|due| *due > now) {
                self.inner.handle_timeout(due);
            }
        }
    }

    /// What the peer owes us, as far as the engine's timers tell: it has one for whatever it would repeat.
    pub(crate) fn awaited(&mut self, now: Instant) -> Awaited {
        let round_trip = self.inner.rtt();
        let silent = now.saturating_duration_since(self.last_heard);
        let soon = now + (silent * 2).max(round_trip * 6).clamp(REPEATED_WITHIN, NAT_BINDING / 2);
        let is_owed = self.end.is_none() && self.inner.poll_timeout().is_some_and(|due| due <= soon);
        Awaited { is_owed, round_trip }
    }
}

/// So long after the last data that came, once: longer than most round trips, shorter than a person's patience.
pub(super) const STALLED: Duration = Duration::from_secs(1);
/// The first repetition comes within a few round trips.
const REPEATED_WITHIN: Duration = Duration::from_secs(1);
/// That for an acknowledgement that is due, or for the pace, may come before the one that counts.
const TIMERS_TO_RESUME: usize = 2;
