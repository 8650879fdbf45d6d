use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use nat_traversal::TurnServer;
use transport::{PublicKey, Relay, Transport};

use crate::{
    event::{Events, ServiceEvent},
    io::{clock, lock::Lock as _},
};

/// The address of a service at a relay: asked for when it is first needed, and kept.
#[derive(Debug)]
pub(crate) struct Relaying {
    servers: Mutex<Vec<TurnServer>>,
    /// Those of introducers, at most as many as one is attached to.
    lent: Mutex<BTreeMap<PublicKey, Vec<TurnServer>>>,
    held: Mutex<Option<Arc<Relay>>>,
}

impl Relaying {
    pub(crate) fn new(servers: Vec<TurnServer>) -> Self {
        Self { servers: Mutex::new(servers), lent: Mutex::default(), held: Mutex::default() }
    }

    /// Uses these from now on; meetings under way keep what they have.
    pub(crate) fn set(&self, servers: Vec<TurnServer>) {
        *self.servers.hold() = servers;
        self.held.hold().take();
    }

    /// An introducer's relay may be used: by these ways, with these credentials, which take the place of older ones.
    pub(crate) fn lend(&self, introducer: PublicKey, servers: Vec<TurnServer>) {
        self.lent.hold().insert(introducer, servers);
    }

    /// The address, asked for at one server after the other if there is none, or no longer. Blocks at most a second
    /// for each.
    pub(crate) fn relay(&self, transport: &Transport, events: &Events) -> Option<Arc<Relay>> {
        let held = self.held.hold().clone();
        if held.as_ref().is_some_and(|relay| relay.failure().is_none()) {
            return held;
        }
        let mut found = None;
        let mut servers = self.servers.hold().clone();
        servers.extend(self.lent.hold().values().flatten().cloned());
        for server in &servers {
            // One that does not answer, such as where UDP is blocked, leaves the next its time.
            let until = clock::now() + PATIENCE;
            match Relay::allocate(transport, server, until) {
                Ok(relay) => {
                    found = Some(Arc::new(relay));
                    break;
                }
                Err(error) => events.tell(ServiceEvent::RelayUnusable {
                    server: server.to_string(),
                    reason: crate::error_chain(&error),
                }),
            }
        }
        // One that another thread found meanwhile is given back with the last meeting that uses it.
        self.held.hold().clone_from(&found);
        found
    }
}

/// Six round trips of a continent, which is what TLS and the first refusal of TURN take.
const PATIENCE: Duration = Duration::from_secs(1);
