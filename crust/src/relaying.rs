use std::{
    collections::BTreeMap,
    net::SocketAddr,
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
    /// What is held may be dead: peers are told of it still, and another is asked for.
    is_in_doubt: bool,
    /// When that was last thought.
    doubted: Option<Instant>,
    /// Somebody asks for one.
    is_asked: bool,
    /// How often somebody has asked, and knows.
    rounds: u64,
}

impl Relaying {
    pub(crate) fn new(servers: Vec<TurnServer>) -> Self {
        Self { state: Mutex::new(State { servers, ..State::default() }), changed: Condvar::new() }
    }

    /// Uses these from now on; meetings under way keep what they have.
    pub(crate) fn set(&self, servers: Vec<TurnServer>) {
        self.state.hold().servers = servers;
        self.forget();
    }

    /// An introducer's relay may be used: by these ways, with these credentials, which take the place of older ones.
    pub(crate) fn lend(&self, introducer: PublicKey, servers: Vec<TurnServer>) {
        self.state.hold().lent.insert(introducer, servers);
    }

    /// The address was another network's: the next one is asked for anew.
    pub(crate) fn forget(&self) {
        let mut state = self.state.hold();
        state.changes += 1;
        state.is_in_doubt = false;
        let old = state.held.take();
        // The server is told, outside the lock.
        drop(state);
        drop(old);
    }

    /// A connection over a relay is cut off; `ours` is its address here. If that is the one we hold, it is forgotten. If the relay was the
    /// peer's, ours may be of the same server, and dead as well, which nothing would have told us: the next meeting tells the peer of it and
    /// asks for another all the same.
    pub(crate) fn doubt(&self, now: Instant, ours: SocketAddr) {
        let mut state = self.state.hold();
        let Some(held) = &state.held else { return };
        if held.addr() == ours {
            drop(state);
            return self.forget();
        }
        // A peer that says so again and again does not have one asked for each time.
        if state.doubted.is_none_or(|doubted| doubted + SELDOM <= now) {
            (state.is_in_doubt, state.doubted) = (true, Some(now));
        }
    }

    pub(crate) fn has_servers(&self) -> bool {
        !self.state.hold().servers().is_empty()
    }

    /// The address, if there is one already.
    pub(crate) fn held(&self) -> Option<Arc<Relay>> {
        self.state.hold().usable()
    }

    /// The address, if there is one that is in no doubt and its server still knows us, and else another: asked for at the first server, and a quarter of a second later at the next,
    /// as one that does not answer, such as where UDP is blocked, must not keep the peer waiting; whoever answers first is
    /// taken. Blocks for some round trips, at most three seconds and a half; an interruption of `ends`, which serves for this call only, ends it.
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
            if ends.is_interrupted() || state.rounds != rounds {
                return state.trusted();
            }
            if !state.is_asked {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asked = true;
        let (known, servers, changes) = (state.trusted(), state.servers(), state.changes);
        drop(state);
        // One that was started anew would have peers knock in vain until it is asked for more time.
        let (found, is_sure) = match known {
            Some(relay) if relay.is_served(ends, clock::now() + DOUBT) => (Some(relay), true),
            known if ends.is_interrupted() => (known, false),
            _ => {
                let other = ask(&servers, transport, events, ends).map(Arc::new);
                let is_sure = other.is_some() || !ends.is_interrupted();
                (other, is_sure)
            }
        };
        let mut state = self.state.hold();
        state.is_asked = false;
        // Who was interrupted says nothing about the servers: the next one who waits asks for itself.
        let is_in_vain = found.is_none() && is_sure;
        state.rounds += u64::from(is_sure);
        // No other is to be had for now.
        state.is_in_doubt &= !is_in_vain;
        let mut old = None;
        if state.changes == changes && found.is_some() {
            old = std::mem::replace(&mut state.held, found.clone());
            state.is_in_doubt = false;
        }
        drop(state);
        drop(old);
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

    fn trusted(&self) -> Option<Arc<Relay>> {
        self.usable().filter(|_| !self.is_in_doubt)
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
                    tracing::trace!(%server, "asking a relay for an address");
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

/// For one that we have, until another is asked for beside it: two round trips of a continent.
const DOUBT: Duration = Duration::from_millis(500);
/// As long as anybody waits for a meeting to begin; TLS and the first refusal of TURN take six round trips.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two servers: two round trips of a continent, in which TURN over UDP answers.
const PACE: Duration = Duration::from_millis(250);
/// Between two doubts, which cost an allocation each: longer than a peer is looked for after one.
const SELDOM: Duration = Duration::from_secs(20);
/// Asked at a time, each on a thread.
const MAX_SERVERS: usize = 8;
