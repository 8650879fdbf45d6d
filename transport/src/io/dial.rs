//! One attempt to reach one address, of either scheme, and where its outcome goes.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use mio::Token;

use super::{
    clock,
    handshake::TcpHandshake,
    lock::Lock as _,
    quic::QuicDial,
    slot::{Slot, Wakes},
    udp::UdpSocket,
};
use crate::{
    Scheme, Stream,
    admission::Refusal,
    identity::PublicKey,
    protocol::{
        handshake::HandshakeError,
        preface::{Preface, Purpose},
        rounds::Round,
    },
    transport::Shared,
};

/// What to dial, and for which of the caller's attempts.
#[derive(Debug, Clone)]
pub(crate) struct DialOrder {
    pub(crate) attempt: usize,
    pub(crate) scheme: Scheme,
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    /// The UDP socket to dial from; else one for dialling.
    pub(crate) via: Option<Arc<UdpSocket>>,
    pub(crate) expected: PublicKey,
    pub(crate) preface: Preface,
    /// The way was opened by a hole punch.
    pub(crate) punched: bool,
    /// Hand the stream out before the verdict.
    pub(crate) early: bool,
    /// Share no connection with other dials; on QUIC.
    pub(crate) own_connection: bool,
    /// Only over a connection that the peer dialled, if there is one.
    pub(crate) over_guest: bool,
    /// The caller has nothing else to do: it may go on with the handshake itself. On TCP.
    pub(crate) directly: bool,
    pub(crate) round: Round,
    pub(crate) outcomes: Arc<Outcomes>,
}

impl DialOrder {
    /// Reports how the attempt ended. A stream that nobody waits for any more ends by being dropped.
    pub(crate) fn finish(&self, outcome: Result<Stream, DialError>, wakes: &mut Wakes) {
        self.outcomes.ended.hold().push((self.attempt, outcome));
        wakes.push(&self.outcomes.slot);
    }

    /// Whether the preface may be sent now: a rendezvous asks on one connection only.
    pub(crate) fn may_ask(&self, shared: &Shared) -> bool {
        match self.preface.purpose {
            Purpose::Direct => true,
            Purpose::Rendezvous(tag) => shared.meetings.hold().may_ask(clock::now(), tag, self.attempt),
        }
    }

    /// The same once more. In the last round it goes on a connection of which nobody else knows yet.
    pub(crate) fn once_more(mut self, round: Round) -> Self {
        self.round = round;
        self.preface.stays |= round == Round::Last;
        self
    }

    /// Whether its stream may come about on another connection than it was begun on.
    pub(crate) fn may_move(&self) -> bool {
        !self.preface.stays
    }

    /// Whether it has to ask before it sends the preface.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.preface.purpose, Purpose::Rendezvous(_))
    }

    /// Begins the attempt, which ends when the returned value is dropped.
    pub(crate) fn begin(self, shared: &Arc<Shared>) -> io::Result<Dial> {
        Ok(match self.scheme {
            Scheme::Tcp => {
                let token = TcpHandshake::dial(shared, self)?;
                token.map_or(Dial::Over, |token| Dial::Tcp(TcpDial::new(shared, token)))
            }
            Scheme::Quic => {
                let dial = shared.quic.dial(shared, self)?;
                Dial::Quic(dial)
            }
        })
    }
}

/// What became of the attempts of one call of connect.
#[derive(Debug)]
pub(crate) struct Outcomes {
    slot: Arc<Slot>,
    ended: Mutex<Vec<(usize, Result<Stream, DialError>)>>,
}

impl Outcomes {
    pub(crate) fn new(slot: Arc<Slot>) -> Arc<Self> {
        Arc::new(Self { slot, ended: Mutex::default() })
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub(crate) fn take(&self) -> Vec<(usize, Result<Stream, DialError>)> {
        std::mem::take(&mut self.ended.hold())
    }
}

/// An attempt in progress; dropping it gives it up.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(crate) enum Dial {
    /// Its outcome is there.
    Over,
    Tcp(TcpDial),
    Quic(QuicDial),
}

impl Dial {
    /// Whether anything has come back.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::Quic(dial) => dial.is_answered(),
            Self::Over | Self::Tcp(_) => true,
        }
    }
}

#[derive(Debug)]
pub(crate) struct TcpDial {
    shared: Arc<Shared>,
    token: Token,
}

impl TcpDial {
    pub(crate) fn new(shared: &Arc<Shared>, token: Token) -> Self {
        Self { shared: shared.clone(), token }
    }
}

impl Drop for TcpDial {
    fn drop(&mut self) {
        // After success or failure the token finds nothing.
        let source = self.shared.sources.hold().remove(self.token);
        drop(source);
    }
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the socket failed: {0}")]
    Socket(#[source] io::Error),
    #[error("another key was shown")]
    WrongPeer,
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("refused by us")]
    RefusedByUs,
    #[error("another way was chosen")]
    NotChosen,
    #[error("too slow")]
    TimedOut,
    #[error("{0}")]
    Handshake(String),
}

impl From<HandshakeError> for DialError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::WrongPeer => Self::WrongPeer,
            other => Self::Handshake(other.to_string()),
        }
    }
}
