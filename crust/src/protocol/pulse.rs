//! How long an attachment may be silent, learnt on the attachment itself.
//!
//! ```text
//!             introducer                NAT                    we
//!                 │  Still, after the silence asked for         │
//!                 │ ───────────────────► open ────────────────► │  in time: it lives that long. Twice: ask for a longer silence
//!                 │ ───────────────────► closed                 │
//!                 │                      open ◄──── keep-alive, five seconds later
//!                 │ ─── repeated ──────► open ────────────────► │  late: ask for a shorter one
//! ```
//!
//! What keeps a binding up is what we send, the acknowledgement of a Still as well. So the packet that finds out whether the binding
//! still lives is the one that keeps it alive, and nothing is sent for learning. An attempt that fails costs five seconds in which
//! we cannot be called, at most one for each silence that is tried, in six hours.
//!
//! A second socket whose silence is tried instead was weighed. It costs packets of its own, and shows something else: many NATs keep a
//! binding over which packets have gone both ways for a while four times as long as one that was used once.

use std::time::{Duration, Instant};

/// What is learnt about one attachment.
#[derive(Debug)]
pub(crate) struct Pulse {
    rate: Rate,
    /// How often in a row the introducer was heard in time.
    proofs: u32,
    /// That much and more did not work; tried again then.
    ceiling: Option<(Rate, Instant)>,
    /// When we said something last.
    silent_since: Option<Instant>,
    /// Something else has come since, and was acknowledged: this silence shows nothing.
    is_disturbed: bool,
}

/// Who speaks, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rate {
    /// We do, as often as is decent: the binding lives no longer than that.
    Ourselves,
    /// The introducer does, after one of [`SILENCES`].
    Introducer(usize),
}

/// What is to hold for the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm {
    /// After so many seconds of silence the introducer is to speak; 0: never.
    pub(crate) seconds: u16,
    /// After so long we do.
    pub(crate) keep_alive: Duration,
    pub(crate) dead_after: Duration,
}

impl Pulse {
    /// Of one that is not attached yet.
    pub(crate) const fn new() -> Self {
        Self { rate: Rate::FIRST, proofs: 0, ceiling: None, silent_since: None, is_disturbed: false }
    }

    /// The introducer calls us from now on: begins with what every NAT bears.
    pub(crate) fn handle_attached(&mut self, now: Instant) -> Rhythm {
        *self = Self { ceiling: self.ceiling, silent_since: Some(now), ..Self::new() };
        self.rhythm()
    }

    /// We have said something.
    pub(crate) const fn handle_sent(&mut self, now: Instant) {
        self.silent_since = Some(now);
        self.is_disturbed = false;
    }

    /// The introducer has said something else.
    pub(crate) const fn handle_heard(&mut self) {
        self.is_disturbed = true;
    }

    /// The introducer says that it is still there; gives what is to hold from now on, if that is new.
    pub(crate) fn handle_still(&mut self, now: Instant) -> Option<Rhythm> {
        let begun = self.silent_since.replace(now)?;
        if std::mem::take(&mut self.is_disturbed) {
            return None;
        }
        let Rate::Introducer(step) = self.rate else { return None };
        let (silent, asked) = (now.saturating_duration_since(begun), SILENCES[step]);
        let before = self.rate;
        if silent > asked + LATE {
            // Later still, and it was this host that slept.
            if silent < asked + GRACE + PATIENCE {
                self.fall_back(now);
            }
        } else if silent + EARLY >= asked {
            self.proofs += 1;
            if self.proofs >= PROOFS {
                self.go_on(now, step);
            }
        }
        (self.rate != before).then(|| self.rhythm())
    }

    /// The attachment is lost.
    pub(crate) fn handle_lost(&mut self, now: Instant) {
        // One that was never heard at this rate may be lost for it.
        if self.silent_since.take().is_some() && self.proofs == 0 && self.rate > Rate::FIRST {
            self.fall_back(now);
        }
    }

    /// This host has come into another network.
    pub(crate) const fn handle_network_change(&mut self) {
        self.ceiling = None;
    }

    fn go_on(&mut self, now: Instant, step: usize) {
        let next = Rate::Introducer(step + 1);
        let is_barred = self.ceiling.is_some_and(|(ceiling, until)| next >= ceiling && now < until);
        if step + 1 < SILENCES.len() && !is_barred {
            (self.rate, self.proofs) = (next, 0);
        }
    }

    fn fall_back(&mut self, now: Instant) {
        self.ceiling = Some((self.rate, now + TRIED_AGAIN));
        self.proofs = 0;
        self.rate = match self.rate {
            Rate::Introducer(step) if step > 0 => Rate::Introducer(step - 1),
            _ => Rate::Ourselves,
        };
    }

    fn rhythm(&self) -> Rhythm {
        let (seconds, keep_alive) = match self.rate {
            Rate::Ourselves => (0, SILENCES[0]),
            Rate::Introducer(step) => {
                let silence = SILENCES[step];
                let seconds = u16::try_from(silence.as_secs()).expect("it is at most a minute");
                (seconds, silence + GRACE)
            }
        };
        Rhythm { seconds, keep_alive, dead_after: keep_alive + PATIENCE }
    }
}

impl Rate {
    const FIRST: Self = Self::Introducer(0);
}

/// From what no NAT should be asked more often than (RFC 8085, section 3.5), by steps to a minute. Longer would spare little more, and as long as
/// this it may take until we notice that the introducer, or our router, was switched off and on.
const SILENCES: [Duration; 4] =
    [Duration::from_secs(15), Duration::from_secs(25), Duration::from_secs(40), Duration::from_secs(60)];
/// After that the introducer is no longer waited for, and we speak. A repetition of a lost packet takes less.
const GRACE: Duration = Duration::from_secs(5);
/// What comes later than this came by our keep-alive: half of the grace, for slow networks and busy machines on both sides.
const LATE: Duration = Duration::from_millis(2_500);
/// The introducer counts from when it heard us, and clocks are not all alike.
const EARLY: Duration = Duration::from_secs(1);
/// Once may be chance: something else may have kept the binding up.
const PROOFS: u32 = 2;
/// For an answer to our keep-alive, which is repeated until then.
const PATIENCE: Duration = Duration::from_secs(15);
/// A router may be exchanged for another in the same network.
const TRIED_AGAIN: Duration = Duration::from_secs(6 * 3_600);

#[cfg(test)]
mod tests;
