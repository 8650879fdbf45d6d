//! The part of a call that goes by the DHT: the question, and the contacts that it leads to.

use std::sync::Mutex;

use transport::NamedEndpoint;

use crate::{
    Contact, Destination, Introducer, Road,
    dial::{Dial, in_order},
    io::{clock, dht::Finding, lock::Lock as _},
    road::Roads,
    shared::Shared,
};

/// What a call has from the DHT.
#[derive(Debug)]
pub(crate) struct LookedUp {
    is_wanted: bool,
    found: Mutex<Vec<Contact>>,
    /// What came of the question, for a person to read.
    said: Mutex<Option<String>>,
}

impl LookedUp {
    /// Only a bare key is looked up: whoever has a contact knows better where its peer is, and who asks shows that it looks for somebody.
    pub(crate) fn new(peer: &Destination, shared: &Shared, roads: Roads) -> Self {
        let contact = peer.contact();
        let is_bare = contact.endpoints().is_empty() && contact.introducers().is_empty();
        let leads_out = roads.iter().any(|road| road != Road::Lan);
        let is_wanted = is_bare && leads_out && shared.dht.is_some();
        Self { is_wanted, found: Mutex::default(), said: Mutex::default() }
    }

    pub(crate) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// What came of the question, once it was asked.
    pub(crate) fn said(&self) -> Option<String> {
        self.said.hold().clone()
    }

    /// Who introduces others to the peer, as was found.
    pub(crate) fn introducers(&self) -> Vec<Introducer> {
        self.found.hold().iter().flat_map(|contact| contact.introducers().to_vec()).collect()
    }
}

impl Dial<'_> {
    /// Asks the DHT; `tell` is given the place of each contact that it leads to.
    pub(crate) fn look_up(&self, tell: impl Fn(usize)) {
        let Some(directory) = &self.shared.dht else { return };
        *self.looked_up.said.hold() = Some("asked, nothing found yet".to_owned());
        let mut take = |finding: Finding| {
            let took = clock::now().saturating_duration_since(self.begun).as_millis();
            let mut found = self.looked_up.found.hold();
            if found.len() >= MAX_FOUND {
                return;
            }
            let (addresses, introducers) =
                (finding.contact.endpoints().len(), finding.contact.introducers().len());
            found.push(finding.contact);
            let place = found.len() - 1;
            drop(found);
            *self.looked_up.said.hold() = Some(format!(
                "a contact after {took} ms: addresses {addresses}, introducers {introducers}, number {}",
                finding.sequence
            ));
            tell(place);
        };
        let given_up = || self.interrupt.dials().is_interrupted();
        let asked = directory.look_up(self.peer, self.deadline, &given_up, &mut take);
        if let Err(error) = asked
            && self.looked_up.found.hold().is_empty()
        {
            tracing::debug!(peer = %self.peer, %error, "not found in the DHT");
            *self.looked_up.said.hold() = Some(error.to_string());
        }
    }

    /// What of a found contact is to be tried: its addresses, and those of its introducers who are not asked anyhow.
    pub(crate) fn found(&self, place: usize) -> (Vec<NamedEndpoint>, Vec<Introducer>) {
        let found = self.looked_up.found.hold();
        let Some(contact) = found.get(place) else { return Default::default() };
        let mut endpoints = in_order(contact.endpoints(), self.schemes);
        endpoints.retain(|endpoint| self.roads.admit(endpoint) && !self.endpoints.contains(endpoint));
        let introduces = self.roads.contains(Road::Punched) || self.roads.contains(Road::Relayed);
        let asked = self.introducers.iter().chain(found[..place].iter().flat_map(Contact::introducers));
        let asked: Vec<_> =
            asked.map(Introducer::key).chain([self.peer, self.shared.transport.public_key()]).collect();
        let is_new = |one: &&Introducer| introduces && !asked.contains(&one.key());
        (endpoints, contact.introducers().iter().filter(is_new).cloned().collect())
    }
}

/// Newer ones come while nodes that know an old one are still answering; each costs some dials.
const MAX_FOUND: usize = 4;
