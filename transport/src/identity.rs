use std::{fmt, str::FromStr};

use data_encoding::{BASE32_NOPAD, BASE64};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::{Zeroize, Zeroizing};

/// A secret Ed25519 key: what a peer proves itself with.
///
/// There is no way to print it by accident: no `Debug` of the secret, no `Display`, no `Clone`. It is wiped from
/// memory on drop.
///
/// ```
/// use transport::Identity;
///
/// let identity = Identity::generate();
/// let saved = identity.to_pkcs8_pem();
/// let again = Identity::from_pkcs8_pem(&saved)?;
/// assert_eq!(identity.public_key(), again.public_key());
/// # Ok::<(), transport::IdentityError>(())
/// ```
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    public_key: PublicKey,
}

impl Identity {
    /// Draws a new key from the system's entropy.
    ///
    /// # Panics
    ///
    /// If the operating system has no entropy to give, without which nothing here can be safe.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_seed(crate::io::entropy::bytes())
    }

    /// Makes the key of a 32-byte seed (RFC 8032 §5.1.5); the same seed gives the same key.
    #[must_use]
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("every 32-byte string is a seed");
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        let identity = Self { seed: Zeroizing::new(seed), public_key: PublicKey(public) };
        seed.zeroize();
        identity
    }

    /// The public half: what others know this peer by.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Reads a key from PKCS#8 PEM (RFC 7468 §10, RFC 8410 §7), as [`Identity::to_pkcs8_pem`] and
    /// `openssl genpkey -algorithm ed25519` write it.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] when the text is no such file; the text itself is never part of the error.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, IdentityError> {
        let start = pem.find(PEM_BEGIN).ok_or(IdentityError::NotPem)? + PEM_BEGIN.len();
        let length = pem[start..].find(PEM_END).ok_or(IdentityError::NotPem)?;
        let base64: Zeroizing<String> =
            Zeroizing::new(pem[start..start + length].chars().filter(|c| !c.is_ascii_whitespace()).collect());
        let der = Zeroizing::new(BASE64.decode(base64.as_bytes()).map_err(|_| IdentityError::NotPem)?);
        let seed = der.strip_prefix(PKCS8_PREFIX).and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        seed.map(Self::from_seed).ok_or(IdentityError::NotEd25519)
    }

    /// Writes the key as PKCS#8 PEM. Whoever reads this text can pass for this peer.
    #[must_use]
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        let base64 = Zeroizing::new(BASE64.encode(&self.to_pkcs8_der()));
        Zeroizing::new(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", *base64))
    }

    /// Signs a message for one purpose; see [`Transport::sign_for`](crate::Transport::sign_for), which does the same.
    #[must_use]
    pub fn sign_for(&self, purpose: &str, message: &[u8]) -> [u8; 64] {
        let signature = self.signer().sign(&signed_bytes(purpose, message));
        signature.as_ref().try_into().expect("signatures of Ed25519 have 64 bytes")
    }

    /// A secret for another purpose, the same whenever this identity is used. It tells nothing about the key.
    pub(crate) fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &*self.seed);
        ring::hmac::sign(&key, purpose).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    #[cfg(feature = "blinding")]
    pub(crate) fn seed(&self) -> &[u8] {
        &*self.seed
    }

    /// What signs with this key.
    pub(crate) fn signer(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&*self.seed).expect("every 32-byte string is a seed")
    }

    /// PKCS#8 version 1 (RFC 5958): a fixed head, then the seed.
    pub(crate) fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + 32));
        der.extend_from_slice(PKCS8_PREFIX);
        der.extend_from_slice(&*self.seed);
        der
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

/// An Ed25519 public key: the name of a peer, wherever it is.
///
/// As text it is 52 characters of lower-case base32 (RFC 4648 §6, no padding), which fit one DNS label.
///
/// ```
/// use transport::{Identity, PublicKey};
///
/// let key = Identity::from_seed([7; 32]).public_key();
/// assert_eq!(key.to_string().len(), 52);
/// assert_eq!(key.to_string().parse::<PublicKey>()?, key);
/// # Ok::<(), transport::ParsePublicKeyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes 32 bytes as a key. Whether they are a point on the curve shows in the first handshake.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether the holder of this key signed that message; see [`Transport::sign`](crate::Transport::sign).
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// Whether the holder of this key signed that message for that purpose; see [`Transport::sign_for`](crate::Transport::sign_for).
    ///
    /// ```
    /// use transport::Identity;
    ///
    /// let identity = Identity::generate();
    /// let signature = identity.sign_for("a game: move", b"e4");
    /// assert!(identity.public_key().has_signed_for("a game: move", b"e4", &signature));
    /// assert!(!identity.public_key().has_signed_for("a game: resign", b"e4", &signature));
    /// ```
    #[must_use]
    pub fn has_signed_for(&self, purpose: &str, message: &[u8], signature: &[u8]) -> bool {
        self.has_signed(&signed_bytes(purpose, message), signature)
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for PublicKey {
    type Err = ParsePublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = text.len();
        if length != PUBLIC_KEY_CHARS {
            return Err(ParsePublicKeyError::Length { length });
        }
        let bytes = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|error| ParsePublicKeyError::Character { position: error.position })?;
        Ok(Self(bytes.try_into().expect("52 characters of base32 are 32 bytes")))
    }
}

/// What is signed for a purpose: words that no other format begins with, the length of the purpose (8 bytes, network order), the
/// purpose, the message.
pub(crate) fn signed_bytes(purpose: &str, message: &[u8]) -> Vec<u8> {
    let length = (purpose.len() as u64).to_be_bytes();
    [SIGNED, &length, purpose.as_bytes(), message].concat()
}

/// Why a file is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no `PRIVATE KEY` block, or it is damaged.
    #[error("no PKCS#8 PEM block `{PEM_BEGIN}`")]
    NotPem,
    /// The block holds another kind of key.
    #[error("the PEM block is not an Ed25519 private key in PKCS#8 version 1")]
    NotEd25519,
}

/// Why a text is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePublicKeyError {
    /// A key has 52 characters.
    #[error("a public key has {PUBLIC_KEY_CHARS} characters, this has {length} bytes")]
    Length {
        /// What the text has, in bytes.
        length: usize,
    },
    /// A character is not one of `a` to `z` and `2` to `7`, or the last one carries bits beyond the key.
    #[error("the character at {position} is not base32 (a to z, 2 to 7)")]
    Character {
        /// Where, counted from 0.
        position: usize,
    },
}

const SIGNED: &[u8] = b"crust signature 1\n";
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
/// RFC 8410 §7: SEQUENCE { version 0, AlgorithmIdentifier id-Ed25519, OCTET STRING { OCTET STRING { seed } } }.
const PKCS8_PREFIX: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const PUBLIC_KEY_CHARS: usize = 52;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_key_of_rfc_8410() {
        // RFC 8410 §10.3 and the public key of §10.1.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        let public = BASE64.decode(b"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").unwrap();
        assert_eq!(Identity::from_pkcs8_pem(pem).unwrap().public_key().as_bytes()[..], public);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_does_not_show_it() {
        let pem = Identity::from_seed([1; 32]).to_pkcs8_pem();
        assert_eq!(Identity::from_pkcs8_pem("").unwrap_err(), IdentityError::NotPem);
        assert_eq!(Identity::from_pkcs8_pem(&pem[..60]).unwrap_err(), IdentityError::NotPem);
        assert_eq!(
            Identity::from_pkcs8_pem(&pem.replace("MC4C", "MC5C")).unwrap_err(),
            IdentityError::NotEd25519
        );
    }

    #[test]
    fn what_is_signed_for_a_purpose_is_as_the_document_draws_it() {
        let golden = b"crust signature 1\n\0\0\0\0\0\0\0\x05chesse4";
        assert_eq!(signed_bytes("chess", b"e4"), golden);
        let identity = Identity::from_seed([7; 32]);
        assert!(identity.public_key().has_signed(golden, &identity.sign_for("chess", b"e4")));
    }

    #[test]
    fn the_secret_is_not_in_debug() {
        let text = format!("{:?}", Identity::from_seed([0xab; 32]));
        assert!(!text.contains("171") && !text.to_lowercase().contains("abab"), "{text}");
    }

    #[test]
    fn a_key_with_stray_bits_or_another_length_is_refused() {
        let text = PublicKey::from_bytes([0; 32]).to_string();
        assert!(format!("{}b", &text[..51]).parse::<PublicKey>().is_err());
        assert_eq!(text[1..].parse::<PublicKey>(), Err(ParsePublicKeyError::Length { length: 51 }));
        assert_eq!(text.to_uppercase().parse(), Ok(PublicKey::from_bytes([0; 32])));
    }
}
