use std::{error::Error, fmt, net::SocketAddr, time::Duration};

use transport::{BindError, ConnectError as DialError, NamedEndpoint, PublicKey};

use crate::{IdentityFileError, Road};

/// Why a [`Service`](crate::Service) could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The key file cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityFileError),
    /// The operating system gave no poll or no thread.
    #[error(transparent)]
    Transport(#[from] transport::StartError),
    /// It cannot listen where it was told to.
    #[error(transparent)]
    Listen(#[from] BindError),
}

/// Why a peer could not be reached: every road that was tried, and what came of it.
///
/// As text it is one line; [`ConnectError::attempts`] tells all. Its source is the attempt that says most: a refusal
/// by the peer before a silence.
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
}

/// One road, and why it led nowhere.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// What kind of road it was.
    pub road: Road,
    /// What was dialled.
    pub endpoint: NamedEndpoint,
    /// The address, once known.
    pub addr: Option<SocketAddr>,
    /// From its start to its end.
    pub waited: Duration,
    /// Why it failed.
    pub error: Box<DialError>,
}

impl ConnectError {
    /// No road is known at all, or none that may be used.
    pub(crate) const fn nowhere(peer: PublicKey) -> Self {
        Self { peer, attempts: Vec::new() }
    }

    /// Takes a failed dial apart; `dialled` is its first endpoint, for errors that name none.
    pub(crate) fn of(error: DialError, dialled: &NamedEndpoint, waited: Duration) -> Self {
        let peer = dialled.public_key();
        let attempts = match error {
            DialError::AllFailed { attempts } => attempts
                .into_iter()
                .map(|one| Attempt {
                    road: Road::to(one.addr),
                    endpoint: one.endpoint,
                    addr: one.addr,
                    waited: one.waited,
                    error: one.error,
                })
                .collect(),
            error => {
                let endpoint = endpoint_of(&error).unwrap_or(dialled).clone();
                let addr = format!("{}:{}", endpoint.host(), endpoint.port()).parse().ok();
                vec![Attempt { road: Road::to(addr), endpoint, addr, waited, error: Box::new(error) }]
            }
        };
        Self { peer, attempts }
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

    /// The peer's own word, if it answered and turned us away.
    #[must_use]
    pub fn refusal(&self) -> Option<transport::Refusal> {
        self.attempts.iter().find_map(|attempt| match *attempt.error {
            DialError::Refused { reason, .. } => Some(reason),
            _ => None,
        })
    }

    fn telling(&self) -> Option<&Attempt> {
        self.attempts.iter().min_by_key(|attempt| match *attempt.error {
            DialError::Refused { .. } => 0,
            DialError::WrongPeer { .. } => 1,
            DialError::Handshake { .. } => 2,
            DialError::TimedOut { .. } => 4,
            _ => 3,
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
            0 => write!(formatter, "no road to {} is known, or none that may be used", self.peer),
            tried => write!(formatter, "no road to {} ({tried} tried)", self.peer),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.telling().map(|attempt| &*attempt.error as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use transport::{Identity, Refusal};

    use super::*;

    #[test]
    fn the_source_is_the_attempt_that_says_most() {
        let key = Identity::from_seed([1; 32]).public_key();
        let endpoint: NamedEndpoint = format!("tcp://127.0.0.1:5?pubkey={key}").parse().unwrap();
        let slow = DialError::TimedOut { endpoint: endpoint.clone(), waited: Duration::from_secs(1) };
        let error = ConnectError::of(slow, &endpoint, Duration::from_secs(1));
        assert_eq!(error.to_string(), format!("no road to {key} (1 tried)"));
        assert_eq!(error.attempts()[0].addr, Some("127.0.0.1:5".parse().unwrap()));
        assert_eq!(error.refusal(), None);
        let refused = DialError::Refused { endpoint: endpoint.clone(), reason: Refusal::Token };
        let mut both = error;
        both.attempts.extend(ConnectError::of(refused, &endpoint, Duration::ZERO).attempts);
        assert_eq!(both.refusal(), Some(Refusal::Token));
        assert!(both.source().unwrap().to_string().contains("token"));
    }
}
