//! QUIC of a node: connections, their ways, and the dials that wait for them.

mod dialling;
mod turning;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use nat_traversal::protocol::Seed;

use super::{
    meeting::MeetingId,
    node::{DialId, Held, StreamId, limits},
};
use crate::{
    Identity, PublicKey, Refusal,
    protocol::{
        paths::{CheckTag, Paths, UdpSource, Way},
        preface::{Preface, Purpose},
        quic::{
            PathMtu, QuicConnection, QuicEndpoint, QuicHandle, QuicSettings, QuicStreamId, ReadEnd, WriteEnd,
        },
        raw_key::TlsConfigs,
        reunion::Reunion,
        rounds::Round,
    },
};

/// All connections of a node.
pub(super) struct Links {
    endpoint: QuicEndpoint,
    all: BTreeMap<usize, Link>,
    reunion: Reunion,
    /// Dials sent on to a connection of the peer's that is not up here yet, and from which connection.
    parked: Vec<(u64, Dial)>,
    /// Dials of the application that were begun once more, since their connection had ended.
    again: u64,
    next: u64,
    due: Option<Instant>,
}

/// One connection and its ways.
pub(super) struct Link {
    number: u64,
    kind: Kind,
    /// Where its first datagram went, or came from.
    first: UdpSource,
    pub(super) connection: Box<QuicConnection>,
    pub(super) paths: Paths,
    /// How often the way has changed.
    pub(super) changes: u64,
    tag: Option<CheckTag>,
    opening: BTreeMap<u64, Dial>,
    judging: BTreeMap<QuicStreamId, Dial>,
    streams: BTreeMap<QuicStreamId, StreamId>,
    punched: bool,
}

/// Who made it, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Incoming { begun: Instant },
    Shared { expected: PublicKey },
    Alone,
}

/// A dial under way.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    ticket: u64,
    caller: Caller,
    to: UdpSource,
    expected: PublicKey,
    preface: Preface,
    round: Round,
    over_punch: bool,
}

/// Who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Application,
    Meeting { meeting: MeetingId, attempt: usize },
}

/// Why a dial failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    WrongPeer,
    NotChosen,
    Refused(Refusal),
    Other(String),
}

/// What goes by a stream, as its owner sees it.
#[derive(Debug, Default)]
pub(super) struct Purse {
    pub(super) unsent: VecDeque<u8>,
    pub(super) is_finished: bool,
    pub(super) is_delivered: bool,
    pub(super) got: Vec<u8>,
    pub(super) end: Option<Result<(), String>>,
}

/// What follows from a connection's events for others.
enum After {
    Ended {
        dial: Dial,
        outcome: Result<QuicStreamId, Failure>,
    },
    Again(Dial),
    Elsewhere(Dial),
    Welcome,
    /// The connection of that number is.
    Over(u64),
}

impl Dial {
    pub(super) fn of_caller(id: DialId, addr: SocketAddr, expected: PublicKey, preface: Preface) -> Self {
        let to = UdpSource { socket: 0, addr };
        let (caller, ticket, round) = (Caller::Application, id.0, Round::First);
        Self { ticket, caller, to, expected, preface, round, over_punch: false }
    }

    pub(super) fn of_meeting(
        ticket: u64,
        (meeting, attempt): (MeetingId, usize),
        to: UdpSource,
        expected: PublicKey,
        preface: Preface,
        over_punch: bool,
    ) -> Self {
        let (caller, round) = (Caller::Meeting { meeting, attempt }, Round::Last);
        Self { ticket, caller, to, expected, preface, round, over_punch }
    }

    fn may_move(&self) -> bool {
        !self.preface.stays
    }

    fn is_held(&self) -> bool {
        matches!(self.preface.purpose, Purpose::Rendezvous(_))
    }

    fn once_more(mut self, round: Round) -> Self {
        self.round = round;
        self.preface.stays |= round == Round::Last;
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongPeer => formatter.write_str("another key was shown"),
            Self::NotChosen => formatter.write_str("another way was chosen"),
            Self::Refused(refusal) => write!(formatter, "refused: {refusal}"),
            Self::Other(reason) => formatter.write_str(reason),
        }
    }
}

impl Links {
    pub(super) fn new(identity: &Identity, dead_after: Duration, seed: [u8; 32]) -> Self {
        let tls = TlsConfigs::new(identity);
        let settings = QuicSettings {
            client_tls: tls.client,
            server_tls: tls.server,
            dead_after: Some(dead_after),
            handshake_timeout: Duration::from_secs(10),
            limits: limits(),
            max_mtu: PATH.largest,
            may_fragment: false,
            may_gather: false,
            reset_key: identity.derive(b"crust quic stateless reset 1"),
            seed,
        };
        Self {
            endpoint: QuicEndpoint::new(settings).expect("the engine takes these settings"),
            all: BTreeMap::new(),
            reunion: Reunion::new(identity.public_key()),
            parked: Vec::new(),
            again: 0,
            next: 0,
            due: None,
        }
    }

    pub(super) fn get(&self, link: usize) -> Option<&Link> {
        self.all.get(&link)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn dials(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn begun_again(&self) -> u64 {
        self.again
    }

    pub(super) fn with(&self, peer: PublicKey) -> usize {
        let with = |link: &&Link| link.connection.peer() == Some(peer) && link.connection.end().is_none();
        self.all.values().filter(with).count()
    }

    /// The connection that path checks with that tag belong to.
    pub(super) fn checked(&self, tag: CheckTag) -> Option<usize> {
        self.all.iter().find(|(_, link)| link.tag == Some(tag)).map(|(handle, _)| *handle)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for link in self.all.values_mut() {
            let awaited = link.connection.awaited(now);
            link.paths.handle_timeout(now, awaited);
            link.connection.handle_timeout(now);
        }
    }

    pub(super) fn network_changed(&mut self, now: Instant) {
        for link in self.all.values_mut() {
            link.connection.path_changed(now, false);
            link.paths.check_all(now);
        }
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.parked.clear();
        for link in self.all.values_mut() {
            link.connection.close(now);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks when the next timer is due, which takes leave to write.
    pub(super) fn note_timers(&mut self) {
        let due = |link: &mut Link| {
            link.connection.poll_timeout().into_iter().chain(link.paths.poll_timeout()).min()
        };
        self.due = self.all.values_mut().filter_map(due).min();
    }

    /// Whether a dial waits on a connection on which nothing has come yet.
    pub(super) fn is_unanswered(&self, ticket: u64) -> bool {
        let waits = |link: &&Link| link.opening.contains_key(&ticket);
        self.all.values().find(waits).is_some_and(|link| !link.connection.is_answered())
    }

    /// Offers another way to a connection.
    pub(super) fn offer(&mut self, now: Instant, link: usize, source: UdpSource) {
        if let Some(link) = self.all.get_mut(&link) {
            link.punched = true;
            link.paths.offer(now, Way { source, local: None });
        }
    }

    fn shared(&self, dial: &Dial) -> Option<usize> {
        let fits = |link: &Link| {
            link.kind == Kind::Shared { expected: dial.expected }
                && link.connection.end().is_none()
                && link.first == dial.to
        };
        self.all.iter().find(|(_, link)| fits(link)).map(|(handle, _)| *handle)
    }

    fn guest(&self, peer: PublicKey) -> Option<usize> {
        let number = self.reunion.guest(peer)?;
        self.all.iter().find(|(_, link)| link.number == number).map(|(handle, _)| *handle)
    }

    fn enter(
        &mut self,
        handle: QuicHandle,
        connection: Box<QuicConnection>,
        kind: Kind,
        source: UdpSource,
        seed: Seed,
    ) {
        self.next += 1;
        let follows = matches!(kind, Kind::Incoming { .. });
        let link = Link {
            number: self.next,
            kind,
            first: source,
            connection,
            paths: Paths::new(Way { source, local: None }, follows, seed),
            changes: 0,
            tag: None,
            opening: BTreeMap::new(),
            judging: BTreeMap::new(),
            streams: BTreeMap::new(),
            punched: false,
        };
        self.all.insert(handle.0, link);
    }
}

impl Link {
    fn begin_dial(&mut self, dial: Dial) {
        if !dial.is_held() {
            self.connection.open(dial.ticket, &dial.preface);
        }
        self.punched |= dial.over_punch;
        self.opening.insert(dial.ticket, dial);
        // A connection that ended a moment ago tells its dials once more.
        self.connection.repeat_end();
    }

    fn close_if_idle(&mut self, now: Instant) {
        if self.opening.is_empty() && self.judging.is_empty() && !self.connection.is_used() {
            self.connection.close(now);
        }
    }

    /// Takes what was written, gives what came.
    fn pump(&mut self, streams: &mut BTreeMap<StreamId, Held>) -> bool {
        let mut moved = false;
        for (stream, id) in &self.streams {
            let Some(held) = streams.get_mut(id) else { continue };
            let purse = &mut held.purse;
            while !purse.unsent.is_empty() {
                let (front, _) = purse.unsent.as_slices();
                match self.connection.write(*stream, front) {
                    Ok(count) => drop(purse.unsent.drain(..count)),
                    Err(WriteEnd::Blocked) => break,
                    Err(WriteEnd::Failed(_)) => purse.unsent.clear(),
                }
                moved = true;
            }
            if purse.is_finished && purse.unsent.is_empty() {
                self.connection.finish(*stream);
                purse.is_delivered |= self.connection.acknowledged(*stream) == Some(Ok(()));
            }
            let mut buffer = [0; 4_096];
            while purse.end.is_none() {
                match self.connection.read(*stream, &mut buffer) {
                    Ok(0) => purse.end = Some(Ok(())),
                    Ok(count) => purse.got.extend_from_slice(&buffer[..count]),
                    Err(ReadEnd::Blocked) => break,
                    Err(ReadEnd::Failed(error)) => purse.end = Some(Err(error.to_string())),
                }
                moved = true;
            }
        }
        moved
    }
}

/// What the interfaces of hosts in memory carry, and what a relay adds leaves room.
const PATH: PathMtu = PathMtu { largest: 1_400, is_known: false };
