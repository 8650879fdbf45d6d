use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{ConnectionId, Dial};
use crate::protocol::Random;

/// One address of the peer and the attempts to connect to it.
///
/// ```text
/// Waiting ──► Dialling ──► Connected
///    ▲           │             │
///    └───────────┴─────────────┘ (refused, or it ended)          Resting when all attempts are used up
/// ```
///
/// An attempt that nobody answers is not given up for a fresh one: the system repeats its packet, and while it lasts,
/// the peer's own attempt meets it (simultaneous open). A fresh one would have another sequence number, of which the NAT
/// before us knows nothing: many take what belongs to it for forged, and drop it. For the same reason no packet that dies
/// on its way goes ahead as with UDP: the news of its death ends the attempt, and if the peer's packet comes then, the NAT
/// keeps the dead attempt's number for minutes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) remote: SocketAddr,
    state: State,
    /// Attempts that someone has refused, and connections that came to nothing.
    refusals: u32,
}

#[derive(Debug)]
enum State {
    /// The next attempt comes later.
    Waiting { until: Instant },
    /// An attempt is under way.
    Dialling { id: ConnectionId, since: Instant },
    /// A connection stands.
    Connected,
    /// All attempts are used up.
    Resting,
}

impl Target {
    pub(super) const fn new(remote: SocketAddr, now: Instant) -> Self {
        Self { remote, state: State::Waiting { until: now }, refusals: 0 }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Dialling { since, .. } => Some(since + ATTEMPT),
            State::Connected | State::Resting => None,
        }
    }

    pub(super) fn is_dialling(&self, id: ConnectionId) -> bool {
        matches!(self.state, State::Dialling { id: known, .. } if known == id)
    }

    /// The attempt that has had its time.
    pub(super) fn take_ended(&mut self, now: Instant) -> Option<ConnectionId> {
        match self.state {
            State::Dialling { id, since } if since + ATTEMPT <= now => {
                self.state = State::Resting;
                Some(id)
            }
            _ => None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    /// The next attempt.
    pub(super) fn dial(&mut self, now: Instant, id: ConnectionId) -> Dial {
        self.state = State::Dialling { id, since: now };
        Dial { id, remote: self.remote }
    }

    /// The attempt was refused.
    pub(super) fn fail(&mut self, now: Instant, random: &mut Random) {
        if let State::Dialling { since, .. } = self.state {
            self.try_again(now, now.saturating_duration_since(since), random);
        }
    }

    /// A connection with this address has ended. It need not have been ours, in which case our own attempts go on.
    pub(super) fn end(&mut self, now: Instant, random: &mut Random) {
        if let State::Connected = self.state {
            self.try_again(now, Duration::ZERO, random);
        }
    }

    /// Prepares the next attempt after one that was refused within `round_trip`.
    ///
    /// Where both routers refuse what is not asked for, both attempts must be under way at once, so the wait is short beside
    /// their time. It is drawn, since two peers that go in step could miss each other for ever.
    fn try_again(&mut self, now: Instant, round_trip: Duration, random: &mut Random) {
        let most = (round_trip / 2).clamp(SHORT_WAIT, LONG_WAIT);
        let drawn =
            Duration::from_millis(random.below(u64::try_from(most.as_millis()).expect("at most LONG_WAIT")));
        let later = LATER_WAIT * self.refusals.saturating_sub(SOON_REFUSALS);
        self.refusals += 1;
        let until = now + drawn + later;
        self.state = if self.refusals >= REFUSALS { State::Resting } else { State::Waiting { until } };
    }

    /// A connection stands.
    pub(super) const fn connect(&mut self) {
        self.state = State::Connected;
    }
}

/// How long an attempt lasts. Systems send its packet after 0, 1, 3, 7 and 15 seconds: this ends it before the fifth, since
/// a liar can name a victim's address.
const ATTEMPT: Duration = Duration::from_millis(14_500);

/// Attempts that are refused. Who refuses is there, so that more are worth their packets: the router of the peer may do
/// so until the peer begins.
const REFUSALS: u32 = 40;

/// Bounds of what a wait is drawn from.
const SHORT_WAIT: Duration = Duration::from_millis(10);
const LONG_WAIT: Duration = Duration::from_millis(500);

/// After these, each wait is longer than the one before, so that the last attempt comes ten seconds after the first.
const SOON_REFUSALS: u32 = 12;
const LATER_WAIT: Duration = Duration::from_millis(25);
