//! From a fresh TCP connection to a stream: TLS 1.3, the dialer's preface with its last flight, the acceptor's verdict.
//!
//! ```text
//!  dialer                                        acceptor
//!    ClientHello ────────────────────────────────►
//!    ◄──────────── ServerHello … key, proof, Finished
//!    key as expected? else WrongPeer
//!  (held: Ready, then ask())
//!    key, proof, Finished, preface ──────────────►   Preface: judged by the owner, then answer()
//!  Finished: may write at once (early)
//!    ◄──────────────────────────────────── verdict
//!  Verdict
//! ```
//!
//! After every call drain `poll_transmit`, also after an error: it may hold the alert that tells the peer why.

use std::{collections::VecDeque, fmt, sync::Arc};

use rustls::{ClientConfig, ServerConfig};

use super::{
    preface::{self, Preface, PrefaceError},
    raw_key,
    tls::{MAX_RECORD_BYTES, Progress, TlsCore, TlsError},
    verdict::{Verdict, VerdictError},
};
use crate::{PublicKey, Refusal};

/// One end of a handshake.
pub(crate) struct Handshake {
    core: TlsCore,
    stage: Stage,
    /// Received and not yet decrypted; bounded by [`MAX_INCOMING_BYTES`].
    incoming: Vec<u8>,
    /// Decrypted and not yet understood.
    plaintext: Vec<u8>,
    outgoing: Vec<u8>,
    events: VecDeque<HandshakeEvent>,
}

/// What is awaited next.
///
/// ```text
///  dialer:    Keys ──(──► Ready)──► Verdict ──► Over
///  acceptor:  Keys ──► Preface ──► Answer ──► Over
/// ```
enum Stage {
    Keys(Role),
    Ready { peer: PublicKey, preface: Preface },
    Verdict { peer: PublicKey },
    Preface { peer: PublicKey },
    Answer { peer: PublicKey },
    Over { peer: PublicKey },
}

enum Role {
    Dialer { expected: PublicKey, preface: Preface, held: bool },
    Acceptor,
}

/// What has happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HandshakeEvent {
    /// The dialer's, if the preface is held: the peer is who it should be, and [`Handshake::ask`] sends the preface.
    Ready,
    /// The dialer's: the peer is who it should be, the preface is on its way.
    Finished,
    /// The dialer's: the answer to its preface.
    Verdict(Verdict),
    /// The acceptor's: to be judged and answered.
    Preface { peer: PublicKey, preface: Preface },
    /// The acceptor's: to be answered with this refusal.
    BadPreface(Refusal),
}

/// What a handshake leaves to the stream.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) core: TlsCore,
    pub(crate) peer: PublicKey,
    /// Received and not yet decrypted.
    pub(crate) incoming: Vec<u8>,
    /// Decrypted; in an early stream it begins with the verdict or a part of it.
    pub(crate) plaintext: Vec<u8>,
}

impl Handshake {
    pub(crate) fn dial(
        config: Arc<ClientConfig>,
        expected: PublicKey,
        preface: Preface,
        held: bool,
    ) -> Result<Self, HandshakeError> {
        let core = TlsCore::dial(config, &expected)?;
        let mut handshake = Self::new(core, Stage::Keys(Role::Dialer { expected, preface, held }));
        handshake.advance()?;
        Ok(handshake)
    }

    pub(crate) fn accept(config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        Ok(Self::new(TlsCore::accept(config)?, Stage::Keys(Role::Acceptor)))
    }

    fn new(core: TlsCore, stage: Stage) -> Self {
        Self {
            core,
            stage,
            incoming: Vec::new(),
            plaintext: Vec::new(),
            outgoing: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes in what the peer sent.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        if self.incoming.len() + bytes.len() > MAX_INCOMING_BYTES {
            return Err(HandshakeError::TooMuch);
        }
        self.incoming.extend_from_slice(bytes);
        self.advance()
    }

    /// Says why the peer's end of the connection, at this point, is an error.
    pub(crate) fn handle_end(&mut self) -> HandshakeError {
        HandshakeError::Ended {
            before: match self.stage {
                Stage::Keys(_) | Stage::Ready { .. } => "keys were exchanged",
                Stage::Preface { .. } => "saying what it wanted",
                Stage::Verdict { .. } => "answering what we asked for",
                Stage::Answer { .. } | Stage::Over { .. } => "the stream began",
            },
        }
    }

    fn advance(&mut self) -> Result<(), HandshakeError> {
        let result = self.try_advance();
        self.outgoing.append(&mut self.core.take_replies());
        result
    }

    fn try_advance(&mut self) -> Result<(), HandshakeError> {
        // What comes after preface and verdict belongs to the stream, which decrypts it into its reader's buffer.
        while let Stage::Keys(_) | Stage::Verdict { .. } | Stage::Preface { .. } = self.stage {
            let plaintext = &mut self.plaintext;
            let step =
                self.core.decrypt(&mut self.incoming, &mut |bytes| plaintext.extend_from_slice(bytes))?;
            self.incoming.drain(..step.used);
            self.finish_keys()?;
            self.read_plaintext()?;
            match step.progress {
                Progress::Record => {}
                Progress::Ended => return Err(self.handle_end()),
                Progress::Starved => break,
            }
        }
        Ok(())
    }

    /// Once TLS is done: checks what was agreed on, and sends the preface.
    fn finish_keys(&mut self) -> Result<(), HandshakeError> {
        let Stage::Keys(role) = &self.stage else { return Ok(()) };
        if self.core.is_handshaking() {
            return Ok(());
        }
        if self.core.alpn() != Some(raw_key::ALPN) {
            return Err(HandshakeError::OtherProtocol);
        }
        let peer = self.core.peer_key().ok_or(HandshakeError::NoKey)?;
        self.stage = match role {
            Role::Acceptor => Stage::Preface { peer },
            Role::Dialer { expected, .. } if *expected != peer => return Err(HandshakeError::WrongPeer),
            Role::Dialer { preface, held, .. } => {
                let (preface, held) = (preface.clone(), *held);
                self.stage = Stage::Ready { peer, preface };
                if held {
                    self.events.push_back(HandshakeEvent::Ready);
                    return Ok(());
                }
                return self.ask();
            }
        };
        Ok(())
    }

    /// Sends the preface that was held.
    pub(crate) fn ask(&mut self) -> Result<(), HandshakeError> {
        let Stage::Ready { peer, preface } = &self.stage else { return Ok(()) };
        let (peer, preface) = (*peer, preface.encode());
        self.send(&preface)?;
        self.events.push_back(HandshakeEvent::Finished);
        self.stage = Stage::Verdict { peer };
        Ok(())
    }

    fn read_plaintext(&mut self) -> Result<(), HandshakeError> {
        match self.stage {
            Stage::Verdict { peer } => {
                let Some((verdict, used)) = Verdict::decode(&self.plaintext)? else { return Ok(()) };
                self.plaintext.drain(..used);
                self.stage = Stage::Over { peer };
                self.events.push_back(HandshakeEvent::Verdict(verdict));
            }
            Stage::Preface { peer } => {
                let event = match Preface::decode(&self.plaintext) {
                    Ok(None) => return Ok(()),
                    Ok(Some((preface, used))) => {
                        self.plaintext.drain(..used);
                        HandshakeEvent::Preface { peer, preface }
                    }
                    Err(PrefaceError::Version { theirs }) => {
                        HandshakeEvent::BadPreface(Refusal::Version { theirs, ours: preface::VERSION })
                    }
                    Err(error) => {
                        tracing::debug!(%peer, %error, "a preface could not be read");
                        HandshakeEvent::BadPreface(Refusal::Malformed)
                    }
                };
                self.stage = Stage::Answer { peer };
                self.events.push_back(event);
            }
            _ => {}
        }
        Ok(())
    }

    /// The acceptor's answer to the preface.
    pub(crate) fn answer(&mut self, verdict: Verdict) {
        let Stage::Answer { peer } = self.stage else { return };
        self.stage = Stage::Over { peer };
        let sent = self.send(&verdict.encode()).and_then(|()| match verdict {
            Verdict::Accepted => Ok(()),
            Verdict::Refused(_) => self.send_end(),
        });
        if let Err(error) = sent {
            tracing::debug!(%peer, %error, "a verdict could not be sent");
        }
    }

    fn send(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        self.outgoing.append(&mut self.core.take_replies());
        let mut record = [0; MAX_OWN_RECORD_BYTES];
        let length = self.core.encrypt(data, &mut record)?;
        self.outgoing.extend_from_slice(&record[..length]);
        Ok(())
    }

    fn send_end(&mut self) -> Result<(), HandshakeError> {
        let mut record = [0; MAX_OWN_RECORD_BYTES];
        let length = self.core.end(&mut record)?;
        self.outgoing.extend_from_slice(&record[..length]);
        Ok(())
    }

    /// The next bytes for the peer.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.outgoing.is_empty()).then(|| std::mem::take(&mut self.outgoing))
    }

    /// What has happened.
    pub(crate) fn poll_event(&mut self) -> Option<HandshakeEvent> {
        self.events.pop_front()
    }

    /// Ends the handshake's part. The dialer may call it after `Finished`, the acceptor after its answer.
    ///
    /// # Panics
    ///
    /// Before that.
    pub(crate) fn into_established(mut self) -> Established {
        let peer = match self.stage {
            Stage::Keys(_) | Stage::Ready { .. } => panic!("a stream begins after the exchange of keys"),
            Stage::Verdict { peer }
            | Stage::Preface { peer }
            | Stage::Answer { peer }
            | Stage::Over { peer } => peer,
        };
        // Most streams begin with nothing in these, and shall then hold nothing.
        self.incoming.shrink_to_fit();
        self.plaintext.shrink_to_fit();
        Established { core: self.core, peer, incoming: self.incoming, plaintext: self.plaintext }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handshake").field("core", &self.core).finish_non_exhaustive()
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the peer showed another key")]
    WrongPeer,
    #[error("the peer showed no key")]
    NoKey,
    #[error("the peer does not speak our protocol")]
    OtherProtocol,
    #[error("the connection ended before {before}")]
    Ended { before: &'static str },
    #[error("the peer sent too much before the stream began")]
    TooMuch,
    #[error("{0}")]
    Tls(TlsError),
    #[error("the verdict cannot be read: {0}")]
    Verdict(#[from] VerdictError),
}

impl From<TlsError> for HandshakeError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Tls(error) if raw_key::is_wrong_key(&error) => Self::WrongPeer,
            error => Self::Tls(error),
        }
    }
}

/// Whatever a peer sends before its stream begins, we hold no more of it: two full records and what one read brings.
const MAX_INCOMING_BYTES: usize = 2 * MAX_RECORD_BYTES + (32 << 10);
/// Preface and verdict have at most 515 bytes, which one record carries.
const MAX_OWN_RECORD_BYTES: usize = 1 << 10;

#[cfg(test)]
mod tests;
