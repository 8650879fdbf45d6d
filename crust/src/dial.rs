//! One call of connect: all roads that the plan knows, on threads that end with the call.

mod known;
mod single;

pub(crate) use single::{Single, Singles};

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{RecvTimeoutError, Sender, unbounded};
use transport::{
    AccessToken, ConnectOptions as DialOptions, Endpoint, NamedEndpoint, PathKind, ProtocolLabel, PublicKey,
    Rendezvous, RendezvousError, RendezvousOffer, RendezvousRoad, Scheme, Stream,
};

#[cfg(feature = "dht")]
use crate::looked_up::LookedUp;
use crate::{
    Attempt, AttemptError, ConnectError, ConnectTrace, Introducer, Road,
    improving::Detour,
    introduced::Introduction,
    io::{
        clock,
        introduce::{Interrupt, Request},
    },
    protocol::{
        network_memory::{Met, NetworkId, Way},
        plan::{Leg, Plan},
    },
    road::Roads,
    shared::Shared,
};

use known::Known;

/// What one call of connect knows.
#[derive(Debug)]
pub(crate) struct Dial<'c> {
    pub(crate) shared: &'c Shared,
    pub(crate) peer: PublicKey,
    pub(crate) token: Option<&'c AccessToken>,
    pub(crate) label: ProtocolLabel,
    /// Where the peer may be, best first.
    pub(crate) endpoints: Vec<NamedEndpoint>,
    /// Who may know the peer.
    pub(crate) introducers: Vec<Introducer>,
    pub(crate) schemes: &'c [Scheme],
    /// What may be tried.
    pub(crate) roads: Roads,
    /// The peer calls too, for the same stream.
    pub(crate) single: Option<Arc<Single>>,
    /// Where we are, and how the peer was met from there before.
    pub(crate) network: Option<NetworkId>,
    pub(crate) before: Option<Met>,
    #[cfg(feature = "dht")]
    pub(crate) looked_up: LookedUp,
    pub(crate) begun: Instant,
    pub(crate) deadline: Instant,
    pub(crate) interrupt: Interrupt,
}

/// What came of one road.
type Outcome = Result<Stream, Vec<Attempt>>;

/// What a road tells the call.
enum News {
    Ended(Leg, Outcome),
    /// There is a contact to try; its place among those that were found.
    #[cfg(feature = "dht")]
    Found(usize),
}

impl Dial<'_> {
    /// Blocks until a road has led there, or none does, or the deadline.
    pub(crate) fn run(&self) -> (Result<Stream, ConnectError>, ConnectTrace) {
        let mut trace = ConnectTrace::new(self.peer);
        let known = self.known_connection();
        let asks_nobody = self.introducers.is_empty() && !self.looks_up();
        let outcome = match (&self.single, &known, (asks_nobody, self.endpoints.is_empty())) {
            (Some(single), ..) => single::call(self, single),
            // Nothing to race: no thread is needed.
            (None, None, (true, true)) => self.sought(self.begun),
            (None, None, (true, false)) => self.straight(self.begun),
            _ => self.race(known.as_ref()),
        };
        let took = self.since_begun(clock::now());
        trace.routers(self.shared.forwarded.summary());
        #[cfg(feature = "dht")]
        trace.asked_dht(self.looked_up.said());
        match outcome {
            Ok(stream) => {
                trace.won(&stream, took);
                (Ok(stream), trace)
            }
            Err(attempts) => {
                trace.lost(&attempts, self.roads, took);
                let error = ConnectError::new(self.peer, attempts, trace.clone());
                (Err(error.closed(self.shared.lan.is_closed())), trace)
            }
        }
    }

    fn race(&self, known: Option<&Known>) -> Outcome {
        let mut plan = self.plan(known);
        let (give, outcomes) = unbounded();
        thread::scope(|scope| {
            let mut failed = Vec::new();
            loop {
                let now = clock::now();
                while now < self.deadline
                    && let Some(leg) = plan.poll_start(now)
                {
                    let give: Sender<News> = give.clone();
                    let started = clock::now();
                    // Whoever has won listens no more, and the stream of who comes second ends here.
                    let work = move || drop(give.send(News::Ended(leg, self.go(leg, known, started, &give))));
                    let spawned = thread::Builder::new().name("crust-dial".into()).spawn_scoped(scope, work);
                    if let Err(error) = spawned {
                        failed.extend(self.skipped(leg, started, &format!("no thread for it: {error}")));
                        plan.handle_failure(clock::now(), leg);
                    }
                }
                if plan.is_lost() {
                    return Err(failed);
                }
                let until = match plan.poll_timeout() {
                    _ if now >= self.deadline => self.deadline + GRACE,
                    next => next.map_or(self.deadline, |next| next.min(self.deadline)),
                };
                match outcomes.recv_deadline(until) {
                    #[cfg(feature = "dht")]
                    Ok(News::Found(place)) => {
                        let (endpoints, introducers) = self.found(place);
                        plan.handle_found(clock::now(), place, !endpoints.is_empty(), introducers.len());
                    }
                    Ok(News::Ended(_, Ok(stream))) => {
                        self.give_up();
                        return Ok(stream);
                    }
                    Ok(News::Ended(leg, Err(attempts))) => {
                        let refused = attempts.iter().any(|attempt| attempt.refusal().is_some());
                        failed.extend(attempts);
                        if refused {
                            // The peer itself has answered, and would answer the same on any other road.
                            self.give_up();
                            return Err(failed);
                        }
                        plan.handle_failure(clock::now(), leg);
                        self.interrupt.hurry();
                    }
                    Err(RecvTimeoutError::Timeout) if clock::now() < self.deadline + GRACE => {}
                    Err(_) => {
                        self.give_up();
                        // What was under way tells how far it got.
                        drop(give);
                        failed.extend(outcomes.iter().flat_map(News::failures));
                        return Err(failed);
                    }
                }
            }
        })
    }

    fn plan(&self, known: Option<&Known>) -> Plan {
        let straight = !self.endpoints.is_empty();
        #[cfg_attr(not(feature = "dht"), expect(unused_mut, reason = "only the DHT is added"))]
        let mut plan = Plan::new(self.begun, straight, self.was_introduced(), self.introducers.len(), 0);
        #[cfg(feature = "dht")]
        if self.looks_up() {
            plan.look_up(self.begun);
        }
        match known {
            Some(known) => plan.after_known(self.begun, known.head_start()),
            None => plan,
        }
    }

    fn looks_up(&self) -> bool {
        #[cfg(feature = "dht")]
        return self.looked_up.is_wanted();
        #[cfg(not(feature = "dht"))]
        false
    }

    #[cfg_attr(not(feature = "dht"), expect(unused_variables, reason = "only the DHT has news"))]
    fn go(&self, leg: Leg, known: Option<&Known>, started: Instant, news: &Sender<News>) -> Outcome {
        match leg {
            Leg::Known => known.map_or_else(|| Err(Vec::new()), |known| self.further(known, started)),
            #[cfg(feature = "dht")]
            Leg::LookedUp => {
                self.look_up(|place| drop(news.send(News::Found(place))));
                Err(Vec::new())
            }
            #[cfg(feature = "dht")]
            Leg::Found(place) => self.dial(&self.found(place).0, started),
            #[cfg(feature = "dht")]
            Leg::FoundIntroduced(place, index) => match self.found(place).1.get(index) {
                Some(introducer) => self.introduced(introducer, started),
                None => Err(Vec::new()),
            },
            Leg::Straight => self.straight(started),
            Leg::Sought => self.sought(started),
            Leg::Introduced(index) => self.introduced(&self.introducers[index], started),
            Leg::Relayed(_) => Err(Vec::new()),
        }
    }

    /// Dials addresses.
    fn straight(&self, started: Instant) -> Outcome {
        self.dial(&self.endpoints, started)
    }

    /// Asks the local network for the key.
    fn sought(&self, started: Instant) -> Outcome {
        if !self.roads.contains(Road::Lan) {
            return Err(Vec::new());
        }
        let found = self.look(self.deadline.min(started + LOOKING));
        let found: Vec<NamedEndpoint> = found.into_iter().map(NamedEndpoint::from).collect();
        self.dial(&in_order(&found, self.schemes), started)
    }

    /// Where the local network says that the peer is. Blocks until it has answered, at most until then.
    fn look(&self, until: Instant) -> Vec<Endpoint> {
        let found = self.shared.lan.find(self.peer, until, || self.interrupt.dials().is_interrupted());
        found.unwrap_or_else(|error| {
            tracing::debug!(peer = %self.peer, %error, "not found on the local network");
            Vec::new()
        })
    }

    /// Ends what is under way.
    fn give_up(&self) {
        self.interrupt.interrupt();
        self.shared.nudge();
    }

    fn dial(&self, endpoints: &[NamedEndpoint], started: Instant) -> Outcome {
        let Some(first) = endpoints.first() else { return Err(Vec::new()) };
        let dialled = Stream::connect_with(&self.shared.transport, endpoints, &self.options());
        if let Ok(stream) = &dialled {
            let path = stream.path();
            // A hole is none for others, nor for later.
            if path.kind != PathKind::Punched {
                self.shared.remembered.record(Endpoint::new(path.scheme, path.remote, self.peer));
            }
        }
        dialled.map_err(|error| {
            let waited = clock::now().saturating_duration_since(started);
            Attempt::of_dial(error, first, self.since_begun(started), waited)
        })
    }

    fn options(&self) -> DialOptions {
        let options = DialOptions::new()
            .protocol(self.label.clone())
            .network(self.shared.dialling().network.clone())
            .deadline(self.deadline)
            .interrupter(self.interrupt.dials());
        match self.token {
            Some(token) => options.access_token(token.clone()),
            None => options,
        }
    }

    /// Asks an introducer for the peer, and meets it.
    fn introduced(&self, introducer: &Introducer, started: Instant) -> Outcome {
        self.shared.ask_for_addresses(introducer);
        let introduction = Introduction { request: self.request(), roads: self.roads, improves: None };
        let met = self.open().map_err(AttemptError::from).and_then(|rendezvous| {
            introduction.meet(introducer, rendezvous, |rendezvous, theirs| self.meet(rendezvous, theirs))
        });
        met.map_err(|error| match error {
            AttemptError::Rendezvous(error) => self.not_met(introducer, started, error),
            error => vec![self.attempt(introducer, started, error)],
        })
    }

    fn request(&self) -> Request<'_> {
        // On a local network a peer answers before that, and the introducer need not learn that we look for it.
        let holds_back = !self.endpoints.is_empty() && !self.was_introduced();
        let head_start = if holds_back { HEAD_START } else { Duration::ZERO };
        Request {
            shared: self.shared,
            peer: self.peer,
            token: self.token,
            label: &self.label,
            without_udp: self.is_without_udp(),
            rescues: None,
            single: self.single.as_deref(),
            not_before: self.begun + head_start,
            deadline: self.deadline,
            interrupt: &self.interrupt,
        }
    }

    fn meet(&self, rendezvous: Rendezvous, theirs: &RendezvousOffer) -> Result<Stream, RendezvousError> {
        let options = DialOptions::new()
            .protocol(self.label.clone())
            .deadline(self.deadline)
            .interrupter(self.interrupt.dials());
        let channel = rendezvous.channel();
        let met = rendezvous.connect(theirs, &options);
        let now = clock::now();
        self.shared.with_budget(self.peer, |budget| match &met {
            Ok(stream) => budget.handle_met(stream.path().kind == PathKind::Relayed),
            Err(RendezvousError::Failed { .. }) => budget.handle_failure(now),
            Err(_) => {}
        });
        match &met {
            // It was not asked whether UDP passes; in some hours it is.
            Ok(_) if self.is_without_udp() => {}
            Ok(stream) => {
                let took = self.since_begun(now);
                let path = stream.path();
                let taken = (path.kind, path.scheme, path.remote);
                self.shared.remembered.met(self.network, self.peer, taken, took, channel.udp_is_silent());
            }
            Err(_) => self.shared.remembered.not_met(self.network, self.peer),
        }
        met
    }

    fn open(&self) -> Result<Rendezvous, RendezvousError> {
        let punch = self.shared.with_budget(self.peer, |budget| budget.may_punch(clock::now()));
        if let Err(at) = punch {
            let wait = at.saturating_duration_since(clock::now());
            tracing::debug!(peer = %self.peer, ?wait, "punched in vain so often that it is left out for now");
        }
        let options = self
            .shared
            .meeting(self.roads)
            // Where no server answered by UDP and TCP led there, UDP is not tried again.
            .udp(punch.is_ok() && self.schemes.contains(&Scheme::Quic) && !self.is_without_udp())
            .relay_at_once(self.before.is_some_and(|met| met.way == Way::Relayed))
            .tcp(punch.is_ok() && self.schemes.contains(&Scheme::Tcp));
        Rendezvous::open(&self.shared.transport, &options)
    }

    /// Each way of a meeting that came to nothing is an attempt of its own.
    fn not_met(&self, introducer: &Introducer, started: Instant, error: RendezvousError) -> Vec<Attempt> {
        let RendezvousError::Failed { failures, peer, waited } = error else {
            return vec![self.attempt(introducer, started, error.into())];
        };
        if failures.is_empty() {
            let error = RendezvousError::Failed { peer, waited, failures };
            return vec![self.attempt(introducer, started, error.into())];
        }
        let attempts = failures.into_iter().map(|failure| {
            let waited = failure.waited;
            let whole = self.attempt(introducer, started, AttemptError::Meeting(failure.reason));
            match failure.road {
                RendezvousRoad::Listener { scheme, remote } => Attempt {
                    road: Road::to(Some(remote)),
                    endpoint: Endpoint::new(scheme, remote, self.peer).into(),
                    addr: Some(remote),
                    waited,
                    ..whole
                },
                RendezvousRoad::Punched { remote, .. } => Attempt { addr: remote, waited, ..whole },
                _ => Attempt { waited, ..whole },
            }
        });
        attempts.collect()
    }

    /// An attempt by way of an introducer, which ends now.
    fn attempt(&self, introducer: &Introducer, started: Instant, error: AttemptError) -> Attempt {
        Attempt {
            road: Road::Punched,
            endpoint: introducer.endpoints[0].clone(),
            addr: None,
            started: self.since_begun(started),
            waited: clock::now().saturating_duration_since(started),
            error: Box::new(error),
        }
    }

    fn skipped(&self, leg: Leg, started: Instant, reason: &str) -> Option<Attempt> {
        let endpoint = match leg {
            Leg::Introduced(index) => &self.introducers[index].endpoints[0],
            Leg::Straight => self.endpoints.first()?,
            _ => return None,
        };
        let road = if leg == Leg::Straight { Road::Direct } else { Road::Punched };
        Some(Attempt {
            road,
            endpoint: endpoint.clone(),
            addr: None,
            started: self.since_begun(started),
            waited: Duration::ZERO,
            error: Box::new(AttemptError::Skipped { reason: reason.to_owned() }),
        })
    }

    /// What is needed to give the connection of a stream of ours another path, if the peer can be asked for one.
    pub(crate) fn detour(&self, stream: &Stream) -> Option<Detour> {
        let roads = self.roads.contains(Road::Punched) || self.roads.contains(Road::Relayed);
        let introducers = self.introducers.iter().cloned();
        #[cfg(feature = "dht")]
        let introducers = introducers.chain(self.looked_up.introducers());
        let introducers: Vec<Introducer> = introducers.collect();
        let allowed = roads && self.schemes.contains(&Scheme::Quic) && !introducers.is_empty();
        let connection = stream.connection().filter(|_| allowed)?;
        Some(Detour {
            connection,
            introducers,
            token: self.token.cloned(),
            label: self.label.clone(),
            roads: self.roads,
            // Of two who call each other one is enough.
            dialled: self.single.as_ref().is_none_or(|single| single.asks_again()),
        })
    }

    fn was_introduced(&self) -> bool {
        self.before.is_some_and(|met| matches!(met.way, Way::Punched | Way::Relayed))
    }

    fn is_without_udp(&self) -> bool {
        self.before.is_some_and(|met| met.udp_silent) && self.schemes.contains(&Scheme::Tcp)
    }

    fn since_begun(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.begun)
    }
}

impl News {
    fn failures(self) -> Vec<Attempt> {
        match self {
            Self::Ended(_, Err(attempts)) => attempts,
            _ => Vec::new(),
        }
    }
}

/// The endpoints of the wanted schemes, those of the preferred scheme first.
pub(crate) fn in_order(endpoints: &[NamedEndpoint], schemes: &[Scheme]) -> Vec<NamedEndpoint> {
    let of = |scheme| endpoints.iter().filter(move |endpoint| endpoint.scheme() == scheme);
    schemes.iter().flat_map(|&scheme| of(scheme)).cloned().collect()
}

/// What a local network takes to answer, and more.
const HEAD_START: Duration = Duration::from_millis(50);
/// Each road ends at the deadline by itself, and then tells how far it got.
const GRACE: Duration = Duration::from_millis(100);
/// A beacon asks six times within two seconds; who has not answered then is not there.
const LOOKING: Duration = Duration::from_secs(3);
