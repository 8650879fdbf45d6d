//! Where a service is reached, and the contact that says so.

use std::io;

use transport::Endpoint;

use crate::{Contact, shared::Shared};

impl Shared {
    /// Where this peer is reached: at addresses of this host, and at those that are forwarded to it.
    pub(crate) fn reached_at(&self) -> io::Result<(Vec<Endpoint>, Vec<Endpoint>)> {
        let hosts = self.listeners.endpoints()?;
        let mut forwarded = self.forwarded_endpoints();
        forwarded.retain(|endpoint| !hosts.contains(endpoint));
        let outside: Vec<_> = hosts.iter().copied().filter(|one| !one.addr().ip().is_loopback()).collect();
        let is_local = outside.is_empty() && forwarded.is_empty();
        Ok((if is_local { hosts } else { outside }, forwarded))
    }

    /// How others reach this peer, with the token that it asks for or without.
    pub(crate) fn contact(&self, with_token: bool) -> io::Result<Contact> {
        let mut contact = Contact::new(self.transport.public_key());
        if let Some(token) = &self.gate().token
            && with_token
        {
            contact = contact.access_token(token.clone());
        }
        let callers = if self.dialling().attach { self.introducers() } else { Vec::new() };
        for introducer in callers {
            if let Ok(longer) = contact.clone().introducer(introducer) {
                contact = longer;
            }
        }
        let (mut endpoints, forwarded) = self.reached_at()?;
        // Peers nearby try the host's own first. There is room for what is forwarded, however many interfaces it has.
        let others = endpoints.split_off(endpoints.len().min(Contact::MAX_ENDPOINTS / 2));
        for endpoint in endpoints.into_iter().chain(forwarded).chain(others) {
            match contact.clone().endpoint(endpoint) {
                Ok(longer) => contact = longer,
                // There is room for the first sixteen.
                Err(_) => break,
            }
        }
        Ok(contact)
    }
}
