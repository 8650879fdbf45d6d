use ring::{hkdf, hmac};
use thiserror::Error;

/// What two peers agree on before they punch: who leads, and the keys that prove a packet to be the other's.
///
/// Each direction has a key of its own, so that a packet that is thrown back at its sender proves nothing.
#[derive(Clone)]
pub struct PunchKeys {
    pub(super) tag: [u8; TAG_BYTES],
    pub(super) ours: hmac::Key,
    pub(super) theirs: hmac::Key,
    pub(super) leads: bool,
    export: hmac::Key,
}

/// Why no keys could be agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the peer's information is our own")]
pub struct KeyError;

impl PunchKeys {
    /// Derives the keys by HKDF-SHA256 from a secret that only the two peers know and from what each of them told the
    /// other, in bytes. Both get the same keys only if both saw the same. The one with the larger bytes leads.
    ///
    /// # Errors
    ///
    /// If both told the same: then there is only one peer.
    pub fn derive(secret: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Self, KeyError> {
        if ours == theirs {
            return Err(KeyError);
        }
        let leads = ours > theirs;
        let (larger, smaller) = if leads { (ours, theirs) } else { (theirs, ours) };
        let length = u64::try_from(larger.len()).expect("a length in memory").to_be_bytes();
        let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, b"nat-traversal punch 1").extract(secret);
        let key = |purpose: &[u8]| {
            let context = [purpose, &length, larger, smaller];
            let output = pseudorandom.expand(&context, hkdf::HKDF_SHA256).expect("32 bytes are few");
            let mut key = [0; 32];
            output.fill(&mut key).expect("as long as asked for");
            key
        };
        let leader = hmac::Key::new(hmac::HMAC_SHA256, &key(b"leader"));
        let follower = hmac::Key::new(hmac::HMAC_SHA256, &key(b"follower"));
        let tag = key(b"tag")[..TAG_BYTES].try_into().expect("a part of 32 bytes");
        let export = hmac::Key::new(hmac::HMAC_SHA256, &key(b"export"));
        let (ours, theirs) = if leads { (leader, follower) } else { (follower, leader) };
        Ok(Self { tag, ours, theirs, leads, export })
    }

    /// Whether we choose the pair of addresses that is used in the end.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.leads
    }

    /// A secret of the two peers for another purpose, the same on both sides. It tells nothing about other secrets.
    #[must_use]
    pub fn export(&self, purpose: &[u8]) -> [u8; 32] {
        hmac::sign(&self.export, purpose).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl std::fmt::Debug for PunchKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PunchKeys").field("leads", &self.leads).finish_non_exhaustive()
    }
}

/// Names the attempt in the clear, so that a socket shared by several finds the right one.
pub(super) const TAG_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_get_the_same_keys_crosswise_and_one_leads() {
        let (a, b) =
            (PunchKeys::derive(b"s", b"a", b"b").unwrap(), PunchKeys::derive(b"s", b"b", b"a").unwrap());
        assert_eq!((a.tag, a.leads), (b.tag, !b.leads));
        assert!(hmac::verify(&b.theirs, b"x", hmac::sign(&a.ours, b"x").as_ref()).is_ok());
        assert!(hmac::verify(&a.theirs, b"x", hmac::sign(&b.ours, b"x").as_ref()).is_ok());
        assert!(hmac::verify(&a.theirs, b"x", hmac::sign(&a.ours, b"x").as_ref()).is_err(), "a reflection");
        assert_eq!(a.export(b"tag"), b.export(b"tag"));
        assert_ne!(a.export(b"tag"), a.export(b"gat"));
    }

    #[test]
    fn another_secret_or_another_information_gives_other_keys() {
        let keys = PunchKeys::derive(b"s", b"a", b"b").unwrap();
        for other in [PunchKeys::derive(b"t", b"b", b"a"), PunchKeys::derive(b"s", b"b", b"A")] {
            let other = other.unwrap();
            assert_ne!(keys.tag, other.tag);
            assert!(hmac::verify(&other.theirs, b"x", hmac::sign(&keys.ours, b"x").as_ref()).is_err());
        }
    }

    #[test]
    fn there_are_no_keys_with_oneself_and_none_are_printed() {
        assert_eq!(PunchKeys::derive(b"s", b"a", b"a").unwrap_err(), KeyError);
        let keys = PunchKeys::derive(b"s", b"a", b"b").unwrap();
        assert_eq!(format!("{keys:?}"), "PunchKeys { leads: false, .. }");
    }
}
