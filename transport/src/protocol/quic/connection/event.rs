use std::{io::ErrorKind, time::Duration};

use quinn_proto::StreamId;

use crate::{
    PublicKey, StreamError,
    protocol::{preface::Preface, quic::QuicEcn, verdict::Verdict},
};

/// What happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum QuicEvent {
    /// The handshake is over and the peer is who it should be.
    Connected {
        peer: PublicKey,
    },
    /// The stream of that ticket is open, its preface under way.
    Opened {
        ticket: u64,
        stream: StreamId,
    },
    /// A peer opened a stream: judge it and call [`super::QuicConnection::answer`].
    Preface {
        stream: StreamId,
        preface: Box<Preface>,
    },
    /// The peer has judged a stream of ours.
    Verdict {
        stream: StreamId,
        verdict: Verdict,
    },
    Readable(StreamId),
    Writable(StreamId),
    /// All bytes of a finished stream have arrived, or never will.
    Acknowledged(StreamId),
    /// The reader keeps up: the window could be larger by so much.
    WindowWanted(u64),
    /// Nothing more will happen; every stream's calls fail with this.
    Ended(ConnectionEnd),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// We closed it.
    Closed,
    /// The peer closed it in good order.
    ClosedByPeer,
    /// The peer showed another key than it should have.
    WrongPeer,
    /// Nothing came from the peer for so long.
    Silent(Duration),
    /// The network says that our datagrams do not arrive.
    Unreachable(ErrorKind),
    /// What came is no QUIC, or no TLS, or not ours.
    Broken(String),
}

impl ConnectionEnd {
    /// What calls on its streams report.
    pub(crate) fn stream_error(&self) -> StreamError {
        match self {
            Self::Closed => StreamError::Closed,
            Self::ClosedByPeer => StreamError::UnexpectedEof,
            Self::WrongPeer => StreamError::Protocol { reason: "another key than expected".to_owned() },
            Self::Silent(silent_for) => StreamError::PeerLost { silent_for: *silent_for },
            Self::Unreachable(kind) => StreamError::Io { kind: *kind },
            Self::Broken(reason) => StreamError::Protocol { reason: reason.clone() },
        }
    }
}

/// Datagrams to send, all of one size but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) bytes: usize,
    pub(crate) segment_bytes: Option<usize>,
    pub(crate) ecn: Option<QuicEcn>,
}

/// What is known of a connection's path, for people.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConnectionFigures {
    pub(crate) round_trip: Duration,
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
}
