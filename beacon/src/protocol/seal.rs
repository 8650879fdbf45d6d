//! Hides what members of a private group say: every datagram is encrypted and authenticated under a key of its own.
//!
//! ```text
//!  0         3         4             28                          end - 16
//! +---------+---------+-------------+---------------------------+---------+
//! |  "bcn"  | version | salt        | ciphertext                | tag     |
//! |         | = 2     | 24 bytes    | of the envelope, padded   | 16      |
//! +---------+---------+-------------+---------------------------+---------+
//! ```
//!
//! The key is HKDF-SHA256 (RFC 5869) of the group's secret with the salt, the cipher ChaCha20-Poly1305 (RFC 8439) with
//! a nonce of zeros and the first 28 bytes as associated data: each key serves once. Nothing outside of the ciphertext is the
//! same in two datagrams of one beacon, so there is no identifier that could be followed; salts come from HMAC-SHA256 over a
//! counter, under a key that is drawn at the start.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256};
use ring::hmac;

use super::Seed;

/// What members of a private group share: 32 random bytes.
///
/// Not shown by `Debug`, and wiped from memory on drop.
///
/// ```
/// use beacon::GroupSecret;
///
/// let secret = GroupSecret::from_material(b"at least sixteen bytes that nobody can guess")?;
/// assert_eq!(format!("{secret:?}"), "GroupSecret(..)");
/// assert!(GroupSecret::from_material(b"too short").is_err());
/// # Ok::<(), beacon::SecretTooShort>(())
/// ```
#[derive(Clone)]
pub struct GroupSecret(zeroize::Zeroizing<[u8; 32]>);

impl GroupSecret {
    /// Wraps 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(zeroize::Zeroizing::new(bytes))
    }

    /// Derives a secret from what the members share in another form, such as the content of a file.
    ///
    /// It must be random, not a password: whoever records one datagram can try guesses at leisure.
    ///
    /// # Errors
    ///
    /// [`SecretTooShort`] below 16 bytes.
    pub fn from_material(material: &[u8]) -> Result<Self, SecretTooShort> {
        if material.len() < MIN_MATERIAL_BYTES {
            return Err(SecretTooShort { bytes: material.len() });
        }
        let derived = hkdf::Salt::new(HKDF_SHA256, b"").extract(material);
        let mut secret = Self::new([0; 32]);
        derived
            .expand(&[b"beacon group 1"], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *secret.0))
            .expect("32 bytes are one block of this hash");
        Ok(secret)
    }
}

impl std::fmt::Debug for GroupSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GroupSecret(..)")
    }
}

impl PartialEq for GroupSecret {
    fn eq(&self, other: &Self) -> bool {
        // Not to end early where the first byte differs.
        self.0.iter().zip(&*other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

impl Eq for GroupSecret {}

/// The material is too short to be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are too few for a secret: give at least {MIN_MATERIAL_BYTES} random ones")]
pub struct SecretTooShort {
    /// The length that was given.
    pub bytes: usize,
}

/// Seals and opens the datagrams of one beacon.
pub(super) struct Seal {
    secret: GroupSecret,
    salts: hmac::Key,
    sealed: u64,
}

impl Seal {
    pub(super) fn new(secret: GroupSecret, seed: &Seed) -> Self {
        // Another branch of the seed than the jitter's, from which salts could be told otherwise.
        let branch = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed.bytes()), b"beacon salts 1");
        Self { secret, salts: hmac::Key::new(hmac::HMAC_SHA256, branch.as_ref()), sealed: 0 }
    }

    /// Bytes that nobody can foretell, for challenges.
    pub(super) fn unforeseeable(&self, number: u64) -> [u8; 8] {
        let drawn = hmac::sign(&self.salts, &[&b"challenge"[..], &number.to_be_bytes()].concat());
        *drawn.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
    }

    /// Encrypts and authenticates an envelope.
    pub(super) fn seal(&mut self, envelope: &[u8]) -> Vec<u8> {
        self.sealed += 1;
        let drawn = hmac::sign(&self.salts, &[&b"salt"[..], &self.sealed.to_be_bytes()].concat());
        let mut bytes = Vec::with_capacity(OVERHEAD_BYTES + envelope.len());
        bytes.extend_from_slice(&PREFIX);
        bytes.extend_from_slice(&drawn.as_ref()[..SALT_BYTES]);
        let mut contents = envelope.to_vec();
        let key = self.key(&bytes);
        key.seal_in_place_append_tag(nonce(), Aad::from(&bytes), &mut contents)
            .expect("a datagram is far below the cipher's limit");
        bytes.append(&mut contents);
        bytes
    }

    /// Decrypts what a member of the group has sealed; `None` if nobody of them has.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (head, contents) = bytes.split_at_checked(HEAD_BYTES)?;
        if !head.starts_with(&PREFIX) || bytes.len() > super::MAX_PACKET_BYTES {
            return None;
        }
        let mut contents = contents.to_vec();
        let length = self.key(head).open_in_place(nonce(), Aad::from(head), &mut contents).ok()?.len();
        contents.truncate(length);
        Some(contents)
    }

    /// The key of one datagram, which begins with `head`.
    fn key(&self, head: &[u8]) -> LessSafeKey {
        let salt = hkdf::Salt::new(HKDF_SHA256, &head[PREFIX.len()..]);
        let derived = salt.extract(&*self.secret.0);
        let key = derived.expand(&[b"beacon datagram 1"], &CHACHA20_POLY1305);
        LessSafeKey::new(UnboundKey::from(key.expect("32 bytes are one block of this hash")))
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Seal(..)")
    }
}

/// Each key serves for one datagram.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// What hiding costs of each datagram.
pub(super) const OVERHEAD_BYTES: usize = HEAD_BYTES + 16;

const PREFIX: [u8; 4] = *b"bcn\x02";

/// 192 bits: however many datagrams a group sends, no two have the same key.
const SALT_BYTES: usize = 24;

const HEAD_BYTES: usize = PREFIX.len() + SALT_BYTES;

const MIN_MATERIAL_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_read_what_members_seal_and_nobody_else_does() {
        let (mut ada, bob, eve) = (seal(1, 1), seal(1, 2), seal(9, 3));

        let bytes = ada.seal(b"hello");

        assert_eq!(bytes.len(), 5 + OVERHEAD_BYTES);
        assert_eq!(bob.open(&bytes), Some(b"hello".to_vec()));
        assert_eq!(eve.open(&bytes), None);
    }

    #[test]
    fn nothing_changed_is_read() {
        let (mut ada, bob) = (seal(1, 1), seal(1, 2));
        let bytes = ada.seal(b"hello");

        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(bob.open(&other), None, "byte {at}");
            assert_eq!(bob.open(&bytes[..at]), None, "cut at {at}");
        }
        assert_eq!(bob.open(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn two_datagrams_of_one_beacon_have_nothing_in_common_but_the_version() {
        let mut ada = seal(1, 1);

        let (one, two) = (ada.seal(&[0; 1000]), ada.seal(&[0; 1000]));

        let equal = one.iter().zip(&two).skip(PREFIX.len()).filter(|(a, b)| a == b).count();
        assert!(equal < 20, "{equal} of 1,040 bytes are equal, where chance makes four");
        assert_ne!(ada.unforeseeable(1), ada.unforeseeable(2));
    }

    #[test]
    fn equal_material_gives_equal_secrets() {
        let of = |material: &[u8]| GroupSecret::from_material(material).expect("long enough");

        assert_eq!(of(&[1; 16]), of(&[1; 16]));
        assert_ne!(of(&[1; 16]), of(&[1; 17]));
        assert_eq!(GroupSecret::from_material(&[1; 15]), Err(SecretTooShort { bytes: 15 }));
    }

    fn seal(secret: u8, seed: u8) -> Seal {
        Seal::new(GroupSecret::new([secret; 32]), &Seed::new([seed; 32]))
    }
}
