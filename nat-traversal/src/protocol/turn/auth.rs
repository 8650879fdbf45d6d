use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::failure::TurnFailure;
use super::md5;
use crate::protocol::stun::{Message, MessageBuilder, attribute};

/// Who we are to a TURN server, by the long-term credentials of
/// [RFC 8489, section 9.2](https://www.rfc-editor.org/rfc/rfc8489#section-9.2).
///
/// The password is never printed, and wiped from memory at the end. Name and password are taken as they are: who uses
/// letters beyond ASCII has them in the form in which the server has them.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnCredentials {
    username: String,
    password: Zeroizing<String>,
}

impl TurnCredentials {
    /// The name and the password of a user.
    #[must_use]
    pub fn new(username: &str, password: &str) -> Self {
        Self { username: username.to_owned(), password: Zeroizing::new(password.to_owned()) }
    }

    /// The user's name.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password, to be handed to the user: a secret.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The key of signed messages in a realm, in the classic form.
    pub(crate) fn classic_key(&self, realm: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.key_bytes(realm, Algorithm::Md5))
    }

    /// The key of the password in a realm.
    fn key_bytes(&self, realm: &[u8], algorithm: Algorithm) -> Zeroizing<Vec<u8>> {
        let parts = [self.username.as_bytes(), b":", realm, b":", self.password.as_bytes()];
        Zeroizing::new(match algorithm {
            Algorithm::Md5 => md5::digest(&parts).to_vec(),
            Algorithm::Sha256 => {
                let mut context = digest::Context::new(&digest::SHA256);
                parts.iter().for_each(|part| context.update(part));
                context.finish().as_ref().to_vec()
            }
        })
    }
}

impl std::fmt::Debug for TurnCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Our credentials and what the server last challenged us with.
#[derive(Debug)]
pub(super) struct Auth {
    credentials: TurnCredentials,
    challenge: Option<Challenge>,
}

/// What a server wants requests to be signed with.
struct Challenge {
    realm: Vec<u8>,
    nonce: Vec<u8>,
    /// The server's list of algorithms as it came, which goes back with each request, and our choice.
    chosen: Option<(Vec<u8>, Algorithm)>,
    key: hmac::Key,
}

/// How a password becomes a key (RFC 8489, section 18.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Auth {
    pub(super) const fn new(credentials: TurnCredentials) -> Self {
        Self { credentials, challenge: None }
    }

    /// Whether requests are signed by now.
    pub(super) const fn is_challenged(&self) -> bool {
        self.challenge.is_some()
    }

    /// Forgets the challenge: another server has its own.
    pub(super) fn forget(&mut self) {
        self.challenge = None;
    }

    /// Takes the challenge in an error answer. What a 438 leaves out stays as it was.
    pub(super) fn take_challenge(&mut self, message: &Message<'_>) -> Result<(), TurnFailure> {
        let value = |kind| message.find(kind).map(|found| found.value);
        let fits = |value: &&[u8]| value.len() <= MAX_TEXT_BYTES;
        let known = self.challenge.as_ref().map(|challenge| challenge.realm.clone());
        let realm = value(attribute::REALM).filter(fits).map(<[u8]>::to_vec).or(known);
        let nonce = value(attribute::NONCE).filter(fits);
        let (Some(realm), Some(nonce)) = (realm, nonce) else { return Err(TurnFailure::BadAnswer) };
        let listed = value(attribute::PASSWORD_ALGORITHMS).filter(fits);
        let chosen = match listed {
            Some(list) => Some((list.to_vec(), choose(list).ok_or(TurnFailure::NoAlgorithm)?)),
            // The nonce, which the server signs in its way, says that there was a list: someone has taken it out, so
            // that we use what is easier to break (RFC 8489, section 9.2.5).
            None if promises_algorithms(nonce) => return Err(TurnFailure::BidDown),
            None => None,
        };
        let algorithm = chosen.as_ref().map_or(Algorithm::Md5, |(_, algorithm)| *algorithm);
        let hash = if chosen.is_some() { hmac::HMAC_SHA256 } else { hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY };
        let key = hmac::Key::new(hash, &self.credentials.key_bytes(&realm, algorithm));
        self.challenge = Some(Challenge { realm, nonce: nonce.to_vec(), chosen, key });
        Ok(())
    }

    /// Ends a request: signed, once there is a challenge.
    pub(super) fn sign(&self, builder: MessageBuilder) -> Vec<u8> {
        let Some(challenge) = &self.challenge else { return builder.finish() };
        let mut builder = builder
            .attribute(attribute::USERNAME, self.credentials.username.as_bytes())
            .attribute(attribute::REALM, &challenge.realm)
            .attribute(attribute::NONCE, &challenge.nonce);
        if let Some((list, algorithm)) = &challenge.chosen {
            builder = builder
                .attribute(attribute::PASSWORD_ALGORITHMS, list)
                .attribute(attribute::PASSWORD_ALGORITHM, &[0, algorithm.number(), 0, 0]);
        }
        builder.integrity(&challenge.key).finish()
    }

    /// Whether an answer comes from someone who knows the password.
    pub(super) fn verifies(&self, message: &Message<'_>) -> bool {
        self.challenge.as_ref().is_some_and(|challenge| message.has_integrity(&challenge.key))
    }
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenge").field("chosen", &self.chosen).finish_non_exhaustive()
    }
}

impl Algorithm {
    const fn number(self) -> u8 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }
}

/// The best algorithm of a list: `| number (16) | length (16) | parameters, padded to 32 bits |` for each.
fn choose(mut list: &[u8]) -> Option<Algorithm> {
    let mut best = None;
    while let Some((head, rest)) = list.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        match u16::from_be_bytes([head[0], head[1]]) {
            1 if best.is_none() => best = Some(Algorithm::Md5),
            2 => best = Some(Algorithm::Sha256),
            _ => {}
        }
        list = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    best
}

/// Whether a nonce begins with the cookie of RFC 8489, section 9.2, and its bit for password algorithms.
fn promises_algorithms(nonce: &[u8]) -> bool {
    let Some((features, _)) = nonce.strip_prefix(b"obMatJos2").and_then(|rest| rest.split_first_chunk::<4>())
    else {
        return false;
    };
    data_encoding::BASE64.decode(features).is_ok_and(|bits| bits[0] & 0x80 != 0)
}

/// The most that RFC 8489 allows for realm and nonce, sections 14.9 and 14.10.
const MAX_TEXT_BYTES: usize = 763;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stun::{Class, Method, TransactionId};

    #[test]
    fn the_key_is_that_of_rfc_5769_and_with_sha_256_that_of_rfc_8489() {
        let credentials = TurnCredentials::new("user", "pass");
        let key = |algorithm| data_encoding::HEXLOWER.encode(&credentials.key_bytes(b"realm", algorithm));
        // RFC 8489, section 9.2.2 gives the first of them.
        assert_eq!(key(Algorithm::Md5), "8493fbc53ba582fb4c044c456bdc40eb");
        assert_eq!(
            key(Algorithm::Sha256),
            "07e934117abd40836e7c6329b54731b2b2d2a5f9a71f544922d75e0730d8251b"
        );
    }

    #[test]
    fn without_a_list_of_algorithms_requests_are_signed_as_ever() {
        let mut auth = auth();
        assert!(!auth.is_challenged());
        auth.take_challenge(&Message::decode(&challenge(b"nonce", None)).unwrap()).unwrap();
        let bytes = auth.sign(request());
        let signed = Message::decode(&bytes).unwrap();
        assert!(signed.find(attribute::MESSAGE_INTEGRITY).is_some());
        assert!(signed.find(attribute::PASSWORD_ALGORITHM).is_none());
        assert!(auth.verifies(&signed));
    }

    #[test]
    fn with_a_list_sha_256_is_chosen_and_the_list_goes_back() {
        let list = [0, 1, 0, 0, 0, 2, 0, 0];
        let mut auth = auth();
        auth.take_challenge(&Message::decode(&challenge(b"obMatJos2gAAAx", Some(&list))).unwrap()).unwrap();
        let bytes = auth.sign(request());
        let signed = Message::decode(&bytes).unwrap();
        assert_eq!(signed.find(attribute::PASSWORD_ALGORITHMS).unwrap().value, list);
        assert_eq!(signed.find(attribute::PASSWORD_ALGORITHM).unwrap().value, [0, 2, 0, 0]);
        assert!(signed.find(attribute::MESSAGE_INTEGRITY_SHA256).is_some() && auth.verifies(&signed));
    }

    #[test]
    fn a_list_that_was_taken_out_or_has_nothing_we_know_is_refused() {
        let take =
            |nonce: &[u8], list| auth().take_challenge(&Message::decode(&challenge(nonce, list)).unwrap());
        assert_eq!(take(b"obMatJos2gAAAx", None), Err(TurnFailure::BidDown));
        assert_eq!(take(b"obMatJos2QAAAx", None), Ok(()), "another feature");
        assert_eq!(take(b"obMatJos2", None), Ok(()), "no cookie after all");
        assert_eq!(take(b"n", Some(&[0, 9, 0, 0])), Err(TurnFailure::NoAlgorithm));
        assert_eq!(take(b"n", Some(&[0, 9, 0xFF, 0xFF, 0, 1])), Err(TurnFailure::NoAlgorithm));
        assert_eq!(take(&[b'n'; 764], None), Err(TurnFailure::BadAnswer));
    }

    #[test]
    fn neither_password_nor_nonce_nor_key_is_printed() {
        let mut auth = auth();
        auth.take_challenge(&Message::decode(&challenge(b"oncely", None)).unwrap()).unwrap();
        let text = format!("{auth:?}");
        assert!(text.contains("user") && !text.contains("pass") && !text.contains("oncely"), "{text}");
    }

    fn auth() -> Auth {
        Auth::new(TurnCredentials::new("user", "pass"))
    }

    fn request() -> MessageBuilder {
        MessageBuilder::new(Class::Request, Method::ALLOCATE, TransactionId([1; 12]))
    }

    fn challenge(nonce: &[u8], list: Option<&[u8]>) -> Vec<u8> {
        let mut builder = MessageBuilder::new(Class::Error, Method::ALLOCATE, TransactionId([1; 12]))
            .error_code(401, "")
            .attribute(attribute::REALM, b"realm")
            .attribute(attribute::NONCE, nonce);
        if let Some(list) = list {
            builder = builder.attribute(attribute::PASSWORD_ALGORITHMS, list);
        }
        builder.finish()
    }
}
