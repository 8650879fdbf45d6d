use ring::rand::{SecureRandom as _, SystemRandom};

use crate::protocol::Seed;

/// The one place where this crate asks for the system's entropy.
///
/// # Panics
///
/// If there is none, without which nothing drawn could be kept from others.
pub(crate) fn seed() -> Seed {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has entropy");
    Seed::from_bytes(bytes)
}
