//! Both sides of one call by an introducer: what the peer's notes say.

use std::net::IpAddr;

use transport::{OfferError, PublicKey, RendezvousOffer};

use super::{ConnectionMark, Flaw, Knocking, Opening, Particulars, Sealing};
use crate::protocol::introducer::{
    DIALLED,
    frame::{EndReason, Frame},
};

/// The dialer's side.
///
/// ```text
///            answer                      End
/// Knocking ─────────► Answered ─ notes ─────► over
///     └─ End, refusal, anything forged ─────► over
/// ```
pub(crate) struct Calling {
    peer: PublicKey,
    state: State,
    /// Where the introducer sees the peer, as far as that is news.
    vouched: Option<IpAddr>,
}

enum State {
    Knocking(Box<Knocking>),
    Answered(Box<Opening>),
    Over,
}

/// What the peer says on a call.
pub(crate) enum Said {
    /// First: where it is, and what seals what we say from now on.
    Answer(Box<Answer>),
    /// Later: where it is besides.
    More(Box<RendezvousOffer>),
}

/// The peer's answer.
pub(crate) struct Answer {
    pub(crate) offer: RendezvousOffer,
    pub(crate) sealing: Sealing,
    /// Where the introducer sees the peer, if the peer wanted that told; it comes before the answer.
    pub(crate) vouched: Option<IpAddr>,
}

/// Why a call is over, or a note was of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoCall {
    #[error("{0}")]
    Ended(EndReason),
    #[error("refused with code {0}")]
    Refused(u8),
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A later note, which is skipped: the call goes on.
    #[error(transparent)]
    Later(NoteError),
}

/// Why a note is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoteError {
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error("it says nothing of where the peer is")]
    NoOffer,
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error("it is of another peer")]
    AnotherPeer,
}

impl Calling {
    /// A call to `peer`, which is knocked for.
    pub(crate) fn new(peer: PublicKey, knocking: Knocking) -> Self {
        Self { peer, state: State::Knocking(Box::new(knocking)), vouched: None }
    }

    /// Takes what comes by the introducer.
    pub(crate) fn handle_frame(&mut self, frame: Frame) -> Result<Option<Said>, NoCall> {
        match frame {
            Frame::Note { call: CALL, note } => self.handle_note(&note).map(Some),
            Frame::End { call: CALL, reason } => {
                self.state = State::Over;
                Err(NoCall::Ended(reason))
            }
            Frame::Vouch { call: CALL, source } => {
                self.vouched = source;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn handle_note(&mut self, note: &[u8]) -> Result<Said, NoCall> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Knocking(knocking) => {
                let (session, particulars) = knocking.handle_answer(note).map_err(NoteError::from)?;
                if let Some(code) = particulars.refusal {
                    return Err(NoCall::Refused(code));
                }
                let offer = offer_of(&particulars, self.peer)?;
                let (sealing, opening) = session.split();
                self.state = State::Answered(Box::new(opening));
                Ok(Said::Answer(Box::new(Answer { offer, sealing, vouched: self.vouched })))
            }
            State::Answered(mut opening) => {
                let particulars = opening.open(note).map_err(NoteError::from)?;
                // What cannot be opened ends it, as all that follows is lost as well; what cannot be read is skipped.
                self.state = State::Answered(opening);
                offer_of(&particulars, self.peer)
                    .map(|offer| Said::More(Box::new(offer)))
                    .map_err(NoCall::Later)
            }
            State::Over => Err(NoCall::Ended(EndReason::Done)),
        }
    }
}

/// The receiver's side, once it has answered.
pub(crate) struct Answering {
    dialer: PublicKey,
    opening: Opening,
}

impl Answering {
    /// What the dialer says in the session that the answer has begun.
    pub(crate) const fn new(dialer: PublicKey, opening: Opening) -> Self {
        Self { dialer, opening }
    }

    /// Where the dialer is, and the connection that is to take another path, if it is not for a new one.
    pub(crate) fn handle_note(
        &mut self,
        note: &[u8],
    ) -> Result<(RendezvousOffer, Option<ConnectionMark>), NoteError> {
        let particulars = self.opening.open(note)?;
        Ok((offer_of(&particulars, self.dialer)?, particulars.improves))
    }
}

fn offer_of(said: &Particulars, peer: PublicKey) -> Result<RendezvousOffer, NoteError> {
    let bytes = said.rendezvous.as_ref().ok_or(NoteError::NoOffer)?;
    let offer = RendezvousOffer::from_bytes(bytes)?;
    if offer.public_key() == peer { Ok(offer) } else { Err(NoteError::AnotherPeer) }
}

/// Each call has a stream of its own, so one number serves.
pub(crate) const CALL: u32 = DIALLED;
