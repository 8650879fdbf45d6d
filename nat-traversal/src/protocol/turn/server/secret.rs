use std::{net::SocketAddr, time::Duration};

use data_encoding::{BASE64, HEXLOWER};
use ring::hmac;

use crate::protocol::turn::TurnCredentials;

/// Makes credentials that hold for a time, and knows them again: a name is `UNTIL:WHO`, with the second since 1970 at which it ends,
/// and its password a MAC of the name. It is the scheme that coturn calls `use-auth-secret`, with SHA-256.
///
/// ```
/// use nat_traversal::protocol::turn::RelaySecret;
///
/// let secret = RelaySecret::new([7; 32]);
/// let credentials = secret.credentials(1_700_000_600, "someone");
/// assert_eq!(credentials.username(), "1700000600:someone");
/// ```
#[derive(Clone)]
pub struct RelaySecret {
    passwords: hmac::Key,
    nonces: hmac::Key,
}

impl RelaySecret {
    /// From 32 random bytes, which nobody else has. With new ones, what was given out before is worth nothing.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, &seed);
        let derive = |what: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, what).as_ref());
        Self { passwords: derive(b"turn passwords"), nonces: derive(b"turn nonces") }
    }

    /// Credentials until that second since 1970. `who` tells users apart for quotas, and travels in the clear.
    #[must_use]
    pub fn credentials(&self, until: u64, who: &str) -> TurnCredentials {
        self.credentials_of(&format!("{until}:{who}"))
    }

    /// What a user is called towards the relay: tells whoever listens nothing about its key, and one user from another.
    #[must_use]
    pub fn alias(&self, key: &[u8]) -> String {
        HEXLOWER.encode(&hmac::sign(&self.nonces, &[b"alias ", key].concat()).as_ref()[..8])
    }

    pub(super) fn credentials_of(&self, username: &str) -> TurnCredentials {
        let password = BASE64.encode(&hmac::sign(&self.passwords, username.as_bytes()).as_ref()[..16]);
        TurnCredentials::new(username, &password)
    }

    /// How long a name is still good; `None` if it is over, or no name of ours.
    pub(super) fn time_left(&self, unix: u64, username: &str) -> Option<Duration> {
        let (until, _) = username.split_once(':').filter(|_| username.len() <= MAX_NAME_BYTES)?;
        let until: u64 = until.parse().ok()?;
        let left = until.checked_sub(unix).filter(|left| *left > 0)?;
        // Nobody was given more, and an `Instant` may not hold much more.
        Some(Duration::from_secs(left.min(LONGEST)))
    }

    /// A nonce for a client, good for ten to twenty minutes.
    pub(super) fn nonce(&self, unix: u64, client: SocketAddr) -> String {
        self.nonce_of(unix / NONCE_SECONDS, client)
    }

    pub(super) fn knows_nonce(&self, unix: u64, client: SocketAddr, nonce: &str) -> bool {
        let period = unix / NONCE_SECONDS;
        [Some(period), period.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|one| self.nonce_of(one, client) == nonce)
    }

    fn nonce_of(&self, period: u64, client: SocketAddr) -> String {
        let text = format!("nonce {period} {client}");
        HEXLOWER.encode(&hmac::sign(&self.nonces, text.as_bytes()).as_ref()[..8])
    }
}

impl std::fmt::Debug for RelaySecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("RelaySecret(..)")
    }
}

/// Who it is, whatever the time.
pub(super) fn subject(username: &str) -> &str {
    username.split_once(':').map_or(username, |(_, who)| who)
}

const NONCE_SECONDS: u64 = 600;
/// A day and a half.
const LONGEST: u64 = 36 * 3_600;
/// Ours have some thirty.
const MAX_NAME_BYTES: usize = 128;
