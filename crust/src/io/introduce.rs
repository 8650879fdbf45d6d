//! The dialer's side of an introduction, on the caller's thread or one that the call started.

use std::{
    io::{self, Read as _, Write as _},
    sync::{Condvar, Mutex, PoisonError},
    time::Instant,
};

use transport::{
    AccessToken, ConnectError as DialError, ConnectOptions, Interrupter, ProtocolLabel, PublicKey, Refusal,
    RendezvousOffer, Stream, StreamError,
};

use super::{clock, entropy, lock::Lock as _};
use crate::{
    Introducer,
    dial::Single,
    gate::refusal_of,
    protocol::{
        introducer::frame::{EndReason, Frame, FrameError, Frames},
        introduction::{Answer, CALL, Calling, ConnectionMark, Knocking, NoCall, Said, Wish},
        plan::Claim,
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
    /// No UDP passes here, as far as is known.
    pub(crate) without_udp: bool,
    /// A connection that is cut off, if it is for that.
    pub(crate) rescues: Option<ConnectionMark>,
    /// The peer calls too, for the same stream.
    pub(crate) single: Option<&'c Single>,
    /// The introducer is dialled at once, and asked for the peer not before.
    pub(crate) not_before: Instant,
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
    /// By which introducer the peer is met.
    claim: Mutex<Claim>,
    /// Nobody need hold back any more.
    hurried: Mutex<bool>,
    hurries: Condvar,
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

    /// Blocks until then, unless somebody [hurries](Interrupt::hurry) or interrupts.
    pub(crate) fn hold_back(&self, until: Instant) {
        let mut hurried = self.hurried.hold();
        while !*hurried {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                return;
            }
            hurried = self.hurries.wait_timeout(hurried, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has nobody hold back any more.
    pub(crate) fn hurry(&self) {
        *self.hurried.hold() = true;
        self.hurries.notify_all();
    }

    /// Blocks until the answer that the caller has is the one to go by: at once if it is the first, and else if nothing has come of that
    /// one for some seconds. Tells whether it is; not so if the call is over before.
    pub(crate) fn claim(&self, deadline: Instant) -> bool {
        loop {
            let now = clock::now();
            let taken = self.claim.hold().take(now);
            let until = match taken {
                Ok(()) => return true,
                Err(until) => until.filter(|until| *until < deadline),
            };
            let Some(until) = until else { return false };
            let hurried = self.hurried.hold();
            if self.dials.is_interrupted() {
                return false;
            }
            let left = until.saturating_duration_since(now);
            drop(self.hurries.wait_timeout(hurried, left).unwrap_or_else(PoisonError::into_inner));
            if self.dials.is_interrupted() {
                return false;
            }
        }
    }

    /// The meeting of whoever had claimed it has failed: others need not wait.
    pub(crate) fn not_met(&self) {
        self.claim.hold().handle_failure();
        self.hurry();
    }

    pub(crate) fn interrupt(&self) {
        self.dials.interrupt();
        self.hurry();
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
pub(crate) struct Call {
    line: Line,
    pub(crate) answer: Box<Answer>,
}

/// What we say on a call. Its drop ends the call.
pub(crate) struct Speaking(Stream);

/// What the peer says on a call.
pub(crate) struct Hearing(Line);

impl Request<'_> {
    /// Asks the introducer for the peer; gives what the peer answers.
    pub(crate) fn knock(&self, introducer: &Introducer) -> Result<Call, IntroductionError> {
        let options = ConnectOptions::new()
            .protocol(INTRODUCE.clone())
            .deadline(self.deadline)
            .interrupter(self.interrupt.dials());
        // The knock may go with the handshake: it is sealed for nobody and signed by us.
        let transport = &self.shared.transport;
        let stream =
            Stream::connect_early(transport, &introducer.in_dialling_order(self.without_udp)[..], &options)
                .map_err(|error| match error {
                DialError::Interrupted => IntroductionError::Interrupted,
                error => IntroductionError::Unreachable(Box::new(error)),
            })?;
        self.interrupt.watch(&stream)?;
        self.interrupt.hold_back(self.not_before);
        let sign = |text: &[u8]| transport.sign(text);
        let dialling = self.shared.dialling();
        let wish = Wish {
            label: self.label,
            token: self.token,
            network: &dialling.network,
            rescues: self.rescues.as_ref(),
            single: self.single.is_some(),
        };
        let secret = entropy::ephemeral();
        let (knocking, knock) = Knocking::new(secret, transport.public_key(), self.peer, wish, sign);
        let calling = Calling::new(self.peer, knocking);
        let mut line = Line { stream, frames: Frames::default(), calling, is_declined: false };
        line.send(&Frame::Knock { call: CALL, key: self.peer, knock })?;
        tracing::trace!(peer = %self.peer, "knocked at an introducer");
        loop {
            match line.next(self.deadline).map_err(|error| self.unless_interrupted(error))? {
                Said::Answer(answer) => {
                    tracing::trace!(peer = %self.peer, "the peer has answered");
                    return Ok(Call { line, answer });
                }
                Said::More(_) => {}
            }
        }
    }

    fn unless_interrupted(&self, error: IntroductionError) -> IntroductionError {
        if self.interrupt.dials.is_interrupted() { IntroductionError::Interrupted } else { error }
    }
}

impl Call {
    /// Takes the directions apart, for two threads.
    pub(crate) fn split(self) -> Result<(Speaking, Box<Answer>, Hearing), IntroductionError> {
        let speaking = self.line.stream.try_clone();
        let speaking = speaking.map_err(|error| IntroductionError::Gone { reason: error.to_string() })?;
        Ok((Speaking(speaking), self.answer, Hearing(self.line)))
    }
}

impl Speaking {
    /// Has the peer told where the introducer sees us. An introducer that knows nothing of this skips it.
    pub(crate) fn be_vouched_for(&self) -> io::Result<()> {
        (&self.0).write_all(&Frame::Vouch { call: CALL, source: None }.encode())
    }

    pub(crate) fn say(&self, note: Vec<u8>) -> io::Result<()> {
        (&self.0).write_all(&Frame::Note { call: CALL, note }.encode())
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        // Where the introducer is gone, nobody waits for it.
        let _ = (&self.0).write_all(&Frame::End { call: CALL, reason: EndReason::Done }.encode());
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Hearing {
    /// Blocks until the peer has said more of where it is, or the call is over.
    pub(crate) fn next(&mut self, deadline: Instant) -> Result<RendezvousOffer, IntroductionError> {
        loop {
            match self.0.next(deadline) {
                Ok(Said::More(offer)) => return Ok(*offer),
                Ok(Said::Answer(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the peer has said that nothing comes of it.
    pub(crate) const fn is_declined(&self) -> bool {
        self.0.is_declined
    }
}

/// Frames to and from an introducer.
struct Line {
    stream: Stream,
    frames: Frames,
    calling: Calling,
    is_declined: bool,
}

impl Line {
    fn send(&mut self, frame: &Frame) -> Result<(), IntroductionError> {
        self.stream.write_all(&frame.encode()).map_err(|error| gone(&error))
    }

    /// What the peer says next.
    fn next(&mut self, deadline: Instant) -> Result<Said, IntroductionError> {
        let mut buffer = [0; 4_096];
        loop {
            while let Some(frame) = self.frames.next()? {
                match self.calling.handle_frame(frame) {
                    Ok(Some(said)) => return Ok(said),
                    Ok(None) => {}
                    Err(NoCall::Later(error)) => {
                        tracing::debug!(%error, "what the peer said later is of no use");
                    }
                    Err(over) => {
                        self.is_declined |= over == NoCall::Ended(EndReason::Declined);
                        return Err(over.into());
                    }
                }
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

impl From<NoCall> for IntroductionError {
    fn from(over: NoCall) -> Self {
        match over {
            NoCall::Ended(reason) => reason.into(),
            NoCall::Refused(code) => Self::Refused(refusal_of(code)),
            NoCall::Note(error) | NoCall::Later(error) => Self::Answer { reason: error.to_string() },
        }
    }
}

impl From<FrameError> for IntroductionError {
    fn from(error: FrameError) -> Self {
        Self::Gone { reason: error.to_string() }
    }
}

impl From<&io::Error> for IntroductionError {
    fn from(error: &io::Error) -> Self {
        gone(error)
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

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        time::Duration,
    };

    use super::*;
    use crate::{Config, Lan, Road, Scheme, Service};

    fn listening() -> Config {
        Config::new().lan(Lan::Off).listen(["quic://127.0.0.1:0".parse().unwrap()])
    }

    /// Who answers a knock for `server` by the introducer, and where that sees it.
    fn knock(client: &Service, server: &Service, introducer: &Introducer) -> Option<IpAddr> {
        let interrupt = Interrupt::default();
        let now = clock::now();
        let request = Request {
            shared: client.controller.shared(),
            peer: server.controller.public_key(),
            token: None,
            label: &ProtocolLabel::default(),
            without_udp: false,
            rescues: None,
            single: None,
            not_before: now,
            deadline: now + Duration::from_secs(30),
            interrupt: &interrupt,
        };
        request.knock(introducer).unwrap().answer.vouched
    }

    #[test]
    fn with_the_answer_the_introducer_tells_where_it_sees_a_peer_that_may_be_punched_to() {
        let middle = Service::new_from_config(listening().introduce(true)).unwrap();
        let place: transport::NamedEndpoint = middle.controller.endpoints().unwrap()[0].into();
        let attached = |config: Config| {
            let service = Service::new_from_config(config.introducers([place.clone()])).unwrap();
            assert!(service.controller.wait_attached(clock::now() + Duration::from_secs(30)));
            service
        };
        let client = Service::new_from_config(Config::new().lan(Lan::Off).listen([])).unwrap();
        assert_eq!(place.scheme(), Scheme::Quic);
        let introducer = Introducer::new(place.clone());
        let server = attached(listening());
        assert_eq!(knock(&client, &server, &introducer), Some(Ipv4Addr::LOCALHOST.into()));
        let hidden = attached(listening().roads([Road::Relayed, Road::Direct]));
        assert_eq!(knock(&client, &hidden, &introducer), None, "no packets are to come to it");
    }
}
