//! Keys that stand for a key without showing it: key blinding for Ed25519, as Tor's onion services do it (rend-spec-v3, appendix A.2) and
//! draft-irtf-cfrg-signature-key-blinding describes it.
//!
//! With A = a·B the key, and h a hash of A and a context, the blinded key is h·A: who knows A computes it, who holds a signs for it by the
//! scalar h·a, and who knows neither A nor a cannot tell it from any other key.

use std::fmt;

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    edwards::CompressedEdwardsY,
    scalar::clamp_integer,
    traits::{Identity as _, IsIdentity as _},
};
use ring::digest::{Context, SHA512};
use zeroize::Zeroizing;

use crate::{Identity, PublicKey};

/// The secret half of a [blinded](PublicKey::blinded) key: it signs for that key, and for nothing else.
///
/// ```
/// use transport::Identity;
///
/// let identity = Identity::generate();
/// let blinded = identity.blinded("a bulletin board");
/// assert_eq!(identity.public_key().blinded("a bulletin board"), Some(blinded.public_key()));
/// assert!(blinded.public_key().has_signed(b"lost: one cat", &blinded.sign(b"lost: one cat")));
/// ```
pub struct BlindedIdentity {
    scalar: Zeroizing<Scalar>,
    /// What makes the number used once of each signature, as in RFC 8032 §5.1.6.
    prefix: Zeroizing<[u8; 32]>,
    public_key: PublicKey,
}

impl Identity {
    /// The key that signs for this one where it must not be seen; see [`PublicKey::blinded`]. It tells nothing of this identity's secret.
    #[must_use]
    pub fn blinded(&self, context: &str) -> BlindedIdentity {
        let public_key = self.public_key();
        let expanded = Zeroizing::new(sha512(&[self.seed()]));
        let (secret, nonce) = expanded.split_at(32);
        let clamped = Zeroizing::new(clamp_integer(secret.try_into().expect("the half of 64 bytes")));
        let factor = factor(&public_key, context);
        let scalar = Zeroizing::new(factor * Scalar::from_bytes_mod_order(*clamped));
        let prefix = Zeroizing::new(sha512(&[NONCE, nonce, factor.as_bytes()]));
        let point = EdwardsPoint::mul_base(&scalar);
        BlindedIdentity {
            prefix: Zeroizing::new(*prefix.first_chunk().expect("64 bytes")),
            public_key: PublicKey::from_bytes(point.compress().to_bytes()),
            scalar,
        }
    }
}

impl PublicKey {
    /// The key that stands for this one in a context: everybody who knows this key and the context can compute it and judge what its
    /// holder has [signed](BlindedIdentity::sign) for it, and nobody else can tell whose it is, nor that two of different contexts belong to
    /// one holder. `None` if these bytes are no key that an identity has.
    #[must_use]
    pub fn blinded(&self, context: &str) -> Option<Self> {
        let point = CompressedEdwardsY(*self.as_bytes()).decompress()?;
        // Without this, some strange keys would share a blinded one.
        if !point.is_torsion_free() || point.is_identity() {
            return None;
        }
        let blinded = factor(self, context) * point;
        (blinded != EdwardsPoint::identity()).then(|| Self::from_bytes(blinded.compress().to_bytes()))
    }
}

impl BlindedIdentity {
    /// The blinded key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Signs exactly these bytes for the blinded key (Ed25519, RFC 8032 §5.1.6); [`PublicKey::has_signed`] judges it.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let once = Zeroizing::new(Scalar::from_bytes_mod_order_wide(&sha512(&[&*self.prefix, message])));
        let commitment = EdwardsPoint::mul_base(&once).compress().to_bytes();
        let challenge = sha512(&[&commitment, self.public_key.as_bytes(), message]);
        let response = *once + Scalar::from_bytes_mod_order_wide(&challenge) * *self.scalar;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&commitment);
        signature[32..].copy_from_slice(response.as_bytes());
        signature
    }
}

impl fmt::Debug for BlindedIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BlindedIdentity")
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

/// What a key is multiplied by in a context.
fn factor(key: &PublicKey, context: &str) -> Scalar {
    let length = (context.len() as u64).to_be_bytes();
    Scalar::from_bytes_mod_order_wide(&sha512(&[FACTOR, &length, context.as_bytes(), key.as_bytes()]))
}

fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut context = Context::new(&SHA512);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-512 has 64 bytes")
}

const FACTOR: &[u8] = b"crust blinded key 1\0";
const NONCE: &[u8] = b"crust blinded nonce 1\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_give_the_same_key_and_its_signatures_count_for_nothing_else() {
        for seed in 0..32 {
            let identity = Identity::from_seed([seed; 32]);
            let key = identity.public_key();
            let blinded = identity.blinded("one");
            assert_eq!(key.blinded("one"), Some(blinded.public_key()));
            let signature = blinded.sign(b"message");
            assert!(blinded.public_key().has_signed(b"message", &signature));
            assert!(!blinded.public_key().has_signed(b"massage", &signature));
            assert!(!key.has_signed(b"message", &signature));
            let other = identity.blinded("two").public_key();
            assert!(other != blinded.public_key() && other != key);
            assert!(!other.has_signed(b"message", &signature));
        }
    }

    #[test]
    fn the_golden_bytes_of_docs_wire() {
        let blinded = Identity::from_seed([1; 32]).blinded("crust dht 1");
        let document = include_str!("../../docs/wire.md");
        let key = blinded.public_key().to_string();
        assert!(document.contains(&key), "{key}");
    }

    #[test]
    fn what_no_identity_has_is_not_blinded() {
        // The neutral point, one of order eight, one that has such a part, and bytes that are no point.
        let neutral = EdwardsPoint::identity().compress().to_bytes();
        let eight = curve25519_dalek::constants::EIGHT_TORSION[1];
        let mixed = EdwardsPoint::mul_base(&Scalar::from(7_u8)) + eight;
        let none = [2; 32];
        assert!(CompressedEdwardsY(none).decompress().is_none());
        for bytes in [neutral, eight.compress().to_bytes(), mixed.compress().to_bytes(), none] {
            assert_eq!(PublicKey::from_bytes(bytes).blinded("one"), None);
        }
    }

    #[test]
    fn the_secret_is_not_in_debug() {
        let blinded = Identity::from_seed([7; 32]).blinded("one");
        let text = format!("{blinded:?}");
        assert!(text.contains(&blinded.public_key().to_string()) && !text.contains("scalar"), "{text}");
    }
}
