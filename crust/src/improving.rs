//! A connection that goes over a relay is led around it, and one that is cut off is led to where its peer is now: the peer is asked for once
//! more, and both punch holes for what is there.

use std::time::Duration;

use transport::{
    AccessToken, ConnectOptions as DialOptions, Connection, Path, PathKind, ProtocolLabel, PublicKey,
    Rendezvous, RendezvousError,
};

use crate::{
    AttemptError, Introducer,
    introduced::Introduction,
    io::{
        clock,
        introduce::{Interrupt, IntroductionError, Request},
    },
    protocol::{
        detours::{Detoured, Health},
        introduction::ConnectionMark,
    },
    road::{Road, Roads},
    shared::Shared,
};

/// A connection, and how its peer is asked for when it is to take another path.
#[derive(Debug, Clone)]
pub(crate) struct Detour {
    pub(crate) connection: Connection,
    /// Who knew the peer, if we asked for it; our own are asked as well.
    pub(crate) introducers: Vec<Introducer>,
    pub(crate) token: Option<AccessToken>,
    pub(crate) label: ProtocolLabel,
    /// What may be tried.
    pub(crate) roads: Roads,
    /// Whether we asked for the peer: one of the two is enough to leave a relay that works.
    pub(crate) dialled: bool,
}

impl Detour {
    /// Whether its peer does not answer any more.
    fn is_cut_off(&self) -> bool {
        self.connection.is_cut_off() == Ok(true)
    }

    /// Looks for another path. Blocks until the connection takes it, or for some fifteen seconds; less if the connection ends, or
    /// somebody interrupts.
    pub(crate) fn lead(&self, shared: &Shared, interrupt: &Interrupt) -> Result<Path, AttemptError> {
        let mut last = AttemptError::Skipped { reason: "no introducer is known".to_owned() };
        let own = shared.introducers();
        let further = own.iter().filter(|own| self.introducers.iter().all(|one| one.key() != own.key()));
        for introducer in self.introducers.iter().chain(further).take(MOST_ASKED) {
            match self.lead_by(shared, introducer, interrupt) {
                // Another may know the peer.
                Err(error @ AttemptError::Introduction(_)) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    fn lead_by(
        &self,
        shared: &Shared,
        introducer: &Introducer,
        interrupt: &Interrupt,
    ) -> Result<Path, AttemptError> {
        let Some(mark) = mark_of(&self.connection) else {
            return Err(AttemptError::Skipped { reason: "the connection is over".to_owned() });
        };
        shared.ask_for_addresses(introducer);
        let rescues = self.is_cut_off();
        let roads = self.roads.and(shared.dialling().roads);
        if !(roads.contains(Road::Punched) || rescues && roads.contains(Road::Relayed)) {
            return Err(AttemptError::Skipped { reason: "holes are not to be punched any more".to_owned() });
        }
        let direct = [Road::Lan, Road::Direct, Road::Punched].into_iter().collect();
        let roads = if rescues { roads } else { roads.and(direct) };
        if rescues {
            shared.doubt_relay(&self.connection);
        }
        let options = shared.meeting(roads).tcp(false).listeners(false);
        tracing::trace!(peer = %self.connection.public_key(), rescues, "looking for another path");
        let rendezvous = Rendezvous::open(&shared.transport, &options)?;
        let begun = clock::now();
        let request = Request {
            shared,
            peer: self.connection.public_key(),
            token: self.token.as_ref(),
            label: &self.label,
            // Over TCP nothing is to be improved.
            without_udp: false,
            rescues: rescues.then_some(mark),
            single: None,
            not_before: begun,
            deadline: begun + PATIENCE,
            interrupt,
        };
        let introduction = Introduction { request, roads, improves: Some(mark) };
        let led = introduction.meet(introducer, rendezvous, |rendezvous, theirs| {
            let options = DialOptions::new().timeout(PUNCHING).interrupter(interrupt.dials());
            if rescues {
                rendezvous.rescue_connection(&self.connection, theirs, &options)
            } else {
                rendezvous.improve_connection(&self.connection, theirs, &options)
            }
        });
        match led {
            // Either side may have moved meanwhile; nothing was found out of how they can meet now.
            Err(AttemptError::Rendezvous(RendezvousError::Interrupted)) if rescues => {
                Err(IntroductionError::Interrupted.into())
            }
            led => led,
        }
    }
}

impl Detoured for Detour {
    type View = ();

    fn peer(&self) -> PublicKey {
        self.connection.public_key()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.connection == other.connection
    }

    fn is_dialled(&self) -> bool {
        self.dialled
    }

    fn health(&self, (): &()) -> Option<Health> {
        let path = self.connection.path().ok()?;
        Some(Health { is_relayed: path.kind == PathKind::Relayed, is_cut_off: self.is_cut_off() })
    }
}

/// What the two ends call a connection.
pub(crate) fn mark_of(connection: &Connection) -> Option<ConnectionMark> {
    let mut mark = ConnectionMark::default();
    connection.export_keying_material(&mut mark, b"EXPERIMENTAL-crust-connection", b"").ok()?;
    Some(mark)
}

/// For an introducer, until the peer has answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// As long as the peer does: a NAT that draws ports at random takes several seconds.
const PUNCHING: Duration = Duration::from_secs(15);
/// Introducers, one after the other.
const MOST_ASKED: usize = 4;
