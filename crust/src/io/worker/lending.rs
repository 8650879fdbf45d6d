//! An introducer that relays: tickets for those who are attached, and what the others do with them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nat_traversal::{RelayHost, TurnServer, TurnTransport, protocol::turn::RelaySecret};
use transport::{PublicKey, StreamKey};
use zeroize::Zeroizing;

use super::{Frame, Turning};
use crate::{io::clock, protocol::introducer::frame::Ticket};

/// A relay for attached peers.
#[derive(Debug)]
pub(crate) struct Lending {
    relay: RelayHost,
    secret: RelaySecret,
    /// Who has a ticket.
    given: BTreeSet<StreamKey>,
    renew_at: Instant,
}

impl Lending {
    pub(crate) fn new(relay: RelayHost, secret: RelaySecret) -> Self {
        Self { relay, secret, given: BTreeSet::new(), renew_at: clock::now() + RENEWED }
    }

    fn ticket(&self, key: PublicKey) -> Ticket {
        // An alias: names travel in the clear, and quotas go by them.
        let who = self.secret.alias(key.as_bytes());
        let credentials = self.secret.credentials(clock::unix_seconds() + VALID.as_secs(), &who);
        Ticket {
            port: self.relay.addr().port(),
            seconds: u32::try_from(VALID.as_secs()).expect("a day"),
            username: credentials.username().to_owned(),
            password: Zeroizing::new(credentials.password().to_owned()),
        }
    }
}

impl Turning {
    /// Lets an attached peer use our relay.
    pub(super) fn give_ticket(&mut self, key: StreamKey) {
        let Some(stream) = self.set.get(key) else { return };
        let peer = stream.public_key();
        let lending = self.hosting.as_mut().and_then(|hosting| hosting.lending.as_mut());
        let Some(lending) = lending else { return };
        lending.given.insert(key);
        let ticket = lending.ticket(peer);
        self.send(key, &Frame::Relay(ticket));
    }

    pub(super) fn next_renewal(&self) -> Option<Instant> {
        let lending = self.hosting.as_ref()?.lending.as_ref()?;
        (!lending.given.is_empty()).then_some(lending.renew_at)
    }

    /// Gives new tickets before the old ones are worth nothing.
    pub(super) fn renew_tickets(&mut self, now: Instant) {
        let lending = self.hosting.as_mut().and_then(|hosting| hosting.lending.as_mut());
        let Some(lending) = lending.filter(|lending| lending.renew_at <= now) else { return };
        lending.renew_at = now + RENEWED;
        for key in std::mem::take(&mut lending.given) {
            self.give_ticket(key);
        }
    }

    /// An introducer lets us use its relay.
    pub(super) fn take_ticket(&self, index: usize, key: StreamKey, ticket: &Ticket) {
        let Some(stream) = self.set.get(key) else { return };
        let mut addr = stream.path().remote;
        addr.set_port(ticket.port);
        let servers = [TurnTransport::Udp, TurnTransport::Tcp]
            .map(|over| TurnServer::new(addr, over).with_credentials(&ticket.username, &ticket.password));
        if ticket.port != 0 {
            self.shared.lend_relay(self.attachments[index].0.key(), servers.into());
        }
    }
}

/// Whoever is attached has one that is good for half of this at least.
const VALID: Duration = Duration::from_secs(24 * 3_600);
const RENEWED: Duration = Duration::from_secs(12 * 3_600);
