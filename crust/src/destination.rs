use transport::{Endpoint, NamedEndpoint, PublicKey};

use crate::{Contact, Introducer};

/// Whom to dial: an [`Endpoint`], a [`NamedEndpoint`], a [`Contact`], or a bare [`PublicKey`], whose place is then looked up
/// among beacons, remembered endpoints, and by the introducers that this service knows.
#[derive(Debug, Clone)]
pub struct Destination {
    contact: Contact,
}

impl Destination {
    /// The peer's key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.contact.public_key()
    }

    pub(crate) const fn contact(&self) -> &Contact {
        &self.contact
    }

    pub(crate) fn introducers(&self) -> &[Introducer] {
        self.contact.introducers()
    }
}

impl From<PublicKey> for Destination {
    fn from(key: PublicKey) -> Self {
        Self { contact: Contact::new(key) }
    }
}

impl From<Contact> for Destination {
    fn from(contact: Contact) -> Self {
        Self { contact }
    }
}

impl From<&Contact> for Destination {
    fn from(contact: &Contact) -> Self {
        Self { contact: contact.clone() }
    }
}

impl From<Endpoint> for Destination {
    fn from(endpoint: Endpoint) -> Self {
        Self { contact: endpoint.into() }
    }
}

impl From<NamedEndpoint> for Destination {
    fn from(endpoint: NamedEndpoint) -> Self {
        Self { contact: endpoint.into() }
    }
}

impl From<&Self> for Destination {
    fn from(destination: &Self) -> Self {
        destination.clone()
    }
}
