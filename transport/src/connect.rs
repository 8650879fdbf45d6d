//! `Stream::connect`: names, then a race over all addresses, then the first stream that is good.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Interrupter, Scheme, Stream, Transport,
    admission::Refusal,
    connect_options::ConnectOptions,
    endpoint::{Endpoint, NamedEndpoint, ToEndpoints},
    error::{ConnectAttempt, ConnectError},
    identity::PublicKey,
    io::{
        clock,
        crank::Waited,
        dial::{Dial, DialError, DialOrder, Outcomes},
        rendezvous::{Further, connect_single},
    },
    protocol::{
        preface::{Preface, Purpose},
        race::{Race, interleave},
        rounds::Round,
    },
    rendezvous::{Rendezvous, RendezvousError, RendezvousOffer, RendezvousRoad},
    transport::Shared,
};

impl Stream {
    /// Dials a peer whose addresses are known, and blocks until the stream is there: encrypted, both keys proved, and
    /// accepted by the peer.
    ///
    /// All addresses race, the next one 250 ms after the last (RFC 8305) or as soon as it failed; the first good one wins.
    /// An address where nobody listens has failed as soon as the network says so, over QUIC on Linux only.
    /// Blocks for at most [`TransportConfig::connect_timeout`](crate::TransportConfig::connect_timeout), 10 s by default.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], whose variants say what to do: [`WrongPeer`](ConnectError::WrongPeer) and
    /// [`Refused`](ConnectError::Refused) will not mend by trying again.
    pub fn direct_connect(transport: &Transport, to: impl ToEndpoints) -> Result<Self, ConnectError> {
        Self::connect_with(transport, to, &ConnectOptions::new())
    }

    /// Like [`Stream::direct_connect`], with a protocol label, a token, a deadline.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn connect_with(
        transport: &Transport,
        to: impl ToEndpoints,
        options: &ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let call = Call::new(transport.shared(), options, false);
        let endpoints = to.to_endpoints()?;
        if !options.single {
            return call.run(endpoints);
        }
        let Some(first) = endpoints.first() else { return Err(ConnectError::NoEndpoint) };
        let peer = first.public_key();
        call.run_single(peer, endpoints, &Further::default())
    }

    /// Like [`Stream::connect_with`], but returns a round trip sooner, before the peer has judged: the key of the peer is
    /// proved, ours may still be refused.
    ///
    /// The stream can be written at once. A refusal is then the error of the first read and of every later call
    /// ([`StreamError::Refused`](crate::StreamError::Refused)). With [`ConnectOptions::single`] nothing is early.
    ///
    /// # Errors
    ///
    /// As there, refusals apart.
    pub fn connect_early(
        transport: &Transport,
        to: impl ToEndpoints,
        options: &ConnectOptions,
    ) -> Result<Self, ConnectError> {
        if options.single {
            return Self::connect_with(transport, to, options);
        }
        Call::new(transport.shared(), options, true).run(to.to_endpoints()?)
    }
}

impl SingleCall {
    /// Makes a call that has not begun yet. Does not block.
    #[must_use]
    pub fn new(transport: &Transport, peer: PublicKey) -> Self {
        Self { transport: transport.clone(), peer, further: Arc::default() }
    }

    /// Whom it calls.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.peer
    }

    /// Calls, as [`Stream::connect_with`] does with [`ConnectOptions::single`]; where the peer listens need not be known. Blocks until the
    /// peer calls as well and one way has worked, at most until the deadline of the options.
    ///
    /// # Errors
    ///
    /// As there; [`ConnectError::NoEndpoint`] if no endpoint was given and nothing came of what others have added.
    pub fn connect(
        &self,
        endpoints: Vec<NamedEndpoint>,
        options: &ConnectOptions,
    ) -> Result<Stream, ConnectError> {
        Call::new(self.transport.shared(), options, false).run_single(self.peer, endpoints, &self.further)
    }

    /// Has the call dial there as well. Endpoints of other peers are left out.
    pub fn add(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        let its = endpoints.into_iter().filter(|endpoint| endpoint.public_key() == self.peer);
        self.further.add_listeners(its.map(|endpoint| (endpoint.scheme(), endpoint.addr())));
    }

    /// Has the call meet the peer as it says in `theirs`, while the peer does the same with the offer of `ours`. Blocks until the call is
    /// over, however that is, at most as long as the options say, of which only deadline and interrupter are used.
    ///
    /// # Errors
    ///
    /// [`RendezvousError::Offer`] if it is another peer's, [`RendezvousError::Full`] if the call has too many of them, and
    /// [`RendezvousError::Interrupted`] at the deadline as well.
    pub fn introduce(
        &self,
        ours: &Rendezvous,
        theirs: &RendezvousOffer,
        options: &ConnectOptions,
    ) -> Result<(), RendezvousError> {
        if theirs.public_key() != self.peer {
            return Err(RendezvousError::Offer);
        }
        let usual = self.transport.shared().config.connect_timeout;
        let deadline = options.deadline_of(clock::now(), usual);
        self.further.introduce(ours.half(), &theirs.offer, options.interrupter.as_ref(), deadline)
    }
}

/// A call that two peers make of each other, with one stream for both: [`ConnectOptions::single`] where ways to the peer are found while it
/// is under way, such as by somebody who introduces the two. However many are added, and by whichever side: the two calls return the ends
/// of exactly one stream.
///
/// ```
/// use std::{io::{Read, Write}, thread};
/// use transport::{ConnectOptions, Identity, Listener, SingleCall, Transport, TransportConfig};
///
/// let transport = || Transport::new(Identity::generate(), TransportConfig::default());
/// let (one, other) = (transport()?, transport()?);
/// let listener = Listener::bind(&other, "quic://127.0.0.1:0")?;
/// let (mine, yours) =
///     (SingleCall::new(&one, other.public_key()), SingleCall::new(&other, one.public_key()));
/// let options = ConnectOptions::new();
/// thread::scope(|scope| {
///     scope.spawn(|| yours.connect(Vec::new(), &options).unwrap().write_all(b"hello").unwrap());
///     // Found later.
///     scope.spawn(|| mine.add(listener.endpoints().unwrap()));
///     let mut text = String::new();
///     mine.connect(Vec::new(), &options)?.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SingleCall {
    transport: Transport,
    peer: PublicKey,
    further: Arc<Further>,
}

/// Whether they are one call.
impl PartialEq for SingleCall {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.further, &other.further)
    }
}

impl Eq for SingleCall {}

/// One call of connect.
struct Call<'t> {
    shared: &'t Arc<Shared>,
    options: &'t ConnectOptions,
    early: bool,
    begun: Instant,
    deadline: Instant,
    outcomes: Arc<Outcomes>,
}

impl<'t> Call<'t> {
    fn new(shared: &'t Arc<Shared>, options: &'t ConnectOptions, early: bool) -> Self {
        let begun = clock::now();
        let deadline = options.deadline_of(begun, shared.config.connect_timeout);
        let outcomes = Outcomes::new(shared.crank.slot());
        Self { shared, options, early, begun, deadline, outcomes }
    }

    fn run(&self, endpoints: Vec<NamedEndpoint>) -> Result<Stream, ConnectError> {
        if endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let interrupter = self.options.interrupter.as_ref();
        let _watch = interrupter.map(|interrupter| interrupter.watch(self.outcomes.slot()));
        let (mut candidates, mut failed) = self.resolve(endpoints)?;
        let mut race = Race::new(clock::now(), candidates.len());
        if self.go_over_guest(&mut candidates) {
            race = Race::new(clock::now(), candidates.len()).head_start(GUEST_HEAD_START);
        }
        loop {
            if interrupter.is_some_and(Interrupter::is_interrupted) {
                return Err(ConnectError::Interrupted);
            }
            if self.shared.is_closed() {
                return Err(ConnectError::Closed);
            }
            if candidates.first().is_some_and(|first| self.guest_gets_on(first)) {
                race.hold_back(clock::now());
            }
            while let Some(index) = race.poll_start(clock::now()) {
                if let Err(error) = self.start(index, &mut candidates[index]) {
                    self.note_failure(&mut candidates[index], DialError::Socket(error));
                    race.handle_failure(clock::now());
                }
            }
            if race.is_lost() {
                break;
            }
            let until = race.poll_timeout().map_or(self.deadline, |next| next.min(self.deadline));
            match self.shared.crank.wait(self.outcomes.slot(), Some(until)) {
                Waited::Closed => return Err(ConnectError::Closed),
                Waited::TimedOut if clock::now() >= self.deadline => break,
                Waited::TimedOut | Waited::Ready => {}
            }
            for (index, outcome) in self.outcomes.take() {
                match outcome {
                    Ok(stream) => return Ok(stream),
                    // The peer itself has answered, so its other addresses would answer the same.
                    Err(DialError::Refused(reason)) => return Err(candidates[index].refused(reason)),
                    Err(error) => {
                        self.note_failure(&mut candidates[index], error);
                        race.handle_failure(clock::now());
                    }
                }
            }
        }
        let dialled = candidates.into_iter().filter(|candidate| !candidate.over_guest);
        let unfinished = dialled.map(|candidate| candidate.into_attempt(self.begun));
        failed.extend(unfinished);
        Err(summary(failed))
    }

    /// Both dial, and have one stream.
    fn run_single(
        &self,
        peer: PublicKey,
        endpoints: Vec<NamedEndpoint>,
        further: &Further,
    ) -> Result<Stream, ConnectError> {
        let nowhere = endpoints.is_empty();
        let (mut candidates, failed) = self.resolve(endpoints)?;
        candidates.retain(|candidate| candidate.endpoint.public_key() == peer);
        if candidates.is_empty() && !nowhere {
            return Err(summary(failed));
        }
        let listeners: Vec<_> =
            candidates.iter().map(|other| (other.endpoint.scheme(), other.addr)).collect();
        let (shared, options) = (self.shared, self.options);
        let met = connect_single(shared, (peer, &listeners), further, options, self.begun, self.deadline);
        met.map_err(|error| match candidates.first().map(|first| first.endpoint.clone()) {
            Some(endpoint) => self.not_met(endpoint, &candidates, error),
            None => match error {
                RendezvousError::Interrupted => ConnectError::Interrupted,
                RendezvousError::Closed => ConnectError::Closed,
                _ => ConnectError::NoEndpoint,
            },
        })
    }

    fn not_met(
        &self,
        endpoint: NamedEndpoint,
        candidates: &[Candidate],
        error: RendezvousError,
    ) -> ConnectError {
        match error {
            RendezvousError::Interrupted => ConnectError::Interrupted,
            RendezvousError::Closed => ConnectError::Closed,
            RendezvousError::Offer => ConnectError::Refused { endpoint, reason: Refusal::Myself },
            RendezvousError::Refused { reason, .. } => ConnectError::Refused { endpoint, reason },
            RendezvousError::Socket(source) => ConnectError::Socket { endpoint, source },
            RendezvousError::Failed { failures, waited, .. } => {
                let attempts = failures.into_iter().filter_map(|failure| {
                    let RendezvousRoad::Listener { remote, .. } = failure.road else { return None };
                    let dialled = candidates.iter().find(|candidate| candidate.addr == remote)?;
                    let endpoint = dialled.endpoint.clone();
                    let error =
                        ConnectError::Handshake { endpoint: endpoint.clone(), reason: failure.reason };
                    let waited = failure.waited;
                    Some(ConnectAttempt { endpoint, addr: Some(remote), waited, error: Box::new(error) })
                });
                let attempts: Vec<_> = attempts.collect();
                if attempts.is_empty() {
                    return ConnectError::TimedOut { endpoint, waited };
                }
                summary(attempts)
            }
            RendezvousError::Full => {
                let reason =
                    "a call with `single` to that peer and label is under way; wait for its end".to_owned();
                ConnectError::Handshake { endpoint, reason }
            }
            other => ConnectError::Handshake { endpoint, reason: other.to_string() },
        }
    }

    /// A peer that has dialled us may be reached by that connection, which is tried first: it takes one round trip. Tells
    /// whether there is one.
    fn go_over_guest(&self, candidates: &mut Vec<Candidate>) -> bool {
        if self.early || self.options.own_connection || self.options.local.is_some() {
            return false;
        }
        let Some(first) = candidates.first().filter(|first| first.endpoint.scheme() == Scheme::Quic) else {
            return false;
        };
        let peer = first.endpoint.public_key();
        if !self.shared.quic.has_guest(peer) {
            return false;
        }
        let over = Candidate { over_guest: true, ..Candidate::new(first.endpoint.clone(), first.addr) };
        for other in candidates.iter_mut().filter(|other| other.endpoint.public_key() == peer) {
            // Its turn comes when the guest is dead, so it must not be sent there.
            other.stays = true;
        }
        candidates.insert(0, over);
        true
    }

    /// The peer is there, and only slow to answer.
    fn guest_gets_on(&self, first: &Candidate) -> bool {
        let begun = first.begun.filter(|begun| first.over_guest && clock::now() < *begun + GUEST_PATIENCE);
        first.dial.is_some()
            && begun.is_some_and(|begun| self.shared.quic.guest_is_heard(first.endpoint.public_key(), begun))
    }

    /// Turns names into addresses. Names that cannot be resolved are failed attempts, not the end of the call.
    fn resolve(
        &self,
        endpoints: Vec<NamedEndpoint>,
    ) -> Result<(Vec<Candidate>, Vec<ConnectAttempt>), ConnectError> {
        let mut candidates = Vec::new();
        let mut failed = Vec::new();
        for endpoint in endpoints {
            match self.look_up(&endpoint) {
                Ok(addrs) => {
                    let addrs = interleave(addrs, SocketAddr::is_ipv6);
                    candidates.extend(addrs.into_iter().map(|addr| Candidate::new(endpoint.clone(), addr)));
                }
                Err(_) if self.shared.is_closed() => return Err(ConnectError::Closed),
                Err(source) => {
                    let waited = clock::now().saturating_duration_since(self.begun);
                    let error = if source.kind() == io::ErrorKind::TimedOut {
                        ConnectError::TimedOut { endpoint: endpoint.clone(), waited }
                    } else {
                        ConnectError::Resolve { endpoint: endpoint.clone(), source }
                    };
                    failed.push(ConnectAttempt { endpoint, addr: None, waited, error: Box::new(error) });
                }
            }
        }
        candidates.truncate(MAX_CANDIDATES);
        Ok((candidates, failed))
    }

    fn look_up(&self, endpoint: &NamedEndpoint) -> io::Result<Vec<SocketAddr>> {
        if let Some(known) = endpoint.to_endpoint() {
            return Ok(vec![known.addr()]);
        }
        self.shared.resolver.resolve(self.shared, endpoint.host(), endpoint.port(), self.deadline)
    }

    fn start(&self, index: usize, candidate: &mut Candidate) -> io::Result<()> {
        tracing::trace!(endpoint = %candidate.endpoint, addr = %candidate.addr, "dialling");
        candidate.begun = Some(clock::now());
        let order = DialOrder {
            attempt: index,
            scheme: candidate.endpoint.scheme(),
            remote: candidate.addr,
            local: self.options.local,
            via: None,
            punched: false,
            expected: candidate.endpoint.public_key(),
            preface: Preface {
                purpose: Purpose::Direct,
                label: self.options.label.clone(),
                token: self.options.token.clone(),
                network: self.options.network.clone(),
                stays: candidate.stays || self.early || self.options.own_connection,
            },
            early: self.early,
            own_connection: self.options.own_connection,
            over_guest: candidate.over_guest,
            // Nothing else is under way yet.
            directly: index == 0,
            round: Round::First,
            outcomes: self.outcomes.clone(),
        };
        candidate.dial = Some(order.begin(self.shared)?);
        Ok(())
    }

    fn note_failure(&self, candidate: &mut Candidate, error: DialError) {
        candidate.dial = None;
        let endpoint = candidate.endpoint.clone();
        let waited = candidate.waited(self.begun);
        tracing::debug!(%endpoint, addr = %candidate.addr, %error, "an attempt to connect failed");
        candidate.failure = Some(match error {
            DialError::Socket(source) if source.kind() == io::ErrorKind::TimedOut => {
                ConnectError::TimedOut { endpoint, waited }
            }
            DialError::Socket(source) => ConnectError::Socket { endpoint, source },
            DialError::WrongPeer => ConnectError::WrongPeer { endpoint },
            DialError::Refused(reason) => ConnectError::Refused { endpoint, reason },
            DialError::TimedOut => ConnectError::TimedOut { endpoint, waited },
            DialError::RefusedByUs | DialError::NotChosen | DialError::Handshake(_) => {
                ConnectError::Handshake { endpoint, reason: error.to_string() }
            }
        });
    }
}

/// One address to try, and what is known of it.
struct Candidate {
    endpoint: NamedEndpoint,
    addr: SocketAddr,
    begun: Option<Instant>,
    dial: Option<Dial>,
    failure: Option<ConnectError>,
    /// Over a connection that the peer made, not to the address.
    over_guest: bool,
    /// What it asks for stays on its connection.
    stays: bool,
}

impl Candidate {
    fn new(endpoint: NamedEndpoint, addr: SocketAddr) -> Self {
        Self { endpoint, addr, begun: None, dial: None, failure: None, over_guest: false, stays: false }
    }

    fn refused(&self, reason: Refusal) -> ConnectError {
        ConnectError::Refused { endpoint: self.endpoint.clone(), reason }
    }

    fn waited(&self, call_begun: Instant) -> Duration {
        clock::now().saturating_duration_since(self.begun.unwrap_or(call_begun))
    }

    /// The record of an attempt that gave no stream; what has no reason yet ran out of time.
    fn into_attempt(self, call_begun: Instant) -> ConnectAttempt {
        let waited = self.waited(call_begun);
        let timed_out = || ConnectError::TimedOut { endpoint: self.endpoint.clone(), waited };
        let error = Box::new(self.failure.unwrap_or_else(timed_out));
        ConnectAttempt { endpoint: self.endpoint, addr: Some(self.addr), waited, error }
    }
}

/// One attempt's own error, or all of them.
fn summary(mut attempts: Vec<ConnectAttempt>) -> ConnectError {
    if attempts.len() > 1 {
        return ConnectError::AllFailed { attempts };
    }
    attempts.pop().map_or(ConnectError::NoEndpoint, |attempt| *attempt.error)
}

/// A peer that is there answers within one round trip, mostly; one that has gone answers never.
const GUEST_HEAD_START: Duration = Duration::from_millis(500);
/// So long it is waited for, as long as its connection lives.
const GUEST_PATIENCE: Duration = Duration::from_secs(3);
/// A name may have any number of addresses, a contact too; trying more of them would be a port scan.
const MAX_CANDIDATES: usize = 32;
