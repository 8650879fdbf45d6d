//! The receiver's side of an introduction: the thread `crust-meet`, from a knock to a stream.

use std::{net::IpAddr, sync::Arc, thread, time::Duration};

use crossbeam::channel::{Receiver, bounded, select};
use transport::{
    ConnectOptions, Connection, Interrupter, ProtocolLabel, PublicKey, Refusal, Rendezvous,
    RendezvousChannel, RendezvousError, RendezvousOffer, StreamKey,
};

use super::{
    clock, entropy,
    outlet::{EndCall, Outlet},
    worker::{Command, Commands},
};
use crate::{
    Road,
    event::ServiceEvent,
    gate::code_of,
    improving::{Detour, mark_of},
    protocol::{
        introducer::frame::{EndReason, Frame},
        introduction::{Answering, ConnectionMark, Flaw, Knock, NoteError, Particulars},
    },
    shared::{Learning, Shared},
};

/// One peer that knocks.
pub(super) struct Meeting {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: Commands,
    /// The stream to the introducer.
    pub(super) through: StreamKey,
    pub(super) call: u32,
    /// What comes after the knock.
    pub(super) notes: Receiver<Heard>,
}

/// What comes by the introducer.
#[derive(Debug)]
pub(super) enum Heard {
    /// The peer says something.
    Note(Vec<u8>),
    /// The introducer sees the peer come from there.
    Vouched(IpAddr),
    /// This host has come into another network: what the peer was told of it leads nowhere now.
    Moved,
}

/// What a peer that was admitted may have.
enum Wish {
    /// A stream of this protocol, or a better path for a connection of ours with it.
    Stream(ProtocolLabel),
    /// A path for this connection, and nothing else.
    Rescue(Connection),
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
    #[error("this host has come into another network meanwhile")]
    Moved,
    #[error("what it says of where it is cannot be used: {0}")]
    Note(#[from] NoteError),
    #[error("{}", crate::error_chain(.0))]
    Rendezvous(#[from] RendezvousError),
    #[error("no better path was found: {}", crate::error_chain(.0))]
    NotImproved(RendezvousError),
    #[error("holes are not to be punched here")]
    NotPunched,
    #[error("the connection that was to take a better path is not there")]
    NotConnected,
}

impl Meeting {
    pub(super) fn run(self, knock: &[u8]) {
        let mut peer = None;
        let reason = match self.meet(knock, &mut peer) {
            Ok(()) => EndReason::Done,
            // The connection goes on as it was.
            Err(failure @ (Failure::NotImproved(_) | Failure::NotPunched | Failure::NotConnected)) => {
                tracing::debug!(?peer, %failure, "a connection stays on its relay");
                EndReason::Declined
            }
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
        let wish = match self.admit(&knock) {
            Ok(wish) => wish,
            Err(refusal) => {
                let refused = Particulars::refused(code_of(refusal));
                let (_, answer) = knock.answer(entropy::ephemeral(), &refused, sign)?;
                self.note(answer);
                return Err(Failure::Refused(refusal));
            }
        };
        let roads = shared.dialling().roads;
        let rendezvous = shared.listeners.open_rendezvous(&shared.meeting(roads).second(true))?;
        let channel = rendezvous.channel();
        let (ends, outlet) = (Learning::default(), Outlet::new(&channel));
        let (over, is_over) = bounded(0);
        thread::scope(|scope| {
            let _ending = (EndCall { ends: &ends, shared, outlet: &outlet }, over);
            thread::Builder::new()
                .name("crust-learn".into())
                .spawn_scoped(scope, || shared.learn(&channel, roads, &ends, &|| outlet.tell()))
                .map_err(RendezvousError::Socket)?;
            // All that is known now; what is learned follows.
            let said = channel.offer().to_bytes();
            if roads.contains(Road::Punched) {
                // It is told beside the answer, and so to nobody who was refused.
                self.say(Frame::Vouch { call: self.call, source: None });
            }
            let dialer = knock.dialer();
            let (session, answer) =
                knock.answer(entropy::ephemeral(), &Particulars::meeting(said.clone()), sign)?;
            self.note(answer);
            let (sealing, opening) = session.split();
            let mut answering = Answering::new(dialer, opening);
            let told = outlet.begin(sealing, Some(said), |note| {
                self.note(note);
                Ok(())
            });
            told.map_err(RendezvousError::Socket)?;
            let (theirs, improves) = answering.handle_note(&self.first_note(&channel)?)?;
            let (notes, channel, is_over) = (&self.notes, &channel, &is_over);
            let interrupter = Interrupter::default();
            let stop = interrupter.clone();
            let hear = move || {
                hear(notes, is_over, |heard| {
                    match heard {
                        Heard::Note(note) => channel.receive(&answering.handle_note(&note)?.0),
                        Heard::Vouched(ip) => channel.vouch(ip),
                        Heard::Moved => stop.interrupt(),
                    }
                    Ok(())
                });
            };
            thread::Builder::new()
                .name("crust-hear".into())
                .spawn_scoped(scope, hear)
                .map_err(RendezvousError::Socket)?;
            self.meet_for((wish, improves), dialer, rendezvous, (&theirs, &interrupter))
        })
    }

    fn meet_for(
        &self,
        wish: (Wish, Option<ConnectionMark>),
        dialer: PublicKey,
        rendezvous: Rendezvous,
        (theirs, interrupter): (&RendezvousOffer, &Interrupter),
    ) -> Result<(), Failure> {
        match wish {
            (Wish::Rescue(connection), _) => self.rescue(&connection, rendezvous, theirs, interrupter),
            (Wish::Stream(_), Some(mark)) => self.improve(dialer, mark, rendezvous, (theirs, interrupter)),
            (Wish::Stream(label), None) => self.take(dialer, rendezvous, theirs, label),
        }
    }

    /// What the peer may have: a stream, or another path for a connection that is there already.
    fn admit(&self, knock: &Knock) -> Result<Wish, Refusal> {
        let shared = &self.shared;
        if knock.is_a_rescue() {
            let mut connections = shared.transport.connections(knock.dialer()).into_iter();
            let is_meant = |one: &Connection| mark_of(one).is_some_and(|mark| knock.rescues(&mark));
            if let Some(connection) = connections.find(is_meant) {
                shared.doubt_relay(&connection);
                return Ok(Wish::Rescue(connection));
            }
        }
        shared.gate().judge(knock).map(Wish::Stream)
    }

    /// What the dialer says first.
    fn first_note(&self, channel: &RendezvousChannel) -> Result<Vec<u8>, Failure> {
        let deadline = clock::now() + PATIENCE;
        loop {
            match self.notes.recv_deadline(deadline).map_err(|_| Failure::Silence)? {
                Heard::Note(note) => return Ok(note),
                Heard::Vouched(ip) => channel.vouch(ip),
                Heard::Moved => return Err(Failure::Moved),
            }
        }
    }

    /// The peer wants a stream, which comes out of `accept`.
    fn take(
        &self,
        peer: PublicKey,
        rendezvous: Rendezvous,
        theirs: &RendezvousOffer,
        label: ProtocolLabel,
    ) -> Result<(), Failure> {
        let shared = &self.shared;
        let options = ConnectOptions::new().protocol(label.clone()).timeout(MEETING);
        let stream = shared.listeners.rendezvous_connect(rendezvous, theirs, &options)?;
        if let Some(connection) = stream.connection() {
            let roads = shared.dialling().roads;
            let (introducers, token) = (Vec::new(), None);
            let detour = Detour { connection, introducers, token, label, roads, dialled: false };
            self.commands.give(Command::LookAfter(Box::new(detour)));
        }
        shared.listeners.deliver(stream).map_err(|_| Failure::Refused(Refusal::Full))?;
        shared.events.tell(ServiceEvent::Introduced { peer });
        Ok(())
    }

    /// The peer has a stream of us already, which goes over a relay.
    fn improve(
        &self,
        peer: PublicKey,
        mark: ConnectionMark,
        rendezvous: Rendezvous,
        (theirs, interrupter): (&RendezvousOffer, &Interrupter),
    ) -> Result<(), Failure> {
        // Whoever is to meet us at relays only learns no other address of ours.
        if !self.shared.dialling().roads.contains(Road::Punched) {
            return Err(Failure::NotPunched);
        }
        let transport = &self.shared.transport;
        let mut connections = transport.connections(peer).into_iter();
        let connection = connections.find(|one| mark_of(one) == Some(mark)).ok_or(Failure::NotConnected)?;
        let options = ConnectOptions::new().timeout(MEETING).interrupter(interrupter);
        let improved = rendezvous.improve_connection(&connection, theirs, &options);
        let path = improved.map_err(Failure::NotImproved)?;
        self.shared.events.tell(ServiceEvent::PathImproved { peer, path });
        Ok(())
    }

    /// The same where the peer is cut off, whether we have noticed it or not.
    fn rescue(
        &self,
        connection: &Connection,
        rendezvous: Rendezvous,
        theirs: &RendezvousOffer,
        interrupter: &Interrupter,
    ) -> Result<(), Failure> {
        let options = ConnectOptions::new().timeout(MEETING).interrupter(interrupter);
        let rescued = rendezvous.rescue_connection(connection, theirs, &options);
        let path = rescued.map_err(Failure::NotImproved)?;
        self.shared.events.tell(ServiceEvent::PathImproved { peer: connection.public_key(), path });
        Ok(())
    }

    fn note(&self, note: Vec<u8>) {
        self.say(Frame::Note { call: self.call, note });
    }

    fn say(&self, frame: Frame) {
        self.commands.give(Command::Say { through: self.through, frame });
    }
}

/// Takes in what the peer says, until the call or the meeting is over.
fn hear(notes: &Receiver<Heard>, is_over: &Receiver<()>, mut take: impl FnMut(Heard) -> Result<(), Failure>) {
    loop {
        let note = select! {
            recv(notes) -> note => note,
            recv(is_over) -> _ => return,
        };
        let Ok(note) = note else { return };
        if let Err(error) = take(note) {
            return tracing::debug!(%error, "what the peer said later is of no use");
        }
    }
}

/// The dialer offers as soon as it has our answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A NAT that draws ports at random takes several seconds.
const MEETING: Duration = Duration::from_secs(15);
