use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{ConnectionId, Dial};
use crate::protocol::Random;

/// One address of the peer and the attempts to connect to it.
///
/// ```text
/// New ──► Opening ──► Waiting ──► Dialling ──► Connected
///                       ▲  ▲          │            │ (it ended)
///                       │  └──────────┘            │
///                       │  (refused, or no answer) │
///                       └──────────────────────────┘     Resting when all attempts are used up
/// ```
#[derive(Debug)]
pub(super) struct Target {
    pub(super) remote: SocketAddr,
    state: State,
    /// Attempts that may have reached the peer, and that nobody answered.
    unanswered: u32,
    /// Attempts that someone has refused, and connections that came to nothing.
    refusals: u32,
}

#[derive(Debug)]
enum State {
    /// An opener is to be sent.
    New { due: Instant },
    /// It is on its way.
    Opening { id: ConnectionId, until: Instant },
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
        Self { remote, state: State::New { due: now }, unanswered: 0, refusals: 0 }
    }

    pub(super) const fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::New { due } => Some(due),
            State::Opening { until, .. } | State::Waiting { until } | State::Dialling { until, .. } => {
                Some(until)
            }
            State::Connected | State::Resting => None,
        }
    }

    pub(super) fn is_dialling(&self, id: ConnectionId) -> bool {
        match self.state {
            State::Opening { id: known, .. } | State::Dialling { id: known, .. } => known == id,
            _ => false,
        }
    }

    /// The attempt that has had its time.
    pub(super) fn take_ended(&mut self, now: Instant) -> Option<ConnectionId> {
        match self.state {
            State::Opening { id, until } if until <= now => {
                self.state = State::Waiting { until: now };
                Some(id)
            }
            State::Dialling { id, until } if until <= now => {
                self.state = if self.is_exhausted() { State::Resting } else { State::Waiting { until: now } };
                Some(id)
            }
            _ => None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.state {
            State::New { due } => due <= now,
            State::Waiting { until } => until <= now,
            _ => false,
        }
    }

    /// The next attempt.
    pub(super) fn dial(&mut self, now: Instant, id: ConnectionId, random: &mut Random) -> Dial {
        if let State::New { .. } = self.state {
            self.state = State::Opening { id, until: now + OPENING };
            return Dial { id, remote: self.remote, hops: Some(OPENER_HOPS) };
        }
        // Two peers that give up and begin in step could miss each other for ever.
        let patience = ATTEMPT * (self.unanswered + 1) + jitter(random, ATTEMPT / 4);
        self.unanswered += 1;
        self.state = State::Dialling { id, until: now + patience.min(LONGEST_ATTEMPT) };
        Dial { id, remote: self.remote, hops: None }
    }

    /// The attempt was refused.
    pub(super) fn fail(&mut self, now: Instant, random: &mut Random) {
        match self.state {
            // An opener fails when a router tells that it died there, as it should.
            State::Opening { until, .. } => self.state = State::Waiting { until },
            State::Dialling { .. } => {
                self.unanswered -= 1;
                self.try_again(now, random);
            }
            State::New { .. } | State::Waiting { .. } | State::Connected | State::Resting => {}
        }
    }

    /// A connection with this address has ended. It need not have been ours, in which case our own attempts go on.
    pub(super) fn end(&mut self, now: Instant, random: &mut Random) {
        if let State::Connected = self.state {
            self.try_again(now, random);
        }
    }

    fn try_again(&mut self, now: Instant, random: &mut Random) {
        self.refusals += 1;
        let until = now + REFUSAL_WAIT + jitter(random, REFUSAL_WAIT);
        self.state = if self.is_exhausted() { State::Resting } else { State::Waiting { until } };
    }

    /// A connection stands.
    pub(super) const fn connect(&mut self) {
        if let State::Dialling { .. } = self.state {
            self.unanswered -= 1;
        }
        self.state = State::Connected;
    }

    const fn is_exhausted(&self) -> bool {
        self.unanswered >= UNANSWERED || self.refusals >= REFUSALS
    }
}

fn jitter(random: &mut Random, most: Duration) -> Duration {
    Duration::from_millis(random.below(u64::try_from(most.as_millis()).unwrap_or(1).max(1)))
}

/// As for datagrams: both NATs are to be open before the first packet gets to the other.
const OPENING: Duration = Duration::from_millis(40);
const OPENER_HOPS: u8 = 2;

/// How much longer each unanswered attempt lives than the one before. Systems repeat an attempt's packet after a second
/// only, so that a fresh attempt is quicker.
const ATTEMPT: Duration = Duration::from_millis(250);
const LONGEST_ATTEMPT: Duration = Duration::from_millis(950);

/// Attempts that nobody answers, each one packet: few, since a liar can name a victim's address.
const UNANSWERED: u32 = 5;

/// Attempts that are refused. Who refuses is there, so that more are worth their packets: the router of the peer may do
/// so until the peer begins.
const REFUSALS: u32 = 40;
const REFUSAL_WAIT: Duration = Duration::from_millis(60);
