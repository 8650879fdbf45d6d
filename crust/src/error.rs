use std::{error::Error, fmt, net::SocketAddr, time::Duration};

use transport::{BindError, ConnectError as DialError, NamedEndpoint, PublicKey, Refusal, RendezvousError};

use crate::{ConfigError, ConnectTrace, IdentityFileError, Road, io::introduce::IntroductionError};

/// Why a [`Service`](crate::Service) could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The user's configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityFileError),
    /// The operating system gave no poll or no thread.
    #[error(transparent)]
    Transport(#[from] transport::StartError),
    /// The secret of beacons cannot be used.
    #[error("the secret {path} of the local network cannot be used", path = path.display())]
    LanSecret {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot listen where it was told to.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// What it needs to learn its own addresses is not there.
    #[error(transparent)]
    Mapping(#[from] nat_traversal::ContextError),
    /// It listens at every address of this host, and is not told which of them its relay has.
    #[error("a relay has to know its public address: set relay_address, or listen at it")]
    RelayAddress,
    /// It cannot tell others their addresses, as an introducer does.
    #[error("cannot answer STUN, or relay")]
    Stun(#[from] nat_traversal::ServerError),
    /// No thread could be started.
    #[error("the operating system gave no thread")]
    Thread(#[source] std::io::Error),
}

/// Why a peer could not be reached: every road that was tried, and what came of it.
///
/// As text it is one line; [`ConnectError::attempts`] and [`ConnectError::trace`] tell all. Its source is the attempt that
/// says most: a refusal by the peer before a silence.
///
/// ```
/// use crust::{Config, Endpoint, Identity, Scheme, Service};
///
/// let client = Service::new_from_config(Config::new().listen([]))?;
/// let nobody = Identity::generate().public_key();
/// let endpoint = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse()?, nobody);
/// let error = client.controller.connect(endpoint).expect_err("nothing listens there");
/// for attempt in error.attempts() {
///     println!("{} to {}: {}", attempt.road, attempt.endpoint, attempt.error);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ConnectError {
    peer: PublicKey,
    attempts: Vec<Attempt>,
    trace: Box<ConnectTrace>,
    /// The peer is who dials.
    myself: bool,
    is_closed: bool,
}

/// One road, and why it led nowhere.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// What kind of road it was.
    pub road: Road,
    /// What was dialled: the peer, or who should have introduced us to it.
    pub endpoint: NamedEndpoint,
    /// The address, once known.
    pub addr: Option<SocketAddr>,
    /// When it began, counted from the call.
    pub started: Duration,
    /// From its start to its end.
    pub waited: Duration,
    /// Why it failed.
    pub error: Box<AttemptError>,
}

/// Why one road led nowhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// An address did not answer, or not as it should.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer was not introduced.
    #[error("not introduced")]
    Introduction(#[from] IntroductionError),
    /// The peer was introduced, and no meeting came about.
    #[error("introduced, but not met")]
    Rendezvous(#[from] RendezvousError),
    /// One way of a meeting came to nothing.
    #[error("introduced, but not met: {0}")]
    Meeting(String),
    /// It was not tried.
    #[error("not tried: {reason}")]
    Skipped {
        /// Why, for a person to read.
        reason: String,
    },
}

impl Attempt {
    /// Takes a failed dial apart; `dialled` is its first endpoint, for errors that name none.
    pub(crate) fn of_dial(
        error: DialError,
        dialled: &NamedEndpoint,
        started: Duration,
        waited: Duration,
    ) -> Vec<Self> {
        if let DialError::AllFailed { attempts } = error {
            let attempts = attempts.into_iter().map(|one| Self {
                road: Road::to(one.addr),
                endpoint: one.endpoint,
                addr: one.addr,
                started,
                waited: one.waited,
                error: Box::new(AttemptError::Dial(*one.error)),
            });
            return attempts.collect();
        }
        let endpoint = endpoint_of(&error).unwrap_or(dialled).clone();
        let addr = format!("{}:{}", endpoint.host(), endpoint.port()).parse().ok();
        vec![Self { road: Road::to(addr), endpoint, addr, started, waited, error: Box::new(error.into()) }]
    }

    /// The peer's own word, if it answered and turned us away.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match *self.error {
            AttemptError::Dial(DialError::Refused { reason, .. })
            | AttemptError::Introduction(IntroductionError::Refused(reason))
            | AttemptError::Rendezvous(RendezvousError::Refused { reason, .. }) => Some(reason),
            _ => None,
        }
    }

    /// What was dialled, without the key.
    pub(crate) fn to(&self) -> String {
        let scheme = self.endpoint.scheme();
        match self.addr {
            Some(addr) => format!("{scheme}://{addr}"),
            None => format!("{scheme}://{}:{}", self.endpoint.host(), self.endpoint.port()),
        }
    }
}

impl ConnectError {
    pub(crate) fn new(peer: PublicKey, attempts: Vec<Attempt>, trace: ConnectTrace) -> Self {
        Self { peer, attempts, trace: Box::new(trace), myself: false, is_closed: false }
    }

    /// Nobody has to be asked whether that is ourselves.
    pub(crate) fn myself(key: PublicKey) -> Self {
        let mut trace = ConnectTrace::new(key);
        trace.advise("that is this peer's own key: one of the two needs another");
        Self { myself: true, ..Self::new(key, Vec::new(), trace) }
    }

    /// The service was shut down meanwhile.
    pub(crate) fn closed(self, is_closed: bool) -> Self {
        Self { is_closed, ..self }
    }

    /// Whom it was about.
    #[must_use]
    pub const fn peer(&self) -> PublicKey {
        self.peer
    }

    /// What was tried, in order. Empty when there was nothing to try.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The same with times and advice, as text that a person understands.
    #[must_use]
    pub fn trace(&self) -> &ConnectTrace {
        &self.trace
    }

    /// The peer's own word, if it answered and turned us away.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        if self.myself { Some(Refusal::Myself) } else { self.attempts.iter().find_map(Attempt::refusal) }
    }

    fn telling(&self) -> Option<&Attempt> {
        self.attempts.iter().min_by_key(|attempt| match &*attempt.error {
            _ if attempt.refusal().is_some() => 0,
            AttemptError::Dial(DialError::WrongPeer { .. }) => 1,
            AttemptError::Dial(DialError::Handshake { .. }) => 2,
            AttemptError::Dial(DialError::TimedOut { .. }) => 5,
            AttemptError::Introduction(IntroductionError::Interrupted) | AttemptError::Skipped { .. } => 6,
            AttemptError::Introduction(_) => 3,
            AttemptError::Dial(_) | AttemptError::Rendezvous(_) | AttemptError::Meeting(_) => 4,
        })
    }
}

fn endpoint_of(error: &DialError) -> Option<&NamedEndpoint> {
    match error {
        DialError::Resolve { endpoint, .. }
        | DialError::TimedOut { endpoint, .. }
        | DialError::WrongPeer { endpoint }
        | DialError::Refused { endpoint, .. }
        | DialError::Socket { endpoint, .. }
        | DialError::Handshake { endpoint, .. } => Some(endpoint),
        _ => None,
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempts.len() {
            _ if self.myself => write!(formatter, "{} is this peer's own key", self.peer),
            _ if self.is_closed => {
                write!(formatter, "the call to {} ended as this service is shut down", self.peer)
            }
            0 => write!(formatter, "no road to {} is known, or none that may be used", self.peer),
            tried => write!(formatter, "no road to {} ({tried} tried)", self.peer),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.telling().filter(|_| !self.is_closed).map(|attempt| &*attempt.error as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use transport::Identity;

    use super::*;

    #[test]
    fn the_source_is_the_attempt_that_says_most() {
        let key = Identity::from_seed([1; 32]).public_key();
        let endpoint: NamedEndpoint = format!("tcp://127.0.0.1:5?pubkey={key}").parse().unwrap();
        let attempts = |error| Attempt::of_dial(error, &endpoint, Duration::ZERO, Duration::from_secs(1));
        let error = |attempts| ConnectError::new(key, attempts, ConnectTrace::new(key));
        let slow = DialError::TimedOut { endpoint: endpoint.clone(), waited: Duration::from_secs(1) };
        let mut one = error(attempts(slow));
        assert_eq!(one.to_string(), format!("no road to {key} (1 tried)"));
        assert_eq!(one.attempts()[0].addr, Some("127.0.0.1:5".parse().unwrap()));
        assert_eq!(one.refusal(), None);
        let refused = DialError::Refused { endpoint: endpoint.clone(), reason: Refusal::Token };
        one.attempts.extend(attempts(refused));
        assert_eq!(one.refusal(), Some(Refusal::Token));
        assert!(one.source().unwrap().to_string().contains("token"));
    }
}
