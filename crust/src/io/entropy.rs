use ring::{
    agreement::{EphemeralPrivateKey, X25519},
    rand::{SecureRandom as _, SystemRandom},
};

/// A secret key for one introduction.
///
/// # Panics
///
/// If the system has no entropy.
pub(crate) fn ephemeral() -> EphemeralPrivateKey {
    EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).expect("the operating system has entropy")
}

/// Thirty-two bytes that nobody else knows.
///
/// # Panics
///
/// If the system has no entropy.
#[cfg(feature = "turn")]
pub(crate) fn secret() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has entropy");
    bytes
}

/// The seed of something that need not be secret.
///
/// # Panics
///
/// If the system has no entropy.
pub(crate) fn seed() -> u64 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has entropy");
    u64::from_ne_bytes(bytes)
}

/// Bytes that no other message of a key is sealed with.
///
/// # Panics
///
/// If the system has no entropy.
#[cfg(feature = "dht")]
pub(crate) fn nonce() -> [u8; 12] {
    let mut bytes = [0; 12];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has entropy");
    bytes
}
