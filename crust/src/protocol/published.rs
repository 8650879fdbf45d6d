//! What stands in the DHT of a peer: its contact, sealed, as the value of a mutable item (BEP 44).
//!
//! ```text
//!  0         1            13
//! +---------+------------+--------------------------------------------+
//! | version | nonce      | sealed by ChaCha20-Poly1305, with its tag  |
//! | = 1     | 12 bytes   |                                            |
//! +---------+------------+--------------------------------------------+
//!
//! inside:   | expires, unix seconds, 8 bytes | length, 2 bytes | contact, its byte form | zeros to a multiple of 64 |
//! ```
//!
//! The item is signed by the peer's key, blinded for [`CONTEXT`], under which it is found; it has no salt. The key of the seal is SHA-256 over
//! [`SEAL`] and the peer's key, the blinded key is authenticated with it. So both the place and the content are known to who knows the peer's
//! key, and to nobody else: those who store it included.

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    digest::{Context, SHA256},
};
use transport::PublicKey;

use super::contact_wire;
use crate::Contact;

/// What is wrong with an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("it belongs to a later version of this program: {found}, only {known} is known here", known = VERSION)]
    Version { found: u8 },
    #[error("it cannot be opened")]
    Sealed,
    #[error("it makes no sense: {0}")]
    Content(String),
    #[error("it expired {seconds_ago} seconds ago by this host's clock")]
    Expired { seconds_ago: u64 },
}

/// The value of the item. `nonce` is drawn anew for each.
pub(crate) fn seal(
    owner: &PublicKey,
    blinded: &PublicKey,
    contact: &Contact,
    expires: u64,
    nonce: [u8; NONCE_BYTES],
) -> Vec<u8> {
    let contact = contact_wire::encode(contact);
    let mut plain = expires.to_be_bytes().to_vec();
    let length = u16::try_from(contact.len()).expect("a contact is shorter");
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(&contact);
    plain.resize(plain.len().next_multiple_of(ROUNDED_BYTES), 0);
    let sealing = Aad::from(blinded.as_bytes());
    key(owner)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), sealing, &mut plain)
        .expect("it is short");
    [&[VERSION], &nonce[..], &plain].concat()
}

/// The contact in a value whose signature was found to be the blinded key's.
pub(crate) fn open(owner: &PublicKey, blinded: &PublicKey, value: &[u8], now: u64) -> Result<Contact, Flaw> {
    let (&version, rest) = value.split_first().ok_or(Flaw::Sealed)?;
    if version != VERSION {
        return Err(Flaw::Version { found: version });
    }
    let (&nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Flaw::Sealed)?;
    let mut sealed = sealed.to_vec();
    let plain = key(owner)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(blinded.as_bytes()), &mut sealed)
        .map_err(|_| Flaw::Sealed)?;
    let cut = || Flaw::Content("it is cut short".to_owned());
    let (expires, rest) = plain.split_first_chunk::<8>().ok_or_else(cut)?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let contact = rest.get(..usize::from(u16::from_be_bytes(*length))).ok_or_else(cut)?;
    let expires = u64::from_be_bytes(*expires);
    if expires <= now {
        return Err(Flaw::Expired { seconds_ago: now - expires });
    }
    let contact = contact_wire::decode(contact).map_err(|error| Flaw::Content(error.to_string()))?;
    if contact.public_key() != *owner {
        return Err(Flaw::Content("it is the contact of another peer".to_owned()));
    }
    Ok(contact)
}

/// What the signature of such an item covers (BEP 44).
pub(crate) fn signed_bytes(sequence: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = format!("3:seqi{sequence}e1:v{}:", value.len()).into_bytes();
    bytes.extend_from_slice(value);
    bytes
}

fn key(owner: &PublicKey) -> LessSafeKey {
    let mut context = Context::new(&SHA256);
    context.update(SEAL);
    context.update(owner.as_bytes());
    let key = UnboundKey::new(&CHACHA20_POLY1305, context.finish().as_ref());
    LessSafeKey::new(key.expect("keys of this cipher have 32 bytes"))
}

/// For what a peer's key is blinded here.
pub(crate) const CONTEXT: &str = "crust dht 1";
const SEAL: &[u8] = b"crust dht seal 1\0";
const VERSION: u8 = 1;
pub(crate) const NONCE_BYTES: usize = 12;
/// The length tells how many addresses there are but roughly.
const ROUNDED_BYTES: usize = 64;
/// The longest value: every contact fits, so nothing has to be left out.
pub(crate) const MAX_BYTES: usize =
    1 + NONCE_BYTES + (10 + contact_wire::MAX_BYTES).next_multiple_of(ROUNDED_BYTES) + 16;
/// BEP 44 bounds a value in its encoded form, which begins with a length and a colon.
const _: () = assert!(MAX_BYTES + "1000:".len() <= 1_000);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use transport::{Endpoint, Identity, Scheme};

    use super::*;
    use crate::Introducer;

    const NOW: u64 = 1_700_000_000;

    fn owner() -> (PublicKey, PublicKey) {
        let identity = Identity::from_seed([1; 32]);
        (identity.public_key(), identity.blinded(CONTEXT).public_key())
    }

    fn golden() -> (Contact, Vec<u8>) {
        let (key, blinded) = owner();
        let at = Endpoint::new(Scheme::Quic, "192.0.2.1:345".parse().unwrap(), key);
        let contact = Contact::new(key).endpoint(at).unwrap();
        let value = seal(&key, &blinded, &contact, NOW + 60, [9; NONCE_BYTES]);
        (contact, value)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>().trim_end().to_owned()
    }

    #[test]
    fn the_golden_bytes_of_docs_wire() {
        let ((key, blinded), (contact, value)) = (owner(), golden());
        assert_eq!(open(&key, &blinded, &value, NOW), Ok(contact));
        let document = include_str!("../../../docs/wire.md");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert!(words(document).contains(&hex(&value)), "{}", hex(&value));
        let signature = Identity::from_seed([1; 32]).blinded(CONTEXT).sign(&signed_bytes(7, &value));
        assert!(words(document).contains(&hex(&signature)), "{}", hex(&signature));
        assert!(blinded.has_signed(&signed_bytes(7, &value), &signature));
    }

    #[test]
    fn the_fullest_contact_fits() {
        let (key, blinded) = owner();
        let mut contact = Contact::new(key);
        let other = |seed: u8| Identity::from_seed([seed; 32]).public_key();
        for seed in 2..=5 {
            let at = Endpoint::new(Scheme::Quic, "[2001:db8::1]:345".parse().unwrap(), other(seed));
            contact = contact.introducer(Introducer::new(at).stun_port(3478)).unwrap();
        }
        for port in 1..=16 {
            let at = Endpoint::new(Scheme::Tcp, (std::net::Ipv6Addr::LOCALHOST, port).into(), key);
            let Ok(longer) = contact.clone().endpoint(at) else { break };
            contact = longer;
        }
        let value = seal(&key, &blinded, &contact, NOW + 60, [9; NONCE_BYTES]);
        assert!(value.len() > 600 && value.len() <= MAX_BYTES, "{}", value.len());
        assert_eq!(open(&key, &blinded, &value, NOW), Ok(contact));
    }

    #[test]
    fn what_is_forged_expired_or_anothers_is_refused() {
        let ((key, blinded), (contact, value)) = (owner(), golden());
        for at in 1..value.len() {
            let mut wrong = value.clone();
            wrong[at] ^= 1;
            assert_eq!(open(&key, &blinded, &wrong, NOW), Err(Flaw::Sealed), "at {at}");
            assert_eq!(open(&key, &blinded, &value[..at], NOW), Err(Flaw::Sealed), "at {at}");
        }
        assert_eq!(open(&key, &blinded, &[], NOW), Err(Flaw::Sealed));
        let mut later = value.clone();
        later[0] = 2;
        assert_eq!(open(&key, &blinded, &later, NOW), Err(Flaw::Version { found: 2 }));
        assert_eq!(open(&key, &blinded, &value, NOW + 60), Err(Flaw::Expired { seconds_ago: 0 }));
        assert_eq!(open(&key, &blinded, &value, NOW + 65), Err(Flaw::Expired { seconds_ago: 5 }));
        let stranger = Identity::from_seed([2; 32]).public_key();
        assert_eq!(open(&stranger, &blinded, &value, NOW), Err(Flaw::Sealed));
        assert_eq!(open(&key, &stranger, &value, NOW), Err(Flaw::Sealed));
        let others = seal(&stranger, &blinded, &contact, NOW + 60, [9; NONCE_BYTES]);
        assert!(matches!(open(&stranger, &blinded, &others, NOW), Err(Flaw::Content(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (key, blinded) = owner();
            let _ = open(&key, &blinded, &bytes, NOW);
        }
    }
}
