//! The only reader of the system's entropy.

use ring::rand::{SecureRandom, SystemRandom};

use crate::protocol::Seed;

/// A fresh seed, or `None` if the system has no entropy to give.
pub(crate) fn seed() -> Option<Seed> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(Seed::new(bytes))
}
