use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{RecvTimeoutError, unbounded};
use nat_traversal::{RelayError, TurnServer};
use transport::{Interrupter, PublicKey, Relay, Transport};

use crate::{
    event::{Events, ServiceEvent},
    io::{clock, lock::Lock as _},
};

/// The address of a service at a relay: asked for when it is first needed, and kept.
#[derive(Debug)]
pub(crate) struct Relaying {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    servers: Vec<TurnServer>,
    /// Those of introducers, at most as many as one is attached to.
    lent: BTreeMap<PublicKey, Vec<TurnServer>>,
    /// How often the servers were changed.
    changes: u64,
    held: Option<Arc<Relay>>,
    /// Somebody asks for one.
    is_asked: bool,
    /// How often it was asked for in vain.
    rounds: u64,
}

impl Relaying {
    pub(crate) fn new(servers: Vec<TurnServer>) -> Self {
        Self { state: Mutex::new(State { servers, ..State::default() }), changed: Condvar::new() }
    }

    /// Uses these from now on; meetings under way keep what they have.
    pub(crate) fn set(&self, servers: Vec<TurnServer>) {
        let mut state = self.state.hold();
        state.servers = servers;
        state.changes += 1;
        let old = state.held.take();
        drop(state);
        drop(old);
    }

    /// An introducer's relay may be used: by these ways, with these credentials, which take the place of older ones.
    pub(crate) fn lend(&self, introducer: PublicKey, servers: Vec<TurnServer>) {
        self.state.hold().lent.insert(introducer, servers);
    }

    /// The address was another network's: the next one is asked for anew.
    pub(crate) fn forget(&self) {
        let mut state = self.state.hold();
        state.changes += 1;
        let old = state.held.take();
        // The server is told, outside the lock.
        drop(state);
        drop(old);
    }

    pub(crate) fn has_servers(&self) -> bool {
        !self.state.hold().servers().is_empty()
    }

    /// The address, if there is one already.
    pub(crate) fn held(&self) -> Option<Arc<Relay>> {
        self.state.hold().usable()
    }

    /// The address, asked for if there is none, or no longer: at the first server, and a quarter of a second later at the next,
    /// as one that does not answer, such as where UDP is blocked, must not keep the peer waiting; whoever answers first is
    /// taken. Blocks for some round trips, at most three seconds; an interruption of `ends`, which serves for this call only, ends it.
    pub(crate) fn relay(
        &self,
        transport: &Transport,
        events: &Events,
        ends: &Interrupter,
    ) -> Option<Arc<Relay>> {
        let mut state = self.state.hold();
        if state.servers().is_empty() {
            return None;
        }
        let rounds = state.rounds;
        loop {
            let usable = state.usable();
            if usable.is_some() || ends.is_interrupted() || state.rounds != rounds {
                return usable;
            }
            if !state.is_asked {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asked = true;
        let (servers, changes) = (state.servers(), state.changes);
        drop(state);
        let found = ask(&servers, transport, events, ends).map(Arc::new);
        let mut state = self.state.hold();
        state.is_asked = false;
        // Who was interrupted says nothing about the servers: the next one who waits asks for itself.
        state.rounds += u64::from(found.is_none() && !ends.is_interrupted());
        if state.changes == changes {
            state.held.clone_from(&found);
        }
        drop(state);
        self.changed.notify_all();
        found
    }

    /// Has those who wait look whether they are interrupted.
    pub(crate) fn nudge(&self) {
        drop(self.state.hold());
        self.changed.notify_all();
    }
}

impl State {
    fn servers(&self) -> Vec<TurnServer> {
        self.servers.iter().chain(self.lent.values().flatten()).cloned().collect()
    }

    fn usable(&self) -> Option<Arc<Relay>> {
        self.held.clone().filter(|relay| relay.failure().is_none())
    }
}

/// Asks the servers until one has answered.
fn ask(servers: &[TurnServer], transport: &Transport, events: &Events, ends: &Interrupter) -> Option<Relay> {
    let (begun, (give, outcomes)) = (clock::now(), unbounded());
    let until = begun + PATIENCE;
    thread::scope(|scope| {
        let mut waiting = servers.iter().take(MAX_SERVERS);
        let (mut next, mut running): (Option<Instant>, usize) = (Some(begun), 0);
        loop {
            if next.is_some_and(|due| due <= clock::now() || running == 0) && !ends.is_interrupted() {
                let server = waiting.next();
                next = server.map(|_| clock::now() + PACE);
                if let Some(server) = server {
                    let give = give.clone();
                    let work = move || {
                        let outcome = Relay::allocate_until(transport, server, ends, until);
                        drop(give.send((server, outcome)));
                    };
                    let spawned = thread::Builder::new().name("crust-relay".into()).spawn_scoped(scope, work);
                    running += usize::from(spawned.is_ok());
                }
                continue;
            }
            if running == 0 {
                return None;
            }
            // Each ends by itself at the deadline, or when it is interrupted.
            let outcome = match next.filter(|_| !ends.is_interrupted()) {
                Some(due) => outcomes.recv_deadline(due),
                None => outcomes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match outcome {
                Ok((_, Ok(relay))) => {
                    ends.interrupt();
                    return Some(relay);
                }
                Ok((_, Err(RelayError::Interrupted))) => running -= 1,
                Ok((server, Err(error))) => {
                    running -= 1;
                    events.tell(ServiceEvent::RelayUnusable {
                        server: server.to_string(),
                        reason: crate::error_chain(&error),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    })
}

/// As long as anybody waits for a meeting to begin; TLS and the first refusal of TURN take six round trips.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two servers: two round trips of a continent, in which TURN over UDP answers.
const PACE: Duration = Duration::from_millis(250);
/// Asked at a time, each on a thread.
const MAX_SERVERS: usize = 8;
