//! A connection that came up over a relay is led around it: the peer is asked for once more, and both punch holes for what is there.

use std::time::Duration;

use transport::{
    AccessToken, ConnectOptions as DialOptions, Connection, Path, PathKind, ProtocolLabel, Rendezvous,
};

use crate::{
    AttemptError, Introducer,
    introduced::Introduction,
    io::{
        clock,
        introduce::{Interrupt, Request},
    },
    protocol::introduction::ConnectionMark,
    road::{Road, Roads},
    shared::Shared,
};

/// A connection that goes over a relay, and how its peer was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Detour {
    pub(crate) connection: Connection,
    pub(crate) introducers: Vec<Introducer>,
    pub(crate) token: Option<AccessToken>,
    pub(crate) label: ProtocolLabel,
    /// What may be tried.
    pub(crate) roads: Roads,
}

impl Detour {
    /// Whether it is one still.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.path().is_ok_and(|path| path.kind == PathKind::Relayed)
    }

    /// Looks for a direct path. Blocks until the connection takes it, or for some fifteen seconds; less if the connection ends.
    pub(crate) fn leave(&self, shared: &Shared) -> Result<Path, AttemptError> {
        let mut last = AttemptError::Skipped { reason: "no introducer is known".to_owned() };
        for introducer in &self.introducers {
            match self.leave_by(shared, introducer) {
                // Another may know the peer.
                Err(error @ AttemptError::Introduction(_)) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    fn leave_by(&self, shared: &Shared, introducer: &Introducer) -> Result<Path, AttemptError> {
        let Some(mark) = mark_of(&self.connection) else {
            return Err(AttemptError::Skipped { reason: "the connection is over".to_owned() });
        };
        shared.ask_for_addresses(introducer);
        let roads = self.roads.and(shared.dialling().roads);
        if !roads.contains(Road::Punched) {
            return Err(AttemptError::Skipped { reason: "holes are not to be punched any more".to_owned() });
        }
        let roads = roads.and([Road::Lan, Road::Direct, Road::Punched].into_iter().collect());
        let options = shared.meeting(roads).tcp(false).listeners(false);
        let rendezvous = Rendezvous::open(&shared.transport, &options)?;
        let (interrupt, begun) = (Interrupt::default(), clock::now());
        let request = Request {
            shared,
            peer: self.connection.public_key(),
            token: self.token.as_ref(),
            label: &self.label,
            // Over TCP nothing is to be improved.
            without_udp: false,
            not_before: begun,
            deadline: begun + PATIENCE,
            interrupt: &interrupt,
        };
        let introduction = Introduction { request, roads, improves: Some(mark) };
        introduction.meet(introducer, rendezvous, |rendezvous, theirs| {
            rendezvous.improve_connection(&self.connection, theirs, &DialOptions::new().timeout(PUNCHING))
        })
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
