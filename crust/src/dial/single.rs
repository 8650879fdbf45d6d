//! A call that the peer makes too: whatever leads to it is added to one call of the transport's, which ends with one stream.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use transport::{
    ConnectOptions as DialOptions, Endpoint, PathKind, ProtocolLabel, PublicKey, RendezvousError,
    RendezvousOptions, Scheme, SingleCall, Stream,
};

use super::{Dial, Outcome, in_order};
use crate::{
    Attempt, AttemptError, Introducer, Road,
    introduced::Introduction,
    io::{clock, lock::Lock as _},
    protocol::plan::Claim,
    road::Roads,
    shared::Shared,
};

/// The calls with `single` that are under way, for those who are introduced to us meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Singles(Mutex<Vec<Arc<Single>>>);

impl Singles {
    /// The call to that peer whose protocol is the wanted one.
    pub(crate) fn find(
        &self,
        peer: PublicKey,
        is_wanted: impl Fn(&ProtocolLabel) -> bool,
    ) -> Option<Arc<Single>> {
        let calls = self.0.hold();
        calls.iter().find(|one| one.call.public_key() == peer && is_wanted(&one.label)).cloned()
    }

    fn enter(&self, single: &Arc<Single>) -> UnderWay<'_> {
        self.0.hold().push(single.clone());
        UnderWay { singles: self, single: single.clone() }
    }
}

/// One call with `single`, as its roads and those who are introduced to us share it.
#[derive(Debug)]
pub(crate) struct Single {
    label: ProtocolLabel,
    call: SingleCall,
    /// What may be tried.
    roads: Roads,
    schemes: Vec<Scheme>,
    /// Of the two one says which introduction counts.
    leads: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    claim: Claim,
    /// The peer was asked for and has answered.
    was_found: bool,
    /// The peer has asked for us.
    was_sought: bool,
}

impl Single {
    pub(crate) fn new(
        shared: &Shared,
        peer: PublicKey,
        label: ProtocolLabel,
        (roads, schemes): (Roads, &[Scheme]),
    ) -> Arc<Self> {
        let call = SingleCall::new(&shared.transport, peer);
        let leads = shared.transport.public_key() < peer;
        let schemes = schemes.to_vec();
        Arc::new(Self { label, call, roads, schemes, leads, state: Mutex::default() })
    }

    pub(crate) const fn call(&self) -> &SingleCall {
        &self.call
    }

    pub(crate) const fn roads(&self) -> Roads {
        self.roads
    }

    /// How to meet whom we are introduced to.
    pub(crate) fn options(&self, shared: &Shared) -> RendezvousOptions {
        let [udp, tcp] = [Scheme::Quic, Scheme::Tcp].map(|scheme| self.schemes.contains(&scheme));
        shared.meeting(self.roads).udp(udp).tcp(tcp)
    }

    /// The peer has answered us. Tells whether we meet it by that introducer: of two introductions that cross one is enough, until nothing
    /// has come of it for some seconds.
    pub(crate) fn is_found(&self) -> bool {
        let mut state = self.state.hold();
        state.was_found = true;
        self.may_meet(&mut state)
    }

    /// The peer asks for us. Tells whether we meet it by that introducer.
    pub(crate) fn is_sought(&self) -> bool {
        let mut state = self.state.hold();
        state.was_sought = true;
        self.may_meet(&mut state)
    }

    fn may_meet(&self, state: &mut State) -> bool {
        !self.leads || state.claim.take(clock::now()).is_ok()
    }

    /// Whether it is for us to ask for the peer once more when the stream is to take another path.
    pub(super) fn asks_again(&self) -> bool {
        let State { was_found, was_sought, .. } = *self.state.hold();
        was_found && (self.leads || !was_sought)
    }
}

/// Found as long as this lives.
struct UnderWay<'s> {
    singles: &'s Singles,
    single: Arc<Single>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.singles.0.hold().retain(|one| !Arc::ptr_eq(one, &self.single));
    }
}

/// Blocks until the peer calls as well and one way has led there, at most until the deadline.
pub(super) fn call(dial: &Dial<'_>, single: &Arc<Single>) -> Outcome {
    let _under_way = dial.shared.singles.enter(single);
    let (begun, failed) = (clock::now(), Mutex::new(Vec::new()));
    let outcome = thread::scope(|scope| {
        let failed = &failed;
        for (introducer, due) in dial.introducers.iter().zip(dues(begun)) {
            spawn(scope, move || failed.hold().extend(dial.keep_asking(introducer, single, due)));
        }
        if dial.endpoints.is_empty() && dial.roads.contains(Road::Lan) {
            // Who calls too may still be on its way.
            spawn(scope, move || single.call.add(dial.look(dial.deadline)));
        }
        let called = single.call.connect(dial.endpoints.clone(), &dial.options());
        dial.give_up();
        called
    });
    outcome.inspect(|stream| dial.remember(stream)).map_err(|error| {
        let mut attempts = failed.into_inner().unwrap_or_default();
        if let Some(first) = dial.endpoints.first() {
            let waited = clock::now().saturating_duration_since(begun);
            attempts.extend(Attempt::of_dial(error, first, dial.since_begun(begun), waited));
        }
        attempts
    })
}

fn spawn<'scope>(scope: &'scope thread::Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
    if let Err(error) = thread::Builder::new().name("crust-dial".into()).spawn_scoped(scope, work) {
        tracing::warn!(%error, "no thread for a road of a call");
    }
}

/// When each introducer is asked: a quarter of a second apart (RFC 8305), so that the first has a chance to be the only one.
fn dues(begun: Instant) -> impl Iterator<Item = Instant> {
    std::iter::successors(Some(begun), |last| Some(*last + PACE)).take(MOST_ASKED)
}

impl Dial<'_> {
    /// Asks an introducer for the peer until the call is over, as the peer may attach or call later than we; the last failure.
    fn keep_asking(&self, introducer: &Introducer, single: &Single, first: Instant) -> Option<Attempt> {
        let (mut due, mut pause, mut last) = (first, FIRST_PAUSE, None);
        loop {
            self.interrupt.hold_back(due.min(self.deadline));
            let now = clock::now();
            if self.interrupt.dials().is_interrupted() || now >= self.deadline {
                return last;
            }
            let asked = self.ask_for_single(introducer, single);
            let not_met = || AttemptError::Meeting("neither found a way to the other in time".to_owned());
            match asked {
                // The call is over, and this only counts if it has failed.
                Ok(()) => return Some(self.attempt(introducer, now, not_met())),
                // The peer may have given up, and call again.
                Err(AttemptError::Rendezvous(RendezvousError::Interrupted)) => {
                    last = Some(self.attempt(introducer, now, not_met()));
                }
                Err(error) => last = Some(self.attempt(introducer, now, error)),
            }
            due = clock::now() + pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn ask_for_single(&self, introducer: &Introducer, single: &Single) -> Result<(), AttemptError> {
        self.shared.ask_for_addresses(introducer);
        let introduction = Introduction { request: self.request(), roads: self.roads, improves: None };
        introduction.meet(introducer, self.open()?, |ours, theirs| {
            let until = self.deadline.min(clock::now() + MEETING);
            let options = DialOptions::new().deadline(until).interrupter(self.interrupt.dials());
            single.call.introduce(&ours, theirs, &options)
        })
    }

    /// Where the peer was reached, if that was at one of its listeners.
    fn remember(&self, stream: &Stream) {
        let path = stream.path();
        let remote = Endpoint::new(path.scheme, path.remote, self.peer);
        if in_order(&self.endpoints, self.schemes).contains(&remote.into()) {
            self.shared.remembered.record(remote);
        }
        if matches!(path.kind, PathKind::Punched | PathKind::Relayed) {
            let relayed = path.kind == PathKind::Relayed;
            self.shared.with_budget(self.peer, |budget| budget.handle_met(relayed));
        }
    }
}

/// Between two introducers.
const PACE: Duration = Duration::from_millis(250);
/// As many as a contact names.
const MOST_ASKED: usize = 4;
/// Until an introducer is asked again: the peer may be a moment behind us.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// As long as the peer keeps at one introduction.
const MEETING: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
