use std::{fmt, str::FromStr};

use transport::{AccessToken, Endpoint, NamedEndpoint, ParseEndpointError, PublicKey, ToEndpoints};

use crate::{Introducer, protocol::contact_wire};

/// Everything needed to reach a peer, as one line of text to paste: its key, where it listens, who introduces others to it,
/// and the access token if it asks for one.
///
/// The text is `crust1` and lower-case base32 with a checksum, so it is safe in every shell, survives upper case, and
/// a typing error is noticed. At most [`Contact::MAX_TEXT_BYTES`] long. **With a token in it the text is a secret.**
///
/// ```
/// use crust::{Contact, Endpoint, Identity, Scheme};
///
/// let key = Identity::from_seed([1; 32]).public_key();
/// let contact = Contact::new(key).endpoint(Endpoint::new(Scheme::Quic, "127.0.0.1:345".parse()?, key))?;
/// assert!(contact.to_string().starts_with("crust1"));
/// assert_eq!(contact.to_string().parse::<Contact>()?, contact);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    public_key: PublicKey,
    endpoints: Vec<NamedEndpoint>,
    introducers: Vec<Introducer>,
    token: Option<AccessToken>,
}

impl Contact {
    /// The most endpoints that a contact holds: four addresses with both schemes, twice.
    pub const MAX_ENDPOINTS: usize = 16;

    /// The most introducers that a contact names.
    pub const MAX_INTRODUCERS: usize = 4;

    /// The longest text of a contact, in bytes; longer ones are refused unread.
    pub const MAX_TEXT_BYTES: usize = contact_wire::MAX_TEXT_BYTES;

    /// Names a peer that nobody knows yet how to reach.
    #[must_use]
    pub const fn new(public_key: PublicKey) -> Self {
        Self { public_key, endpoints: Vec::new(), introducers: Vec::new(), token: None }
    }

    /// Adds a place where the peer listens, after those already there; one it already has is not added again.
    ///
    /// The scope of a link-local address (`%3`) means something on one machine only, so the text leaves it out.
    ///
    /// # Errors
    ///
    /// [`ContactError`] when the endpoint names another key, when the contact is full, or when its text would become
    /// too long.
    pub fn endpoint(mut self, endpoint: impl Into<NamedEndpoint>) -> Result<Self, ContactError> {
        let endpoint = endpoint.into();
        if endpoint.public_key() != self.public_key {
            return Err(ContactError::OtherKey { found: endpoint.public_key() });
        }
        if self.endpoints.contains(&endpoint) {
            return Ok(self);
        }
        if self.endpoints.len() == Self::MAX_ENDPOINTS {
            return Err(ContactError::Full);
        }
        self.endpoints.push(endpoint);
        if contact_wire::encode(&self).len() > contact_wire::MAX_BYTES {
            return Err(ContactError::Full);
        }
        Ok(self)
    }

    /// Names somebody who introduces others to the peer, after those already there; of one it already has, the endpoints that
    /// are new are added.
    ///
    /// # Errors
    ///
    /// [`ContactError::Full`] when the contact is full, or when its text would become too long.
    pub fn introducer(mut self, introducer: Introducer) -> Result<Self, ContactError> {
        let full = self.introducers.len() == Self::MAX_INTRODUCERS;
        match self.introducers.iter_mut().find(|known| known.key() == introducer.key()) {
            Some(known) => known.merge(introducer),
            None if full => return Err(ContactError::Full),
            None => self.introducers.push(introducer),
        }
        if contact_wire::encode(&self).len() > contact_wire::MAX_BYTES {
            return Err(ContactError::Full);
        }
        Ok(self)
    }

    /// Sets the token that the peer asks for; the text is then a secret.
    #[must_use]
    pub fn access_token(mut self, token: AccessToken) -> Self {
        self.token = Some(token);
        self
    }

    /// The peer's key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Where the peer listens, best first.
    #[must_use]
    pub fn endpoints(&self) -> &[NamedEndpoint] {
        &self.endpoints
    }

    /// Who introduces others to the peer, best first.
    #[must_use]
    pub fn introducers(&self) -> &[Introducer] {
        &self.introducers
    }

    /// The token to show, if the peer asks for one.
    #[must_use]
    pub const fn token(&self) -> Option<&AccessToken> {
        self.token.as_ref()
    }
}

impl From<PublicKey> for Contact {
    fn from(public_key: PublicKey) -> Self {
        Self::new(public_key)
    }
}

impl From<Endpoint> for Contact {
    fn from(endpoint: Endpoint) -> Self {
        NamedEndpoint::from(endpoint).into()
    }
}

impl From<NamedEndpoint> for Contact {
    fn from(endpoint: NamedEndpoint) -> Self {
        Self { endpoints: vec![endpoint.clone()], ..Self::new(endpoint.public_key()) }
    }
}

impl From<&Self> for Contact {
    fn from(contact: &Self) -> Self {
        contact.clone()
    }
}

impl ToEndpoints for Contact {
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError> {
        Ok(self.endpoints.clone())
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&contact_wire::to_text(self))
    }
}

impl FromStr for Contact {
    type Err = ParseContactError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        contact_wire::from_text(text)
    }
}

/// Why an endpoint does not go into a contact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// A contact is of one peer.
    #[error("the endpoint is of another peer, {found}")]
    OtherKey {
        /// The key of the endpoint.
        found: PublicKey,
    },
    /// There is no room for more.
    #[error(
        "a contact holds at most {} endpoints and {} introducers in {} bytes of text",
        Contact::MAX_ENDPOINTS,
        Contact::MAX_INTRODUCERS,
        Contact::MAX_TEXT_BYTES
    )]
    Full,
}

/// Why a text is not a contact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseContactError {
    /// It does not begin with `crust1`.
    #[error("a contact begins with crust1")]
    Form,
    /// It belongs to a later version of this program.
    #[error("a contact of version {found}, only {known} is known here")]
    Version {
        /// What the text says.
        found: u8,
        /// What is read here.
        known: u8,
    },
    /// A character is missing, added or wrong.
    #[error("the contact is damaged: a character is missing, added or wrong")]
    Damaged,
    /// The checksum is right, what it covers is not: it was not made by this program.
    #[error("the contact makes no sense: {reason}")]
    Content {
        /// What is wrong.
        reason: &'static str,
    },
    /// Longer than any contact.
    #[error("{length} bytes are too long for a contact, at most {} are read", Contact::MAX_TEXT_BYTES)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use transport::{Identity, Scheme};

    use super::*;

    fn key(seed: u8) -> PublicKey {
        Identity::from_seed([seed; 32]).public_key()
    }

    #[test]
    fn an_endpoint_of_another_peer_is_refused() {
        let other = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse().unwrap(), key(2));
        assert_eq!(Contact::new(key(1)).endpoint(other), Err(ContactError::OtherKey { found: key(2) }));
    }

    #[test]
    fn a_contact_takes_each_endpoint_once_and_sixteen_at_most() {
        let endpoint =
            |port| Endpoint::new(Scheme::Tcp, std::net::SocketAddr::from(([127, 0, 0, 1], port)), key(1));
        let mut contact = Contact::new(key(1));
        for port in 1..=16 {
            contact = contact.endpoint(endpoint(port)).unwrap().endpoint(endpoint(port)).unwrap();
        }
        assert_eq!(contact.endpoints().len(), Contact::MAX_ENDPOINTS);
        assert_eq!(contact.endpoint(endpoint(17)), Err(ContactError::Full));
    }

    #[test]
    fn no_contact_that_can_be_built_has_a_text_that_cannot_be_read() {
        let host = "a".repeat(250);
        let mut contact = Contact::new(key(1)).access_token(AccessToken::from_bytes([1; 16]));
        for port in 1..=Contact::MAX_ENDPOINTS {
            let endpoint: NamedEndpoint = format!("tcp://{host}:{port}?pubkey={}", key(1)).parse().unwrap();
            let Ok(longer) = contact.clone().endpoint(endpoint) else { break };
            contact = longer;
        }
        assert!(contact.endpoints().len() < Contact::MAX_ENDPOINTS, "the length is the tighter bound here");
        let by = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse().unwrap(), key(2));
        if let Ok(longer) = contact.clone().introducer(Introducer::new(by)) {
            contact = longer;
        }
        assert_eq!(contact.to_string().parse(), Ok(contact));
    }

    #[test]
    fn the_token_is_in_the_text_and_not_in_debug() {
        let token = AccessToken::from_bytes([7; 16]);
        let contact = Contact::new(key(1)).access_token(token.clone());
        assert_eq!(contact.to_string().parse::<Contact>().unwrap().token(), Some(&token));
        let debug = format!("{contact:?}");
        assert!(!debug.contains(&token.to_string()) && !debug.contains("7, 7"), "{debug}");
    }
}
