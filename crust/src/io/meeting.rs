//! The receiver's side of an introduction: the thread `crust-meet`, from a knock to a stream.

use std::{net::IpAddr, sync::Arc, thread, time::Duration};

use crossbeam::channel::{Receiver, bounded, select};
use transport::{
    ConnectOptions, Connection, Interrupter, ProtocolLabel, PublicKey, Refusal, Rendezvous,
    RendezvousChannel, RendezvousError, RendezvousOffer, RendezvousOptions, StreamKey,
};

use super::{
    clock, entropy,
    outlet::{EndCall, Outlet},
    worker::{Command, Commands},
};
use crate::{
    Road,
    dial::Single,
    event::ServiceEvent,
    gate::code_of,
    improving::{Detour, mark_of},
    protocol::{
        introducer::frame::{EndReason, Frame},
        introduction::{Answering, ConnectionMark, Flaw, Knock, NoteError, Particulars},
    },
    road::Roads,
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
    /// To be met by a call of ours to it.
    Single(Arc<Single>),
}

/// Why a peer that knocks is not answered that it may come.
enum Unwanted {
    Refused(Refusal),
    /// It is to be met by a call of ours, and there is none, or by another introduction.
    NotCalling,
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
    #[error("no call of ours waits to be introduced to it")]
    NotCalling,
    #[error("the connection that was to take a better path is not there")]
    NotConnected,
}

impl Meeting {
    pub(super) fn run(self, knock: &[u8]) {
        let mut peer = None;
        let reason = match self.meet(knock, &mut peer) {
            Ok(()) => EndReason::Done,
            // The connection goes on as it was.
            Err(
                failure @ (Failure::NotImproved(_)
                | Failure::NotPunched
                | Failure::NotConnected
                | Failure::NotCalling),
            ) => {
                tracing::debug!(?peer, %failure, "nothing came of an introduction");
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
        tracing::trace!(peer = %knock.dialer(), "a peer knocks");
        let sign = |text: &[u8]| shared.transport.sign(text);
        let wish = match self.admit(&knock) {
            Ok(wish) => wish,
            // It asks again.
            Err(Unwanted::NotCalling) => return Err(Failure::NotCalling),
            Err(Unwanted::Refused(refusal)) => return Err(self.turn_away(knock, refusal)),
        };
        let (roads, options) = self.how_to_meet(&wish);
        let rendezvous = shared.listeners.open_rendezvous(&options.second(true))?;
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
            let (theirs, improves) = answering.handle_note(&self.first_note(&channel, &wish)?)?;
            tracing::trace!(peer = %dialer, "a peer that knocked tells where it is");
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
            self.serve((wish, improves), rendezvous, (&theirs, &interrupter))
        })
    }

    fn turn_away(&self, knock: Knock, refusal: Refusal) -> Failure {
        let refused = Particulars::refused(code_of(refusal));
        match knock.answer(entropy::ephemeral(), &refused, |text| self.shared.transport.sign(text)) {
            Ok((_, answer)) => {
                self.note(answer);
                Failure::Refused(refusal)
            }
            Err(flaw) => flaw.into(),
        }
    }

    fn how_to_meet(&self, wish: &Wish) -> (Roads, RendezvousOptions) {
        let shared = &self.shared;
        match wish {
            Wish::Single(single) => (single.roads(), single.options(shared)),
            Wish::Stream(_) | Wish::Rescue(_) => {
                let roads = shared.dialling().roads;
                (roads, shared.meeting(roads))
            }
        }
    }

    /// Both know where the other is.
    fn serve(
        &self,
        wish: (Wish, Option<ConnectionMark>),
        rendezvous: Rendezvous,
        (theirs, interrupter): (&RendezvousOffer, &Interrupter),
    ) -> Result<(), Failure> {
        let dialer = theirs.public_key();
        match wish {
            (Wish::Rescue(connection), _) => self.rescue(&connection, rendezvous, theirs, interrupter),
            (Wish::Single(single), _) => {
                let options = ConnectOptions::new().timeout(MEETING).interrupter(interrupter);
                match single.call().introduce(&rendezvous, theirs, &options) {
                    // Our call goes on without it.
                    Err(RendezvousError::Interrupted) => Err(Failure::NotCalling),
                    done => Ok(done?),
                }
            }
            (Wish::Stream(_), Some(mark)) => self.improve(dialer, mark, rendezvous, (theirs, interrupter)),
            (Wish::Stream(label), None) => self.take(dialer, rendezvous, theirs, label),
        }
    }

    /// What the peer may have: a stream, or another path for a connection that is there already.
    fn admit(&self, knock: &Knock) -> Result<Wish, Unwanted> {
        let shared = &self.shared;
        if knock.is_single() {
            if !knock.is_of(&shared.gate().network) {
                return Err(Unwanted::Refused(Refusal::Network));
            }
            // Who calls it admits it.
            let is_wanted = |label: &ProtocolLabel| knock.wants([label]).is_some();
            let single = shared.singles.find(knock.dialer(), is_wanted).filter(|single| single.is_sought());
            return single.map(Wish::Single).ok_or(Unwanted::NotCalling);
        }
        if knock.is_a_rescue() {
            let mut connections = shared.transport.connections(knock.dialer()).into_iter();
            let is_meant = |one: &Connection| mark_of(one).is_some_and(|mark| knock.rescues(&mark));
            if let Some(connection) = connections.find(is_meant) {
                shared.doubt_relay(&connection);
                return Ok(Wish::Rescue(connection));
            }
        }
        shared.gate().judge(knock).map(Wish::Stream).map_err(Unwanted::Refused)
    }

    /// What the dialer says first.
    fn first_note(&self, channel: &RendezvousChannel, wish: &Wish) -> Result<Vec<u8>, Failure> {
        let deadline = clock::now() + PATIENCE;
        let silent = || match wish {
            // It is met by another introduction.
            Wish::Single(_) => Failure::NotCalling,
            Wish::Stream(_) | Wish::Rescue(_) => Failure::Silence,
        };
        loop {
            match self.notes.recv_deadline(deadline).map_err(|_| silent())? {
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
