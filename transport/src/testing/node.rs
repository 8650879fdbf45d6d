use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nat_traversal::protocol::{
    Datagram, Machine as _, Random, Seed, SocketIndex, Transmit,
    turn::{AddressFamily, TurnClient, TurnCredentials, TurnEvent, TurnLink, TurnReceived},
};

use super::{
    links::{Dial, Links, Purse},
    meeting::{Meeting, MeetingId},
};
use crate::{
    Identity, Limits, NetworkName, PathKind, ProtocolLabel, PublicKey,
    protocol::{
        demux::is_stun,
        meetings::Meetings,
        paths::{UdpSource, peek_tag},
        preface::{Preface, Purpose},
        quic::QuicStreamId,
        search::Standing,
    },
};

/// A transport in memory; see the [module](super).
///
/// After any call that changes something drain [`poll_transmit`](Node::poll_transmit) and [`poll_event`](Node::poll_event), then read
/// [`poll_timeout`](Node::poll_timeout). `now` never goes back.
pub struct Node {
    pub(super) identity: Identity,
    pub(super) config: NodeConfig,
    pub(super) now: Instant,
    pub(super) random: Random,
    pub(super) links: Links,
    pub(super) known: Meetings<MeetingId>,
    pub(super) meetings: BTreeMap<MeetingId, Meeting>,
    pub(super) streams: BTreeMap<StreamId, Held>,
    /// Addresses at relays, the one in use last.
    relays: Vec<AtRelay>,
    pub(super) next: u64,
    /// Where peers are met at relays, by what they told.
    pub(super) relayed: Vec<SocketAddr>,
    /// The number of the next socket beyond the first.
    pub(super) sockets: u16,
    /// Those that stand for addresses at relays, the past ones too.
    relay_sockets: Vec<usize>,
    transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<NodeEvent>,
}

/// An address of ours at a relay, and the socket that stands for it.
pub(super) struct AtRelay {
    pub(super) socket: SocketIndex,
    client: TurnClient,
    /// Peers are told of it.
    is_told: bool,
}

/// What a [`Node`] is made of.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The address of its socket, as its host has it.
    pub local: SocketAddr,
    /// Whether strangers may open streams here.
    pub listens: bool,
    /// How long a peer may be silent.
    pub dead_after: Duration,
    /// Where it asks for its address outside.
    pub servers: Vec<SocketAddr>,
    /// Below 4, and another than that of any peer: breaks ties, so that a seed decides who leads.
    pub rank: u8,
}

/// A dial of a [`Node`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DialId(pub(super) u64);

/// A stream of a [`Node`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub(super) u64);

/// What a [`Node`] tells.
#[derive(Debug)]
pub enum NodeEvent {
    /// A dial has ended.
    Dialled(DialId, Result<StreamId, String>),
    /// A peer has opened a stream.
    Accepted(StreamId),
    /// What the peer of that meeting is told has changed.
    News(MeetingId),
    /// All servers have answered a meeting, or had their time.
    Gathered(MeetingId),
    /// A meeting has ended.
    Met(MeetingId, Result<StreamId, String>),
    /// The meeting that was to give a connection a better path has ended.
    Improved(MeetingId, Result<(), String>),
    /// Peers reach the node at that address of a relay.
    Relayed(SocketAddr),
    /// No relay serves it any more.
    NotRelayed,
    /// A connection has taken another path, or is cut off.
    PathNews,
}

/// One end of a stream.
pub(super) struct Held {
    pub(super) peer: PublicKey,
    pub(super) label: ProtocolLabel,
    pub(super) link: usize,
    pub(super) stream: QuicStreamId,
    pub(super) purse: Purse,
    /// The last that is known of its path, once it is over.
    pub(super) path: (PathKind, SocketAddr),
}

impl Node {
    /// A node that runs from `now` on; everything left to chance follows from `seed`, but for keys.
    ///
    /// # Panics
    ///
    /// If the QUIC engine refuses its own settings.
    #[must_use]
    pub fn new(now: Instant, identity: Identity, config: NodeConfig, seed: &Seed) -> Self {
        let mut random = Random::new(seed.derive("node"));
        let links = Links::new(&identity, config.dead_after, random.bytes());
        Self {
            identity,
            config,
            now,
            random,
            links,
            known: Meetings::default(),
            meetings: BTreeMap::new(),
            streams: BTreeMap::new(),
            relays: Vec::new(),
            next: 0,
            relayed: Vec::new(),
            sockets: FIRST_FURTHER,
            relay_sockets: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The key that peers know it by.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.identity.public_key()
    }

    /// Signs exactly these bytes, as [`Transport::sign`](crate::Transport::sign) does.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.identity.signer().sign(message);
        signature.as_ref().try_into().expect("signatures of Ed25519 have 64 bytes")
    }

    /// Dials a peer where it listens.
    pub fn dial(&mut self, now: Instant, to: SocketAddr, peer: PublicKey, label: &ProtocolLabel) -> DialId {
        self.now = now;
        let id = DialId(self.number());
        let preface = preface(Purpose::Direct, label, false);
        let dial = Dial::of_caller(id, to, peer, preface);
        self.begin_dial(dial);
        self.settle();
        id
    }

    /// Gives a dial up.
    pub fn cancel(&mut self, now: Instant, dial: DialId) {
        self.now = now;
        self.cancel_dial(dial.0);
        self.settle();
    }

    /// Hands bytes to a stream, which sends them as soon as it may; it has no bound, as the real one has.
    pub fn write(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        self.now = now;
        if let Some(held) = self.streams.get_mut(&stream) {
            held.purse.unsent.extend(bytes);
        }
        self.settle();
    }

    /// Ends our direction of a stream after what was written.
    pub fn finish(&mut self, now: Instant, stream: StreamId) {
        self.now = now;
        if let Some(held) = self.streams.get_mut(&stream) {
            held.purse.is_finished = true;
        }
        self.settle();
    }

    /// What has come by a stream since it was last asked for.
    pub fn read(&mut self, stream: StreamId) -> Vec<u8> {
        self.streams.get_mut(&stream).map(|held| std::mem::take(&mut held.purse.got)).unwrap_or_default()
    }

    /// Whether the peer's direction is over: in good order, or why not.
    #[must_use]
    pub fn end(&self, stream: StreamId) -> Option<Result<(), String>> {
        match self.streams.get(&stream) {
            Some(held) => held.purse.end.clone(),
            None => Some(Err("no such stream".to_owned())),
        }
    }

    /// Whether all that was written has been acknowledged, the end included.
    #[must_use]
    pub fn is_delivered(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|held| held.purse.is_delivered)
    }

    /// Lets go of a stream: it ends in good order, in the background.
    pub fn drop_stream(&mut self, now: Instant, stream: StreamId) {
        self.now = now;
        if let Some(held) = self.streams.remove(&stream) {
            self.release(&held);
        }
        self.settle();
    }

    /// Whose a stream is, and what is spoken there.
    #[must_use]
    pub fn peer(&self, stream: StreamId) -> Option<(PublicKey, &ProtocolLabel)> {
        self.streams.get(&stream).map(|held| (held.peer, &held.label))
    }

    /// By what kind of road a stream goes now, and to which address.
    #[must_use]
    pub fn path(&self, stream: StreamId) -> Option<(PathKind, SocketAddr)> {
        let held = self.streams.get(&stream)?;
        Some(self.path_of(held.link).unwrap_or(held.path))
    }

    /// Fills `output` with bytes that only the two ends of a stream's connection know.
    pub fn export(&self, stream: StreamId, output: &mut [u8], label: &[u8]) -> Option<()> {
        let held = self.streams.get(&stream)?;
        self.links.get(held.link)?.connection.export(output, label, &[])
    }

    /// The streams with that peer, whoever opened them.
    pub fn streams_with(&self, peer: PublicKey) -> impl Iterator<Item = StreamId> {
        self.streams.iter().filter(move |(_, held)| held.peer == peer).map(|(id, _)| *id)
    }

    /// Whether the peer of a stream does not answer any more, as [`Connection::is_cut_off`](crate::Connection::is_cut_off) tells.
    #[must_use]
    pub fn is_cut_off(&self, stream: StreamId) -> bool {
        let link = self.streams.get(&stream).and_then(|held| self.links.get(held.link));
        link.is_some_and(|link| link.paths.is_cut_off())
    }

    /// Whether the connection of a stream is there still.
    #[must_use]
    pub fn is_connected(&self, stream: StreamId) -> bool {
        let link = self.streams.get(&stream).and_then(|held| self.links.get(held.link));
        link.is_some_and(|link| link.connection.end().is_none())
    }

    /// Asks a TURN server for an address.
    pub fn ask_for_relay(&mut self, now: Instant, server: SocketAddr, credentials: TurnCredentials) {
        self.now = now;
        self.forget_relay();
        let seed = Seed::from_bytes(self.random.bytes());
        let (link, family) = (TurnLink::Datagrams, AddressFamily::V4);
        let client = TurnClient::new(now, server, link, family, credentials, seed);
        let socket = SocketIndex(self.new_socket());
        self.relay_sockets.push(usize::from(socket.0));
        self.relays.push(AtRelay { socket, client, is_told: true });
        if self.relays.len() > MAX_RELAYS {
            self.relays.remove(0).client.close(now);
        }
        self.settle();
    }

    /// Where peers reach the node by a relay, if one serves it.
    #[must_use]
    pub fn relayed_address(&self) -> Option<SocketAddr> {
        self.relay_in_use()?.client.relayed_address()
    }

    /// Doubts the relay that a stream goes over, which is cut off; tells whether it was ours, so that another is to be asked for.
    pub fn doubt_relay(&mut self, stream: StreamId) -> bool {
        let link = self.streams.get(&stream).and_then(|held| self.links.get(held.link));
        let socket = link.map(|link| link.paths.active().source.socket);
        let is_ours = self.relay_in_use().is_some_and(|relay| Some(usize::from(relay.socket.0)) == socket);
        if is_ours {
            self.forget_relay();
        }
        is_ours
    }

    /// Nobody is told of the relay in use any more; connections that go over it go on as long as it serves.
    fn forget_relay(&mut self) {
        self.relays.iter_mut().for_each(|relay| relay.is_told = false);
    }

    pub(super) fn relay_in_use(&self) -> Option<&AtRelay> {
        self.relays.last().filter(|relay| relay.is_told)
    }

    pub(super) fn new_socket(&mut self) -> u16 {
        self.sockets += 1;
        self.sockets - 1
    }

    /// Whether that socket is, or was, an address at a relay.
    pub(super) fn is_relay(&self, socket: usize) -> bool {
        self.relay_sockets.contains(&socket)
    }

    /// How a connection does; `None` if it is over.
    pub(super) fn standing(&self, link: usize) -> Option<Standing> {
        let link_of = self.links.get(link).filter(|link| link.connection.end().is_none())?;
        let (way, changes) = (link_of.paths.active().source, link_of.changes);
        let (kind, _) = self.path_of(link)?;
        Some(Standing { way, kind, changes, is_cut_off: link_of.paths.is_cut_off() })
    }

    /// The host has another address from now on; its relay was another network's.
    pub fn network_changed(&mut self, now: Instant, local: SocketAddr) {
        (self.now, self.config.local) = (now, local);
        self.forget_relay();
        self.links.network_changed(now);
        self.settle();
    }

    /// Ends everything at once; peers are told.
    pub fn close(&mut self, now: Instant) {
        self.now = now;
        for meeting in self.meetings.keys().copied().collect::<Vec<_>>() {
            self.end_meeting(now, meeting);
        }
        self.streams.clear();
        self.links.close(now);
        // The farewells may go by the relay.
        self.settle();
        for relay in &mut self.relays {
            relay.client.close(now);
        }
        self.settle();
    }

    /// Connections, dials, meetings and streams that there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.links.len() + self.meetings.len() + self.streams.len() + self.links.dials() + self.known.len()
    }

    /// Connections to that peer, whoever made them.
    #[must_use]
    pub fn connections(&self, peer: PublicKey) -> usize {
        self.links.with(peer)
    }

    /// Dials that were begun once more, since the connection that they waited for had ended.
    #[must_use]
    pub fn dials_begun_again(&self) -> u64 {
        self.links.begun_again()
    }

    /// Takes in a datagram.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.now = now;
        let relay = self.relays.iter_mut().find(|relay| relay.socket == datagram.socket);
        match relay {
            // It comes late, for a relay that is over.
            None if self.relay_sockets.contains(&usize::from(datagram.socket.0)) => {}
            None => self.take(datagram),
            Some(AtRelay { socket, client, .. }) => {
                let (socket, inner) = (*socket, Datagram { socket: SocketIndex::MAIN, ..datagram });
                let received = match client.receive(now, inner) {
                    TurnReceived::Data { peer, payload } => Some((peer, payload)),
                    TurnReceived::Handled | TurnReceived::Ignored => None,
                };
                if let Some((source, bytes)) = received {
                    self.take(Datagram { socket, source, bytes });
                }
            }
        }
        self.settle();
    }

    fn take(&mut self, datagram: Datagram<'_>) {
        let from = UdpSource { socket: usize::from(datagram.socket.0), addr: datagram.source };
        if !is_stun(datagram.bytes) {
            return self.take_quic(from, datagram.bytes);
        }
        let link = peek_tag(datagram.bytes).and_then(|tag| self.links.checked(tag));
        match link {
            Some(link) => self.take_check(link, from, datagram.bytes),
            None => self.take_stun(datagram),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.links.handle_timeout(now);
        for relay in &mut self.relays {
            relay.client.handle_timeout(now);
        }
        self.handle_meeting_timers();
        self.settle();
    }

    /// When to call [`handle_timeout`](Node::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let relays = self.relays.iter().filter_map(|relay| relay.client.poll_timeout());
        let meetings = self.meetings.values().filter_map(Meeting::poll_timeout);
        meetings.chain(relays).chain(self.links.due()).min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front()
    }

    /// Sends from one of the sockets, the relay's among them.
    pub(super) fn send(&mut self, from: UdpSource, bytes: &[u8], hops: Option<u8>) {
        let socket = SocketIndex(u16::try_from(from.socket).expect("sockets are few"));
        if self.is_relay(from.socket) {
            // What the relay does not take is lost, like any datagram.
            if let Some(relay) = self.relays.iter_mut().find(|relay| relay.socket == socket) {
                let _ = relay.client.send(self.now, from.addr, bytes);
            }
            return;
        }
        let bytes = bytes.to_vec();
        self.transmits.push_back(Transmit { socket, destination: from.addr, bytes, hops });
    }

    /// Lets everything go on until nothing moves.
    pub(super) fn settle(&mut self) {
        while self.settle_links() | self.settle_meetings() | self.settle_relays() {}
        self.links.note_timers();
    }

    fn settle_relays(&mut self) -> bool {
        let Self { relays, transmits, events, .. } = self;
        let mut moved = false;
        relays.retain_mut(|AtRelay { socket, client, is_told }| {
            let mut is_over = false;
            while let Some(event) = client.poll_event() {
                moved = true;
                match event {
                    TurnEvent::Allocated { relayed, .. } if *is_told => {
                        events.push_back(NodeEvent::Relayed(relayed));
                    }
                    TurnEvent::Failed(_) | TurnEvent::Closed => is_over = true,
                    _ => {}
                }
            }
            while let Some(transmit) = client.poll_transmit() {
                transmits.push_back(Transmit { socket: *socket, ..transmit });
            }
            if is_over && *is_told {
                events.push_back(NodeEvent::NotRelayed);
            }
            !is_over
        });
        moved
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Node").field("key", &self.public_key()).finish_non_exhaustive()
    }
}

pub(super) fn preface(purpose: Purpose, label: &ProtocolLabel, stays: bool) -> Preface {
    Preface { purpose, label: label.clone(), token: None, network: NetworkName::default(), stays }
}

/// The settings of a transport that nobody has changed.
pub(super) fn limits() -> Limits {
    Limits::default()
}

/// Sockets beyond the one that listens: of punches, and those that stand for addresses at relays.
const FIRST_FURTHER: u16 = 1;
/// The one in use, and those that connections still go over.
const MAX_RELAYS: usize = 4;
