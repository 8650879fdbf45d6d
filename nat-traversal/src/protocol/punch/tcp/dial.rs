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
    Dialling { id: ConnectionId, until: Instant },
    /// A connection stands.
    Connected,
    /// All attempts are used up.
    Resting,
}

impl Target {
    pub(super) const fn new(remote: SocketAddr, now: Instant) -> Self {
        Self { remote, state: State::Waiting { until: now }, refusals: 0 }
    }

    pub(super) const fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Dialling { until, .. } => Some(until),
            State::Connected | State::Resting => None,
        }
    }

    pub(super) fn is_dialling(&self, id: ConnectionId) -> bool {
        matches!(self.state, State::Dialling { id: known, .. } if known == id)
    }

    /// The attempt that has had its time.
    pub(super) fn take_ended(&mut self, now: Instant) -> Option<ConnectionId> {
        match self.state {
            State::Dialling { id, until } if until <= now => {
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
        self.state = State::Dialling { id, until: now + ATTEMPT };
        Dial { id, remote: self.remote }
    }

    /// The attempt was refused.
    pub(super) fn fail(&mut self, now: Instant, random: &mut Random) {
        if let State::Dialling { .. } = self.state {
            self.try_again(now, random);
        }
    }

    /// A connection with this address has ended. It need not have been ours, in which case our own attempts go on.
    pub(super) fn end(&mut self, now: Instant, random: &mut Random) {
        if let State::Connected = self.state {
            self.try_again(now, random);
        }
    }

    fn try_again(&mut self, now: Instant, random: &mut Random) {
        // Two peers that are refused and begin in step could miss each other for ever.
        let wait = REFUSAL_WAIT_MS + REFUSAL_WAIT_GROWTH_MS * u64::from(self.refusals);
        let until = now + Duration::from_millis(wait + random.below(wait));
        self.refusals += 1;
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

/// Where both routers refuse, the attempts must cross on their way: the shorter the wait, the sooner they do. It grows, so
/// that the last comes more than ten seconds after the first.
const REFUSAL_WAIT_MS: u64 = 30;
const REFUSAL_WAIT_GROWTH_MS: u64 = 10;
