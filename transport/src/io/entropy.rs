use ring::rand::{SecureRandom as _, SystemRandom};

/// The one place where this crate asks for the system's entropy.
///
/// # Panics
///
/// If there is none, without which no key can be safe.
pub(crate) fn bytes<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has entropy");
    bytes
}
