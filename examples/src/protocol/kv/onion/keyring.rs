use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    keys::{OnionKey, OnionSecret, ReplayTag},
    packet::Packet,
    peel::{Opened, Refused},
};

/// What this node reads packets with: a key and, for a while, the one before. Each remembers what was read with it, so that nothing is
/// read twice; with the key this memory ends, and what was recorded under way can be read by nobody any more.
#[derive(Debug)]
pub(super) struct Keyring {
    present: Held,
    before: Option<Held>,
}

#[derive(Debug)]
struct Held {
    secret: OnionSecret,
    read: BTreeSet<ReplayTag>,
    begin: Instant,
    until: Instant,
}

/// Why a packet is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    Refused(Refused),
    /// It was here before.
    Again,
    /// As many were here as can be remembered.
    Full,
}

impl Keyring {
    pub(super) fn new(now: Instant, seed: [u8; 32]) -> Self {
        Self { present: Held::new(now, seed), before: None }
    }

    pub(super) const fn public(&self) -> OnionKey {
        self.present.secret.public()
    }

    /// Whether it is time for another key.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.present.until <= now || (self.present.is_full() && self.present.begin + LEAST <= now)
    }

    /// When it is, or the key before this one is to be forgotten.
    pub(super) fn poll_timeout(&self) -> Instant {
        let least = self.present.begin + LEAST;
        let next = if self.present.is_full() { least } else { self.present.until };
        self.before.as_ref().map_or(next, |before| before.until.min(next))
    }

    /// Takes another key.
    pub(super) fn replace(&mut self, now: Instant, seed: [u8; 32]) {
        let mut before = std::mem::replace(&mut self.present, Held::new(now, seed));
        before.until = now + GRACE;
        self.before = Some(before);
    }

    pub(super) fn forget(&mut self, now: Instant) {
        self.before.take_if(|before| before.until <= now);
    }

    /// Reads a packet, once.
    pub(super) fn read(&mut self, packet: &Packet) -> Result<Opened, Unread> {
        let mut why = Unread::Refused(Refused::Unreadable);
        for held in [Some(&mut self.present), self.before.as_mut()].into_iter().flatten() {
            match Opened::new(&held.secret, packet) {
                Ok(opened) => return held.note(opened.replay()).map(|()| opened),
                Err(Refused::Unreadable) => {}
                Err(other) => why = Unread::Refused(other),
            }
        }
        Err(why)
    }

    /// How many packets it remembers.
    pub(super) fn remembered(&self) -> usize {
        self.present.read.len() + self.before.as_ref().map_or(0, |before| before.read.len())
    }
}

impl Held {
    fn new(now: Instant, seed: [u8; 32]) -> Self {
        let secret = OnionSecret::from_seed(seed);
        Self { secret, read: BTreeSet::new(), begin: now, until: now + LIFE }
    }

    fn is_full(&self) -> bool {
        self.read.len() >= MAX_READ
    }

    fn note(&mut self, replay: ReplayTag) -> Result<(), Unread> {
        if self.read.contains(&replay) {
            return Err(Unread::Again);
        }
        if self.is_full() {
            return Err(Unread::Full);
        }
        self.read.insert(replay);
        Ok(())
    }
}

/// How long a key is used: what was recorded before cannot be read later, and few keys are told about.
pub(super) const LIFE: Duration = Duration::from_secs(600);
/// How long it is still read with: longer than an answer may take.
pub(super) const GRACE: Duration = Duration::from_secs(120);
/// Even if it is full a key is used so long, so that nobody can make this node tell everybody of new ones all the time.
const LEAST: Duration = Duration::from_secs(30);
/// Packets that are remembered of one key: 16 bytes each, less than 3 MiB in all, and more than one neighbour may send in its time.
pub(super) const MAX_READ: usize = 65_536;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning, and all is relative to it")]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_used_too_often_is_replaced_and_reads_no_more() {
        let begin = Instant::now();
        let mut keys = Keyring::new(begin, [1; 32]);
        for number in 0..MAX_READ as u128 {
            assert_eq!(keys.present.note(number.to_be_bytes()), Ok(()));
        }
        assert_eq!(keys.present.note(7_u128.to_be_bytes()), Err(Unread::Again));
        assert_eq!(
            keys.present.note(u128::MAX.to_be_bytes()),
            Err(Unread::Full),
            "it is not read, rather than twice"
        );
        assert!(!keys.is_due(begin) && keys.poll_timeout() == begin + LEAST);
        assert!(keys.is_due(begin + LEAST));
        keys.replace(begin + LEAST, [2; 32]);
        assert_eq!(keys.present.note(7_u128.to_be_bytes()), Ok(()));
        assert_eq!(keys.before.as_mut().unwrap().note(7_u128.to_be_bytes()), Err(Unread::Again));
        assert_eq!(keys.poll_timeout(), begin + LEAST + GRACE);
        keys.forget(begin + LEAST + GRACE);
        assert_eq!(keys.remembered(), 1);
        assert_eq!(keys.poll_timeout(), begin + LEAST + LIFE);
    }
}
