use std::{collections::BTreeSet, fmt, hint::black_box, str::FromStr};

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use crate::{identity::PublicKey, protocol::preface::Preface};

/// Who may open a stream here: judged for every stream, before `accept` sees it.
///
/// The default admits every key that speaks the empty protocol label, without a token.
///
/// ```
/// use transport::{Admission, ProtocolLabel};
///
/// let chat = Admission::default().protocols([ProtocolLabel::new("chat/1")?]);
/// # let _ = chat;
/// # Ok::<(), transport::LabelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Admission {
    protocols: BTreeSet<ProtocolLabel>,
    token: Option<AccessToken>,
    allowed: Option<BTreeSet<PublicKey>>,
    blocked: BTreeSet<PublicKey>,
    network: NetworkName,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            protocols: BTreeSet::from([ProtocolLabel::default()]),
            token: None,
            allowed: None,
            blocked: BTreeSet::new(),
            network: NetworkName::default(),
        }
    }
}

impl Admission {
    /// The protocol labels that are spoken here, instead of the empty one; others are refused with
    /// [`Refusal::Label`].
    #[must_use]
    pub fn protocols(mut self, labels: impl IntoIterator<Item = ProtocolLabel>) -> Self {
        self.protocols = labels.into_iter().collect();
        self
    }

    /// Asks every dialer for this token; one without it is refused with [`Refusal::Token`]. Default: none.
    #[must_use]
    pub fn access_token(mut self, token: AccessToken) -> Self {
        self.token = Some(token);
        self
    }

    /// Admits these keys only; others are refused with [`Refusal::Key`]. Default: every key.
    #[must_use]
    pub fn allow(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.allowed = Some(keys.into_iter().collect());
        self
    }

    /// Turns these keys away, also if they are allowed; with [`Refusal::Key`]. Default: none.
    #[must_use]
    pub fn block(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.blocked = keys.into_iter().collect();
        self
    }

    /// Admits dialers that name this network only; others, also those that name none, are refused with
    /// [`Refusal::Network`]. Default: the empty name, which dialers use that name none.
    #[must_use]
    pub fn network(mut self, name: NetworkName) -> Self {
        self.network = name;
        self
    }

    /// Judges one dialer.
    pub(crate) fn judge(&self, key: &PublicKey, preface: &Preface) -> Result<(), Refusal> {
        let Preface { label, token, network, .. } = preface;
        if self.network != *network {
            return Err(Refusal::Network);
        }
        let admitted = self.allowed.as_ref().is_none_or(|allowed| allowed.contains(key));
        if !admitted || self.blocked.contains(key) {
            return Err(Refusal::Key);
        }
        if let Some(expected) = &self.token
            && !token.as_ref().is_some_and(|token| token.matches(expected))
        {
            return Err(Refusal::Token);
        }
        if !self.protocols.contains(label) {
            return Err(Refusal::Label);
        }
        Ok(())
    }
}

/// What a stream is for, in one word of the application's: `chat/1`. What ALPN is to TLS.
///
/// At most 64 bytes of UTF-8; the empty label is the default of both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolLabel(String);

impl ProtocolLabel {
    /// Takes a text as a label.
    ///
    /// # Errors
    ///
    /// [`LabelError`] when it has more than 64 bytes.
    pub fn new(label: impl Into<String>) -> Result<Self, LabelError> {
        let label = label.into();
        if label.len() > MAX_LABEL_BYTES {
            return Err(LabelError { length: label.len() });
        }
        Ok(Self(label))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProtocolLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Keeps programs apart that speak the same protocol in different networks, such as a test network and the real one: an
/// acceptor refuses dialers of another one. It is no secret and proves nothing.
///
/// At most 64 bytes of UTF-8; the empty name is the default of both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    /// Takes a text as a name.
    ///
    /// # Errors
    ///
    /// [`NetworkNameError`] when it has more than 64 bytes.
    pub fn new(name: impl Into<String>) -> Result<Self, NetworkNameError> {
        let name = name.into();
        if name.len() > MAX_LABEL_BYTES {
            return Err(NetworkNameError { length: name.len() });
        }
        Ok(Self(name))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A name of a network is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of a network has at most {MAX_LABEL_BYTES} bytes, this has {length}")]
pub struct NetworkNameError {
    length: usize,
}

/// A protocol label is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a protocol label has at most {MAX_LABEL_BYTES} bytes, this has {length}")]
pub struct LabelError {
    length: usize,
}

/// Sixteen random bytes that a dialer must show: a secret passed on together with the address.
///
/// No `Debug` of the bytes; compared in constant time; wiped on drop. `Display` gives the text form, which is the
/// secret itself, for putting it into a contact.
#[derive(Clone)]
pub struct AccessToken(Zeroizing<[u8; 16]>);

impl AccessToken {
    /// Draws a new token from the system's entropy.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(crate::io::entropy::bytes()))
    }

    /// Takes 16 bytes as a token.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn matches(&self, other: &Self) -> bool {
        // Every byte is looked at, whatever the first ones were, so that the time taken tells nothing.
        let differences = self.0.iter().zip(&*other.0).fold(0, |seen, (ours, theirs)| seen | (ours ^ theirs));
        black_box(differences) == 0
    }
}

impl PartialEq for AccessToken {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for AccessToken {}

impl fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AccessToken(..)")
    }
}

impl fmt::Display for AccessToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BASE32_NOPAD.encode(&*self.0).to_ascii_lowercase())
    }
}

impl FromStr for AccessToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| ParseTokenError)?;
        bytes.try_into().map(Self::from_bytes).map_err(|_| ParseTokenError)
    }
}

/// A text is not an access token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an access token has 26 characters of base32 (a to z, 2 to 7)")]
pub struct ParseTokenError;

/// Why an acceptor turned a stream away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not admit our key.
    #[error("our key is not admitted there")]
    Key,
    /// It speaks another version of the preface.
    #[error("it speaks version {theirs}, we speak {ours}")]
    Version {
        /// Its version.
        theirs: u8,
        /// Ours.
        ours: u8,
    },
    /// It does not speak the protocol label asked for.
    #[error("it does not speak that protocol")]
    Label,
    /// The access token is missing or wrong.
    #[error("the access token is missing or wrong")]
    Token,
    /// It is ourselves.
    #[error("that is this very peer")]
    Myself,
    /// It has no room now; trying again later may work.
    #[error("it has no room now, try again later")]
    Full,
    /// It could not read our preface.
    #[error("it could not read our request")]
    Malformed,
    /// It expects no stream for that rendezvous, or no longer.
    #[error("no such rendezvous is expected there")]
    Rendezvous,
    /// It belongs to another network.
    #[error("it belongs to another network")]
    Network,
    /// Another connection between the two carries their streams; who dials goes there by itself and never sees this.
    #[error("another connection carries the streams of these peers")]
    Elsewhere,
    /// A reason of a later version.
    #[error("refused for a reason unknown here (code {code})")]
    Unknown {
        /// The number that stands for the reason.
        code: u8,
    },
}

/// What ALPN allows would be 255; this keeps a preface in one packet with room to spare.
const MAX_LABEL_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::Identity, protocol::preface::Purpose};

    #[test]
    fn each_condition_is_refused_by_its_own_reason() {
        let key = Identity::from_seed([1; 32]).public_key();
        let other = Identity::from_seed([2; 32]).public_key();
        let token = AccessToken::from_bytes([5; 16]);
        let label = ProtocolLabel::new("x").unwrap();
        let admission =
            Admission::default().allow([key]).access_token(token.clone()).protocols([label.clone()]);
        let asks = |label: &ProtocolLabel, token: Option<AccessToken>| Preface {
            purpose: Purpose::Direct,
            label: label.clone(),
            token,
            network: NetworkName::default(),
            stays: false,
        };
        let right = || asks(&label, Some(token.clone()));
        assert_eq!(admission.judge(&key, &right()), Ok(()));
        assert_eq!(admission.judge(&other, &right()), Err(Refusal::Key));
        assert_eq!(admission.judge(&key, &asks(&label, None)), Err(Refusal::Token));
        let wrong = asks(&label, Some(AccessToken::from_bytes([6; 16])));
        assert_eq!(admission.judge(&key, &wrong), Err(Refusal::Token));
        let unlabelled = asks(&ProtocolLabel::default(), Some(token.clone()));
        assert_eq!(admission.judge(&key, &unlabelled), Err(Refusal::Label));
        let elsewhere = Preface { network: NetworkName::new("test").unwrap(), ..right() };
        assert_eq!(admission.judge(&key, &elsewhere), Err(Refusal::Network));
        let admission = admission.network(NetworkName::new("test").unwrap());
        assert_eq!(admission.judge(&key, &elsewhere), Ok(()));
        assert_eq!(admission.judge(&key, &right()), Err(Refusal::Network));
        assert_eq!(admission.block([key]).judge(&key, &elsewhere), Err(Refusal::Key));
    }

    #[test]
    fn a_token_reads_as_it_prints_and_hides_from_debug() {
        let token = AccessToken::from_bytes([200; 16]);
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "AccessToken(..)");
        assert_eq!("abc".parse::<AccessToken>(), Err(ParseTokenError));
    }
}
