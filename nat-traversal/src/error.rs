use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::protocol::Obstacle;
#[cfg(feature = "turn")]
use crate::protocol::turn::{TurnFailure, TurnSendError};

/// Why a [`MappingContext`](crate::MappingContext) could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The system does not tell its network interfaces.
    #[error("cannot list the network interfaces")]
    Interfaces(#[source] io::Error),
}

/// Why the addresses of a socket could not be learned. That single servers fail is no error: see `failures` of
/// [`MappedUdpSocket`](crate::MappedUdpSocket).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MapError {
    /// No socket could be bound.
    #[error("cannot bind a socket to {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The system failed.
    #[error("cannot use the socket")]
    Socket(#[source] io::Error),
    /// Someone called [`Interrupter::interrupt`](crate::Interrupter::interrupt).
    #[error("interrupted")]
    Interrupted,
}

/// Why a [`HolePunchServer`](crate::HolePunchServer) could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be served at.
    #[error("cannot serve at {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The system gives no thread or no poll.
    #[error("cannot start serving")]
    Start(#[source] io::Error),
    /// Its own addresses could not be learned.
    #[error("cannot learn the server's addresses")]
    Map(#[source] MapError),
}

/// Why a relay serves no more, or not at all.
#[cfg(feature = "turn")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The server's name could not be looked up.
    #[error("cannot look up {host}")]
    Resolve {
        /// The name.
        host: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The system gives no socket or no thread, or the file with the server's authority cannot be read.
    #[error("cannot begin to use {server}")]
    Start {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection to the server failed or ended: nobody listens, its certificate is not the right one, it stopped.
    #[error("no connection to {server}")]
    Connection {
        /// The server.
        server: String,
        /// What the system or TLS says.
        #[source]
        source: std::sync::Arc<io::Error>,
    },
    /// The server does not relay for us, or no more.
    #[error("no relay at {server}")]
    Server {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: TurnFailure,
    },
    /// A packet cannot go to this peer; others can go on.
    #[error("cannot send to {peer} by the relay")]
    Send {
        /// The peer.
        peer: SocketAddr,
        /// Why.
        #[source]
        source: TurnSendError,
    },
    /// The deadline passed.
    #[error("nothing within {} ms", waited.as_millis())]
    TimedOut {
        /// How long it took.
        waited: Duration,
    },
    /// Someone called [`Interrupter::interrupt`](crate::Interrupter::interrupt).
    #[error("interrupted")]
    Interrupted,
}

/// Why no hole was punched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PunchError {
    /// The peer's information is our own, or was made to break the agreement on a key.
    #[error("the peer's information is our own or was tampered with")]
    Info,
    /// The two NATs cannot be brought together; waiting does not help.
    #[error("no direct connection is possible")]
    Hopeless(#[source] Obstacle),
    /// The deadline passed.
    #[error("no hole after {} ms", waited.as_millis())]
    TimedOut {
        /// How long it took.
        waited: Duration,
        /// What stood in the way.
        #[source]
        obstacle: Obstacle,
    },
    /// Someone called [`Interrupter::interrupt`](crate::Interrupter::interrupt).
    #[error("interrupted")]
    Interrupted,
    /// The system failed.
    #[error("cannot use the socket")]
    Socket(#[source] io::Error),
}
