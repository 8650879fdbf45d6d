//! The dialer's side of an introduction, on the caller's thread or one that the call started.

use std::{
    io::{Read as _, Write as _},
    sync::Mutex,
    time::Instant,
};

use transport::{
    AccessToken, ConnectError as DialError, ConnectOptions, Interrupter, ProtocolLabel, PublicKey, Refusal,
    Stream, StreamError,
};

use super::{clock, entropy, lock::Lock as _};
use crate::{
    Introducer,
    gate::refusal_of,
    protocol::{
        introducer::{
            DIALLED,
            frame::{EndReason, Frame, FrameError, Frames},
        },
        introduction::{Flaw, Knocking, Particulars, Session},
    },
    shared::{INTRODUCE, Shared},
};

/// Whom to be introduced to, and how long it may take.
#[derive(Debug)]
pub(crate) struct Request<'c> {
    pub(crate) shared: &'c Shared,
    pub(crate) peer: PublicKey,
    pub(crate) token: Option<&'c AccessToken>,
    pub(crate) label: &'c ProtocolLabel,
    pub(crate) deadline: Instant,
    pub(crate) interrupt: &'c Interrupt,
}

/// Why a peer was not introduced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntroductionError {
    /// The introducer cannot be reached.
    #[error("the introducer cannot be reached")]
    Unreachable(#[from] Box<DialError>),
    /// Its stream ended.
    #[error("the introducer is gone: {reason}")]
    Gone {
        /// What happened, for a person to read.
        reason: String,
    },
    /// The peer is not attached to it: it is not up, it does not know this introducer, or it just lost it.
    #[error("the peer is not attached to this introducer")]
    UnknownPeer,
    /// The introducer or the peer carries no more calls now.
    #[error("the introducer carries no more calls now, try again later")]
    Busy,
    /// The peer did not answer.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The peer did not want.
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    /// What came in the peer's name was not made by it, or cannot be read.
    #[error("the answer is not the peer's: {reason}")]
    Answer {
        /// What is wrong with it.
        reason: String,
    },
    /// Another road was quicker.
    #[error("another road was quicker")]
    Interrupted,
}

/// Ends what a call has under way when one of its roads has won.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    dials: Interrupter,
    streams: Mutex<Vec<Stream>>,
    parts: Mutex<Vec<Interrupter>>,
    /// Whether the peer has answered by one introducer; meeting it by another as well would give two streams.
    answered: Mutex<bool>,
}

impl Interrupt {
    pub(crate) const fn dials(&self) -> &Interrupter {
        &self.dials
    }

    /// One for a part of the call, which may end before the rest.
    pub(crate) fn part(&self) -> Interrupter {
        let part = Interrupter::default();
        self.parts.hold().push(part.clone());
        if self.dials.is_interrupted() {
            part.interrupt();
        }
        part
    }

    /// Tells whether the caller is the first who has an answer.
    pub(crate) fn claim(&self) -> bool {
        !std::mem::replace(&mut *self.answered.hold(), true)
    }

    pub(crate) fn interrupt(&self) {
        self.dials.interrupt();
        for part in self.parts.hold().drain(..) {
            part.interrupt();
        }
        for stream in self.streams.hold().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Has a stream shut down by an interruption.
    fn watch(&self, stream: &Stream) -> Result<(), IntroductionError> {
        if let Ok(clone) = stream.try_clone() {
            self.streams.hold().push(clone);
        }
        if self.dials.is_interrupted() { Err(IntroductionError::Interrupted) } else { Ok(()) }
    }
}

/// A call to a peer through an introducer, answered.
#[derive(Debug)]
pub(crate) struct Call {
    stream: Stream,
    session: Session,
}

impl Request<'_> {
    /// Asks the introducer for the peer; gives what the peer answers.
    pub(crate) fn knock(&self, introducer: &Introducer) -> Result<(Call, Particulars), IntroductionError> {
        let options = ConnectOptions::new()
            .protocol(INTRODUCE.clone())
            .deadline(self.deadline)
            .interrupter(self.interrupt.dials());
        // The knock may go with the handshake: it is sealed for nobody and signed by us.
        let transport = &self.shared.transport;
        let stream = Stream::connect_early(transport, &introducer.endpoints[..], &options).map_err(
            |error| match error {
                DialError::Interrupted => IntroductionError::Interrupted,
                error => IntroductionError::Unreachable(Box::new(error)),
            },
        )?;
        self.interrupt.watch(&stream)?;
        let sign = |text: &[u8]| transport.sign(text);
        let network = &self.shared.dialling().network;
        let secret = entropy::ephemeral();
        let (knocking, knock) =
            Knocking::new(secret, transport.public_key(), self.peer, self.token, self.label, network, sign);
        let mut line = Line { stream, frames: Frames::default() };
        line.send(&Frame::Knock { call: CALL, key: self.peer, knock })?;
        let answer = line.note(self.deadline).map_err(|error| self.unless_interrupted(error))?;
        let (session, particulars) = knocking.handle_answer(&answer)?;
        if let Some(code) = particulars.refusal {
            return Err(IntroductionError::Refused(refusal_of(code)));
        }
        Ok((Call { stream: line.stream, session }, particulars))
    }

    fn unless_interrupted(&self, error: IntroductionError) -> IntroductionError {
        if self.interrupt.dials.is_interrupted() { IntroductionError::Interrupted } else { error }
    }
}

impl Call {
    /// Tells the peer where we are. The stream to the introducer is of no more use then.
    pub(crate) fn offer(mut self, particulars: &Particulars) -> Result<(), IntroductionError> {
        let note = self.session.seal(particulars);
        let mut bytes = Frame::Note { call: CALL, note }.encode();
        bytes.extend(Frame::End { call: CALL, reason: EndReason::Done }.encode());
        self.stream.write_all(&bytes).map_err(|error| gone(&error))
    }
}

/// Frames to and from an introducer.
struct Line {
    stream: Stream,
    frames: Frames,
}

impl Line {
    fn send(&mut self, frame: &Frame) -> Result<(), IntroductionError> {
        self.stream.write_all(&frame.encode()).map_err(|error| gone(&error))
    }

    /// The next note of the call.
    fn note(&mut self, deadline: Instant) -> Result<Vec<u8>, IntroductionError> {
        let mut buffer = [0; 4_096];
        loop {
            match self.frames.next()? {
                Some(Frame::Note { call: CALL, note }) => return Ok(note),
                Some(Frame::End { call: CALL, reason }) => return Err(reason.into()),
                Some(_) => continue,
                None => {}
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(IntroductionError::TimedOut);
            }
            self.stream
                .set_read_timeout(Some(left))
                .map_err(|error| IntroductionError::Gone { reason: error.to_string() })?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(IntroductionError::Gone { reason: "it ended the stream".to_owned() }),
                Ok(length) => self.frames.push(&buffer[..length]),
                Err(error) if StreamError::of(&error) == Some(&StreamError::TimedOut) => {
                    return Err(IntroductionError::TimedOut);
                }
                Err(error) => return Err(gone(&error)),
            }
        }
    }
}

impl From<EndReason> for IntroductionError {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Unknown => Self::UnknownPeer,
            EndReason::Busy => Self::Busy,
            EndReason::TimedOut => Self::TimedOut,
            other => Self::Gone { reason: other.to_string() },
        }
    }
}

impl From<Flaw> for IntroductionError {
    fn from(flaw: Flaw) -> Self {
        Self::Answer { reason: flaw.to_string() }
    }
}

impl From<FrameError> for IntroductionError {
    fn from(error: FrameError) -> Self {
        Self::Gone { reason: error.to_string() }
    }
}

fn gone(error: &std::io::Error) -> IntroductionError {
    match StreamError::of(error) {
        Some(StreamError::Refused(refusal)) => {
            IntroductionError::Gone { reason: format!("it refused: {refusal}") }
        }
        _ => IntroductionError::Gone { reason: error.to_string() },
    }
}

/// Each call has a stream of its own, so one number serves.
const CALL: u32 = DIALLED;
