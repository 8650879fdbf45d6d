//! What a beacon with a group secret does beside: seals what it says, opens what it hears, and judges how fresh that is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::envelope::{Challenge, Cover, Envelope, MAX_ECHOES};
use super::freshness::{Freshness, Verdict, Word};
use super::seal::Seal;
use super::{GroupSecret, Kind, Link, Packet, Seed, TooLarge};

/// A member's side of a private group.
#[derive(Debug)]
pub(super) struct Private {
    seal: Seal,
    freshness: Freshness,
    /// The challenges of others, the latest first.
    challenges: VecDeque<(Instant, Challenge)>,
}

impl Private {
    pub(super) fn new(secret: GroupSecret, seed: &Seed) -> Self {
        let (seal, freshness) = (Seal::new(secret, seed), Freshness::new());
        Self { seal, freshness, challenges: VecDeque::new() }
    }

    pub(super) fn set_clock(&mut self, now: Instant, time: Duration) {
        self.freshness.set_clock(now, time);
    }

    /// What a datagram says, if a member has sealed it.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.seal.open(bytes)
    }

    /// Judges an opened word, and remembers what it asks to be repeated.
    pub(super) fn judge(&mut self, now: Instant, envelope: &Envelope<'_>, packet: &Packet<'_>) -> Verdict {
        let (time, echoes) = (envelope.time, &envelope.echoes[..]);
        let word = Word { id: packet.id, sequence: packet.sequence, time, echoes };
        let verdict = self.freshness.judge(now, &self.seal, word);
        if packet.kind.asks() && matches!(verdict, Verdict::Fresh | Verdict::Doubtful) {
            self.challenges.retain(|(_, challenge)| *challenge != envelope.challenge);
            self.challenges.truncate(MAX_ECHOES - 1);
            self.challenges.push_front((now, envelope.challenge));
        }
        verdict
    }

    /// Seals a packet for a link.
    pub(super) fn seal(
        &mut self,
        now: Instant,
        link: &Link,
        packet: &Packet<'_>,
        data_length: usize,
    ) -> Result<Vec<u8>, TooLarge> {
        self.challenges.retain(|(said, _)| now.saturating_duration_since(*said) < ECHO_TIME);
        let cover = Cover {
            time: self.freshness.time(now),
            challenge: self.freshness.challenges(now, &self.seal)[0],
            echoes: self.challenges.iter().map(|(_, challenge)| *challenge).collect(),
            addresses: link.speaking().collect(),
        };
        // Who leaves has nothing to hide behind but the size of what it said before.
        let data_length = if packet.kind == Kind::Goodbye { data_length } else { packet.data.len() };
        Ok(self.seal.seal(&cover.encode(packet, data_length)?))
    }
}

/// Who asked longer ago has asked again or does not wait any more.
const ECHO_TIME: Duration = Duration::from_secs(10);
