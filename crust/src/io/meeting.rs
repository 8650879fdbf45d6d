//! The receiver's side of an introduction: the thread `crust-meet`, from a knock to a stream.

use std::{sync::Arc, time::Duration};

use crossbeam::channel::Receiver;
use transport::{
    ConnectOptions, OfferError, PublicKey, Refusal, RendezvousError, RendezvousOffer, StreamKey,
};

use super::{
    clock, entropy,
    worker::{Command, Commands},
};
use crate::{
    event::ServiceEvent,
    gate::code_of,
    protocol::{
        introducer::frame::{EndReason, Frame},
        introduction::{Flaw, Knock, Particulars, Session},
    },
    shared::Shared,
};

/// One peer that knocks.
pub(super) struct Meeting {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: Commands,
    /// The stream to the introducer.
    pub(super) through: StreamKey,
    pub(super) call: u32,
    /// What the peer says after its knock.
    pub(super) notes: Receiver<Vec<u8>>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("it said nothing after our answer")]
    Silence,
    #[error("its offer cannot be read: {0}")]
    Offer(#[from] OfferError),
    #[error("{}", crate::error_chain(.0))]
    Rendezvous(#[from] RendezvousError),
}

impl Meeting {
    pub(super) fn run(self, knock: &[u8]) {
        let mut peer = None;
        let reason = match self.meet(knock, &mut peer) {
            Ok(()) => EndReason::Done,
            Err(failure) => {
                let event = ServiceEvent::IntroductionFailed { peer, reason: failure.to_string() };
                self.shared.events.tell(event);
                EndReason::Declined
            }
        };
        self.commands.give(Command::Over { through: self.through, call: self.call, reason });
    }

    fn meet(&self, knock: &[u8], peer: &mut Option<PublicKey>) -> Result<(), Failure> {
        let shared = &self.shared;
        let knock = Knock::read(knock, shared.transport.public_key())?;
        *peer = Some(knock.dialer());
        let sign = |text: &[u8]| shared.transport.sign(text);
        let label = match shared.gate().judge(&knock) {
            Ok(label) => label,
            Err(refusal) => {
                let refused = Particulars::refused(code_of(refusal));
                let (_, answer) = knock.answer(entropy::ephemeral(), &refused, sign)?;
                self.note(answer);
                return Err(Failure::Refused(refusal));
            }
        };
        let (ours, rendezvous) =
            shared.listeners.prepare_rendezvous(&shared.mapping, &shared.meeting(shared.dialling().roads))?;
        let dialer = knock.dialer();
        let (mut session, answer) =
            knock.answer(entropy::ephemeral(), &Particulars::meeting(ours.to_bytes()), sign)?;
        self.note(answer);
        let theirs = self.offer(&mut session)?.rendezvous.ok_or(Flaw::Malformed)?;
        let theirs = RendezvousOffer::from_bytes(&theirs)?;
        if theirs.public_key() != dialer {
            return Err(Flaw::Forged.into());
        }
        let options = ConnectOptions::new().protocol(label).timeout(MEETING);
        let stream = shared.listeners.rendezvous_connect(rendezvous, &theirs, &options)?;
        shared.listeners.deliver(stream).map_err(|_| Failure::Refused(Refusal::Full))?;
        shared.events.tell(ServiceEvent::Introduced { peer: dialer });
        Ok(())
    }

    fn offer(&self, session: &mut Session) -> Result<Particulars, Failure> {
        let until = clock::now() + PATIENCE;
        let sealed = self.notes.recv_deadline(until).map_err(|_| Failure::Silence)?;
        Ok(session.open(&sealed)?)
    }

    fn note(&self, note: Vec<u8>) {
        self.say(Frame::Note { call: self.call, note });
    }

    fn say(&self, frame: Frame) {
        self.commands.give(Command::Say { through: self.through, frame });
    }
}

/// The dialer maps its sockets meanwhile, which takes three seconds at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// A NAT that draws ports at random takes several seconds.
const MEETING: Duration = Duration::from_secs(15);
