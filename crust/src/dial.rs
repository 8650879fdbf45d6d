//! One call of connect: all roads that the plan knows, on threads that end with the call.

use std::{
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{RecvTimeoutError, Sender, unbounded};
use transport::{
    AccessToken, ConnectOptions as DialOptions, NamedEndpoint, ProtocolLabel, PublicKey, Scheme, Stream,
};

use crate::{
    Attempt, AttemptError, ConnectError, ConnectTrace, Introducer, Road,
    io::{
        clock,
        introduce::{Interrupt, IntroductionError, Request},
    },
    protocol::{
        introduction::Particulars,
        plan::{Leg, Plan},
    },
    shared::Shared,
};

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
    pub(crate) begun: Instant,
    pub(crate) deadline: Instant,
    pub(crate) interrupt: Interrupt,
}

/// What came of one road.
type Outcome = Result<Stream, Vec<Attempt>>;

impl Dial<'_> {
    /// Blocks until a road has led there, or none does, or the deadline.
    pub(crate) fn run(&self) -> (Result<Stream, ConnectError>, ConnectTrace) {
        let mut trace = ConnectTrace::new(self.peer);
        let outcome = match (self.introducers.is_empty(), self.endpoints.is_empty()) {
            // Nothing to race: no thread is needed.
            (true, true) => self.sought(self.begun),
            (true, false) => self.straight(self.begun),
            _ => self.race(),
        };
        let took = self.since_begun(clock::now());
        match outcome {
            Ok(stream) => {
                trace.won(&stream, took);
                (Ok(stream), trace)
            }
            Err(attempts) => {
                trace.lost(&attempts, took);
                (Err(ConnectError::new(self.peer, attempts, trace.clone())), trace)
            }
        }
    }

    fn race(&self) -> Outcome {
        let straight = !self.endpoints.is_empty();
        let mut plan = Plan::new(self.begun, straight, self.introducers.len(), 0);
        let (give, outcomes) = unbounded();
        thread::scope(|scope| {
            let mut failed = Vec::new();
            loop {
                while let Some(leg) = plan.poll_start(clock::now()) {
                    let give: Sender<(Leg, Outcome)> = give.clone();
                    let started = clock::now();
                    // Whoever has won listens no more, and the stream of who comes second ends here.
                    let work = move || drop(give.send((leg, self.go(leg, started))));
                    let spawned = thread::Builder::new().name("crust-dial".into()).spawn_scoped(scope, work);
                    if let Err(error) = spawned {
                        failed.extend(self.skipped(leg, started, &format!("no thread for it: {error}")));
                        plan.handle_failure(clock::now(), leg);
                    }
                }
                if plan.is_lost() {
                    return Err(failed);
                }
                let until = plan.poll_timeout().map_or(self.deadline, |next| next.min(self.deadline));
                match outcomes.recv_deadline(until) {
                    Ok((_, Ok(stream))) => {
                        self.give_up();
                        return Ok(stream);
                    }
                    Ok((leg, Err(attempts))) => {
                        let refused = attempts.iter().any(|attempt| attempt.refusal().is_some());
                        failed.extend(attempts);
                        if refused {
                            // The peer itself has answered, and would answer the same on any other road.
                            self.give_up();
                            return Err(failed);
                        }
                        plan.handle_failure(clock::now(), leg);
                    }
                    Err(RecvTimeoutError::Timeout) if clock::now() < self.deadline => {}
                    Err(_) => {
                        self.give_up();
                        // What was under way tells how far it got.
                        drop(give);
                        failed.extend(outcomes.iter().filter_map(|(_, outcome)| outcome.err()).flatten());
                        return Err(failed);
                    }
                }
            }
        })
    }

    fn go(&self, leg: Leg, started: Instant) -> Outcome {
        match leg {
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
        let until = self.deadline.min(started + LOOKING);
        let found = self.shared.lan.find(self.peer, until, || self.interrupt.dials().is_interrupted());
        let found = found.unwrap_or_else(|error| {
            tracing::debug!(peer = %self.peer, %error, "not found on the local network");
            Vec::new()
        });
        let found: Vec<NamedEndpoint> = found.into_iter().map(NamedEndpoint::from).collect();
        self.dial(&in_order(&found, self.schemes), started)
    }

    /// Ends what is under way.
    fn give_up(&self) {
        self.interrupt.interrupt();
        self.shared.lan.nudge();
    }

    fn dial(&self, endpoints: &[NamedEndpoint], started: Instant) -> Outcome {
        let Some(first) = endpoints.first() else { return Err(Vec::new()) };
        let mut options = DialOptions::new()
            .protocol(self.label.clone())
            .deadline(self.deadline)
            .interrupter(self.interrupt.dials());
        if let Some(token) = self.token {
            options = options.access_token(token.clone());
        }
        Stream::connect_with(&self.shared.transport, endpoints, &options).map_err(|error| {
            let waited = clock::now().saturating_duration_since(started);
            Attempt::of_dial(error, first, self.since_begun(started), waited)
        })
    }

    /// Asks an introducer for the peer, and goes to where the peer says it is.
    fn introduced(&self, introducer: &Introducer, started: Instant) -> Outcome {
        let request = Request {
            shared: self.shared,
            peer: self.peer,
            token: self.token,
            deadline: self.deadline,
            interrupt: &self.interrupt,
        };
        let fail = |error: IntroductionError| {
            let waited = clock::now().saturating_duration_since(started);
            vec![Attempt {
                road: Road::Punched,
                endpoint: introducer.endpoints[0].clone(),
                addr: None,
                started: self.since_begun(started),
                waited,
                error: Box::new(AttemptError::Introduction(error)),
            }]
        };
        let (mut call, theirs) = request.knock(introducer).map_err(fail)?;
        call.offer(&self.label, Particulars::default()).map_err(fail)?;
        let known = |endpoint: &NamedEndpoint| self.endpoints.contains(endpoint);
        let there = theirs.endpoints_of(self.peer).filter(|at| self.schemes.contains(&at.scheme()));
        let there: Vec<NamedEndpoint> = there.map(NamedEndpoint::from).filter(|at| !known(at)).collect();
        if there.is_empty() {
            let refusal = call.refusal(clock::now() + LATE_REFUSAL.min(self.left()));
            let reason = "the peer named no address that was not tried already".to_owned();
            return Err(fail(
                refusal.map_or(IntroductionError::Answer { reason }, IntroductionError::Refused),
            ));
        }
        self.dial(&there, started)
    }

    fn skipped(&self, leg: Leg, started: Instant, reason: &str) -> Option<Attempt> {
        let endpoint = match leg {
            Leg::Introduced(index) => &self.introducers[index].endpoints[0],
            _ => self.endpoints.first()?,
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

    fn since_begun(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.begun)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::now())
    }
}

/// The endpoints of the wanted schemes, those of the preferred scheme first.
pub(crate) fn in_order(endpoints: &[NamedEndpoint], schemes: &[Scheme]) -> Vec<NamedEndpoint> {
    let of = |scheme| endpoints.iter().filter(move |endpoint| endpoint.scheme() == scheme);
    schemes.iter().flat_map(|&scheme| of(scheme)).cloned().collect()
}

/// A beacon asks six times within two seconds; who has not answered then is not there.
const LOOKING: Duration = Duration::from_secs(3);
/// A peer that turns us away after our offer says so within a round trip.
const LATE_REFUSAL: Duration = Duration::from_secs(2);
