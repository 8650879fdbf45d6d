use std::{io, net::SocketAddr, time::Duration};

use crate::{
    admission::Refusal,
    endpoint::{ListenEndpoint, NamedEndpoint, ParseEndpointError},
};

/// Why a [`Transport`](crate::Transport) could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The operating system gave no poll, no waker or no thread.
    #[error("the operating system refused what a transport needs")]
    System(#[from] io::Error),
}

/// Why a [`Listener`](crate::Listener) could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// There was nothing to bind.
    #[error("no place to listen was given")]
    NoEndpoint,
    /// The text is no listen endpoint.
    #[error("cannot read where to listen")]
    Parse(#[from] ParseEndpointError),
    /// The address is in use or not ours, or the operating system refused otherwise.
    #[error("cannot listen on {endpoint}")]
    Socket {
        /// The place.
        endpoint: ListenEndpoint,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The transport is shut down.
    #[error("the transport is closed")]
    Closed,
}

/// Why [`Transport::turn`](crate::Transport::turn) did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TurnError {
    /// The deadline passed and nothing had happened.
    #[error("nothing happened before the deadline")]
    TimedOut,
    /// The transport is closed.
    #[error("the transport is closed")]
    Closed,
}

/// Why `accept` returned without a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The deadline passed; the listener goes on.
    #[error("no stream came in before the deadline")]
    TimedOut,
    /// The listener or its transport is closed.
    #[error("the listener is closed")]
    Closed,
}

/// Why a dial gave no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There was nothing to dial.
    #[error("no endpoint was given")]
    NoEndpoint,
    /// The text is no endpoint.
    #[error("cannot read the endpoint")]
    Parse(#[from] ParseEndpointError),
    /// The name has no address, or no name server answered in time.
    #[error("cannot resolve {endpoint}")]
    Resolve {
        /// Whose host it is.
        endpoint: NamedEndpoint,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nothing answered in time; trying again later may work.
    #[error("no answer from {endpoint} within {waited:.1?}")]
    TimedOut {
        /// Who was dialled.
        endpoint: NamedEndpoint,
        /// How long it took.
        waited: Duration,
    },
    /// Someone answered with another key; do not retry.
    #[error("{endpoint} showed a different key")]
    WrongPeer {
        /// Who was dialled.
        endpoint: NamedEndpoint,
    },
    /// The peer is there and said no.
    #[error("{endpoint} refused: {reason}")]
    Refused {
        /// Who was dialled.
        endpoint: NamedEndpoint,
        /// Why.
        reason: Refusal,
    },
    /// The operating system or the network refused: unreachable, no listener there, out of sockets.
    #[error("cannot reach {endpoint}")]
    Socket {
        /// Who was dialled.
        endpoint: NamedEndpoint,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// What answered does not speak our protocol, or broke off.
    #[error("the handshake with {endpoint} failed: {reason}")]
    Handshake {
        /// Who was dialled.
        endpoint: NamedEndpoint,
        /// What went wrong, for a person to read.
        reason: String,
    },
    /// Every address failed, each for a reason of its own.
    #[error("no way to {} ({} tried, first: {})", .attempts[0].endpoint, .attempts.len(), .attempts[0].error)]
    AllFailed {
        /// What was tried, in order; at least two.
        attempts: Vec<ConnectAttempt>,
    },
    /// Another thread ended the dial by its [`Interrupter`](crate::Interrupter).
    #[error("the dial was interrupted")]
    Interrupted,
    /// The transport is shut down.
    #[error("the transport is closed")]
    Closed,
}

/// One address of a dial, and why it failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectAttempt {
    /// What was dialled.
    pub endpoint: NamedEndpoint,
    /// The address, once known.
    pub addr: Option<SocketAddr>,
    /// From its start to its end.
    pub waited: Duration,
    /// Why it failed.
    pub error: Box<ConnectError>,
}

/// What ended a call on a stream, or the stream itself.
///
/// Reads and writes return it as the source of an [`io::Error`] whose kind is the nearest; get it back by
/// [`StreamError::of`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The deadline of the call passed; the stream is usable.
    #[error("nothing happened before the deadline")]
    TimedOut,
    /// The stream is non-blocking and would have to wait.
    #[error("the call would have to wait")]
    WouldBlock,
    /// Another thread sits in a call on this stream, which therefore cannot change its mode.
    #[error("another thread is using this stream")]
    Busy,
    /// This side closed the stream, or shut down that direction, or dropped its transport.
    #[error("the stream is closed on this side")]
    Closed,
    /// The peer was silent for longer than `TransportConfig::dead_after`.
    #[error("the peer was lost: silent for {silent_for:.1?}")]
    PeerLost {
        /// For how long nothing came from it.
        silent_for: Duration,
    },
    /// This host has come into another network, where the stream's address is not its own any more; TCP cannot go on
    /// elsewhere. Connect anew.
    #[error("the stream's address {local} is gone with the network it belonged to, connect anew")]
    AddressGone {
        /// Our end.
        local: SocketAddr,
    },
    /// The peer turned an early stream away.
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    /// The peer threw the stream away by `reset`.
    #[error("the peer reset the stream with code {code}")]
    Reset {
        /// The number it gave.
        code: u32,
    },
    /// The connection ended without the peer having ended the stream: bytes may be missing.
    #[error("the connection ended without an end of the stream: bytes may be missing")]
    UnexpectedEof,
    /// The peer broke the protocol, or its packets were tampered with.
    #[error("the peer broke the protocol: {reason}")]
    Protocol {
        /// What it did, for a person to read.
        reason: String,
    },
    /// The operating system ended it.
    #[error("the operating system ended the connection: {kind}")]
    Io {
        /// Its kind of error.
        kind: io::ErrorKind,
    },
}

/// Why [`Stream::export_keying_material`](crate::Stream::export_keying_material) gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// RFC 8446 §7.1 writes both lengths into small fields.
    #[error("1 to 8,160 bytes can be exported, under a label of at most 249 bytes")]
    Size,
    /// The transport uses labels of this kind.
    #[error("labels that begin with EXPORTER-crust- are the transport's own: choose another")]
    Reserved,
    /// The connection is over.
    #[error("the connection is over")]
    Closed,
}

impl StreamError {
    /// Ours, if `error` came from a stream of this crate.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::TimedOut => io::ErrorKind::TimedOut,
            Self::WouldBlock => io::ErrorKind::WouldBlock,
            Self::Busy => io::ErrorKind::ResourceBusy,
            Self::Closed => io::ErrorKind::NotConnected,
            Self::PeerLost { .. } | Self::AddressGone { .. } => io::ErrorKind::ConnectionAborted,
            Self::Refused(_) => io::ErrorKind::ConnectionRefused,
            Self::Reset { .. } => io::ErrorKind::ConnectionReset,
            Self::UnexpectedEof => io::ErrorKind::UnexpectedEof,
            Self::Protocol { .. } => io::ErrorKind::InvalidData,
            Self::Io { kind } => *kind,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        Self::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_gives_the_stream_error_back() {
        let error: io::Error = StreamError::Reset { code: 7 }.into();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(StreamError::of(&error), Some(&StreamError::Reset { code: 7 }));
        assert_eq!(StreamError::of(&io::Error::from(io::ErrorKind::NotFound)), None);
    }
}
