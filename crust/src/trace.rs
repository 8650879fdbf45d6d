use std::{fmt, time::Duration};

use transport::{ConnectError as DialError, PublicKey, Stream};

use crate::{Attempt, AttemptError, Road, io::introduce::IntroductionError, road::Roads};

/// What one call of connect tried, when, and what came of it: for a person as text, for a program by its methods.
///
/// Every call leaves one, [`ConnectError::trace`](crate::ConnectError::trace) gives it after a failure,
/// [`ServiceController::connect_traced`](crate::ServiceController::connect_traced) always.
///
/// ```
/// use crust::{Config, Endpoint, Identity, Scheme, Service};
///
/// let client = Service::new_from_config(Config::new().listen([]))?;
/// let nobody = Identity::generate().public_key();
/// let endpoint = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse()?, nobody);
/// let error = client.controller.connect(endpoint).expect_err("nothing listens there");
/// println!("{}", error.trace());
/// assert_eq!(error.trace().steps().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ConnectTrace {
    peer: String,
    took: Duration,
    steps: Vec<TraceStep>,
    router: Option<String>,
    dht: Option<String>,
    advice: Vec<String>,
}

/// One road of a [`ConnectTrace`].
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TraceStep {
    /// What kind of road it was.
    pub road: Road,
    /// What was dialled: an endpoint of the peer, or of an introducer.
    pub to: String,
    /// When it began, counted from the call.
    pub started: Duration,
    /// How long it took.
    pub took: Duration,
    /// Why it led nowhere; `None` is the road that was taken.
    pub failure: Option<String>,
}

impl ConnectTrace {
    pub(crate) fn new(peer: PublicKey) -> Self {
        let (peer, took) = (peer.to_string(), Duration::ZERO);
        Self { peer, took, steps: Vec::new(), router: None, dht: None, advice: Vec::new() }
    }

    pub(crate) fn routers(&mut self, forwarded: Option<String>) {
        self.router = forwarded;
    }

    #[cfg(feature = "dht")]
    pub(crate) fn asked_dht(&mut self, said: Option<String>) {
        self.dht = said;
    }

    pub(crate) fn advise(&mut self, advice: &str) {
        self.advice.push(advice.to_owned());
    }

    pub(crate) fn won(&mut self, stream: &Stream, took: Duration) {
        let path = stream.path();
        self.took = took;
        let to = format!("{}://{}", path.scheme, path.remote);
        let road = Road::from(path.kind);
        self.steps.push(TraceStep { road, to, started: Duration::ZERO, took, failure: None });
    }

    pub(crate) fn lost(&mut self, attempts: &[Attempt], roads: Roads, took: Duration) {
        self.took = took;
        self.steps.extend(attempts.iter().map(|attempt| TraceStep {
            road: attempt.road,
            to: attempt.to(),
            started: attempt.started,
            took: attempt.waited,
            failure: Some(error_chain(&*attempt.error)),
        }));
        self.advice = advice(attempts, roads);
    }

    /// What was tried, in the order of its ending.
    #[must_use]
    pub fn steps(&self) -> &[TraceStep] {
        &self.steps
    }

    /// How long all of it took.
    #[must_use]
    pub const fn took(&self) -> Duration {
        self.took
    }

    /// What routers forward to this service, or why none does, as of the call's end; `None` where none is asked, as of one that listens
    /// nowhere, or none has answered yet. A peer that we are introduced to is told of it.
    #[must_use]
    pub fn router(&self) -> Option<&str> {
        self.router.as_deref()
    }

    /// What came of looking the peer up in the DHT; `None` where that was not done, as with a contact, or where another road was quicker.
    #[must_use]
    pub fn dht(&self) -> Option<&str> {
        self.dht.as_deref()
    }

    /// What to do about it, the first unmet condition first. Empty after a success.
    #[must_use]
    pub fn advice(&self) -> &[String] {
        &self.advice
    }
}

impl fmt::Display for ConnectTrace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.steps.iter().any(|step| step.failure.is_none());
        let what = if taken { "connected to" } else { "no road to" };
        write!(formatter, "{what} {} ({} ms)", self.peer, self.took.as_millis())?;
        for step in &self.steps {
            let TraceStep { road, to, started, took, failure } = step;
            let (from, until) = (started.as_millis(), (*started + *took).as_millis());
            let outcome = failure.as_deref().unwrap_or("taken");
            write!(formatter, "\n  {road:<8} {from:>6} to {until:>6} ms  {to}: {outcome}")?;
        }
        if let Some(router) = &self.router {
            write!(formatter, "\n  router: {router}")?;
        }
        if let Some(dht) = &self.dht {
            write!(formatter, "\n  DHT: {dht}")?;
        }
        for advice in &self.advice {
            write!(formatter, "\n  advice: {advice}")?;
        }
        Ok(())
    }
}

/// What the attempts come to: the first condition that was not met, and what would meet it.
fn advice(attempts: &[Attempt], roads: Roads) -> Vec<String> {
    let mut advice = Vec::new();
    let introduction = attempts.iter().find_map(|attempt| match &*attempt.error {
        AttemptError::Introduction(error) => Some(error),
        _ => None,
    });
    if attempts.is_empty() && roads != Roads::ALL {
        advice.push("none of the allowed roads leads there, as far as is known: allow more".to_owned());
    } else if attempts.is_empty() {
        advice.push("nothing is known of where the peer is: ask it for its contact".to_owned());
    } else if attempts.iter().any(|attempt| attempt.refusal().is_some()) {
        advice.push(
            "the peer is there and turned us away: ask it to admit our key, or for a new contact".to_owned(),
        );
    } else if attempts.iter().all(is_closed) {
        advice.push("nothing listens there: is the peer up, and is its contact a fresh one?".to_owned());
    } else if attempts.iter().all(|one| matches!(&*one.error, AttemptError::Dial(_))) {
        advice.push(
            "only addresses were known: if the peer is behind a NAT, both sides need an introducer"
                .to_owned(),
        );
    }
    if attempts
        .iter()
        .any(|one| matches!(&*one.error, AttemptError::Rendezvous(_) | AttemptError::Meeting(_)))
    {
        advice.push(
            "both sides are up, but their NATs or firewalls let neither in: a relay would help".to_owned(),
        );
    }
    match introduction {
        Some(IntroductionError::UnknownPeer) => advice.push(
            "the introducer does not know the peer: is the peer up, and given the same introducer?"
                .to_owned(),
        ),
        Some(IntroductionError::Unreachable(_) | IntroductionError::Gone { .. }) => {
            advice.push("the introducer does not answer: is it up, and is its address right?".to_owned());
        }
        Some(IntroductionError::TimedOut) => {
            advice.push(
                "the peer is attached to the introducer and silent: its network may have just changed"
                    .to_owned(),
            );
        }
        _ => {}
    }
    advice
}

/// Whether a host has answered that nothing listens at that port.
fn is_closed(attempt: &Attempt) -> bool {
    matches!(&*attempt.error, AttemptError::Dial(DialError::Socket { source, .. })
        if source.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// An error and its sources, in one line, as logs and traces have it.
///
/// ```
/// use std::io::{Error, ErrorKind};
///
/// let error = crust::StartError::Thread(Error::from(ErrorKind::WouldBlock));
/// assert_eq!(crust::error_chain(&error), "the operating system gave no thread: operation would block");
/// ```
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        // An `io::Error` around one of ours says the same as what it holds.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}
