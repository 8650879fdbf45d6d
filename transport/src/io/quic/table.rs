use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use nat_traversal::protocol::Seed;

use super::{Link, link::Kind, ways::Ways};
use crate::{
    PublicKey,
    io::{
        dial::DialOrder,
        entropy,
        udp::{Received, UdpSocket},
    },
    protocol::{
        paths::{CheckTag, UdpSource, Way},
        quic::{
            DialError, PathMtu, QuicConnection, QuicEndpoint, QuicHandle, Routed, ToConnection, ToEndpoint,
        },
    },
};

/// All connections, and who they are with.
#[derive(Debug)]
pub(super) struct Table {
    endpoint: QuicEndpoint,
    links: BTreeMap<usize, Arc<Link>>,
    /// Dialled connections that further dials to the same endpoint share. Not those to another endpoint of the same peer:
    /// whoever listens there may be another part of it, and not get to see a stream that came in elsewhere.
    peers: BTreeMap<(PublicKey, UdpSource), Arc<Link>>,
    /// Where each dial in progress waits, by ticket.
    dials: BTreeMap<u64, Arc<Link>>,
    /// Dials sent on to a connection of the peer's that is not up here yet, by ticket; each is among `dials` too.
    parked: Vec<(u64, DialOrder)>,
    /// Connections by the names of their path checks.
    checks: BTreeMap<CheckTag, Arc<Link>>,
    next_socket: usize,
    next_link: u64,
    next_ticket: u64,
}

/// Bytes to send back to whoever sent something.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) bytes: Vec<u8>,
}

/// What one batch of datagrams brought for connections. Flat, since it is large and moved about.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// Each with how many of the events are its own.
    pub(super) links: Vec<(Arc<Link>, usize)>,
    pub(super) events: Vec<Input>,
}

/// One datagram for a connection, and how it came.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) event: ToConnection,
    pub(super) way: Way,
    pub(super) bytes: usize,
}

impl Inputs {
    fn push(&mut self, link: &Arc<Link>, event: Option<Input>) {
        let count = usize::from(event.is_some());
        match self.links.last_mut() {
            Some((last, counted)) if Arc::ptr_eq(last, link) => *counted += count,
            _ => self.links.push((link.clone(), count)),
        }
        self.events.extend(event);
    }
}

impl Table {
    pub(super) fn new(endpoint: QuicEndpoint) -> Self {
        Self {
            endpoint,
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            dials: BTreeMap::new(),
            parked: Vec::new(),
            checks: BTreeMap::new(),
            next_socket: 0,
            next_link: 0,
            next_ticket: 0,
        }
    }

    pub(super) fn next_socket(&mut self) -> usize {
        self.next_socket += 1;
        self.next_socket
    }

    pub(super) fn next_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn dial_begins(&mut self, ticket: u64, link: &Arc<Link>) {
        self.dials.insert(ticket, link.clone());
    }

    /// The connection that a dial in progress waits for.
    pub(super) fn waiting_on(&self, ticket: u64) -> Option<Arc<Link>> {
        self.dials.get(&ticket).cloned()
    }

    /// Where the dial waited, if it was not over before.
    pub(super) fn dial_is_over(&mut self, ticket: u64) -> Option<Arc<Link>> {
        self.parked.retain(|(parked, _)| *parked != ticket);
        self.dials.remove(&ticket)
    }

    /// The connections that dials in progress wait for.
    pub(super) fn dialling(&self) -> Vec<Arc<Link>> {
        let mut links: Vec<_> = self.dials.values().cloned().collect();
        links.dedup_by(|one, other| Arc::ptr_eq(one, other));
        links
    }

    /// The dial waits on another connection from now on; tells whether anybody still waits for it.
    pub(super) fn dial_moves(&mut self, ticket: u64, link: &Arc<Link>) -> bool {
        match self.dials.entry(ticket) {
            Entry::Occupied(mut entry) => {
                entry.insert(link.clone());
                true
            }
            Entry::Vacant(_) => false,
        }
    }

    /// The dial waits for the peer's connection.
    pub(super) fn park(&mut self, ticket: u64, order: DialOrder) {
        if self.dials.contains_key(&ticket) {
            self.parked.push((ticket, order));
        }
    }

    /// The dials that wait for a connection of that peer's.
    pub(super) fn unpark(&mut self, peer: PublicKey) -> Vec<(u64, DialOrder)> {
        self.parked.extract_if(.., |(_, order)| order.expected == peer).collect()
    }

    /// Those that wait for one in vain, as the connection that they were sent on from has ended.
    pub(super) fn unpark_from(&mut self, link: &Arc<Link>) -> Vec<(u64, DialOrder)> {
        let dials = &self.dials;
        let from = |ticket: &u64| dials.get(ticket).is_some_and(|known| Arc::ptr_eq(known, link));
        self.parked.extract_if(.., |(ticket, _)| from(ticket)).collect()
    }

    /// The connections to that peer that further dials share.
    pub(super) fn dialled_to(&self, peer: PublicKey) -> Vec<Arc<Link>> {
        self.peers.iter().filter(|((key, _), _)| *key == peer).map(|(_, link)| link.clone()).collect()
    }

    pub(super) fn numbered(&self, number: u64) -> Option<Arc<Link>> {
        self.links.values().find(|link| link.number() == number).cloned()
    }

    /// Finds out whose datagram it is.
    pub(super) fn route(
        &mut self,
        now: Instant,
        socket: &Arc<UdpSocket>,
        received: Received,
        welcome: Option<PathMtu>,
        inputs: &mut Inputs,
        answers: &mut Vec<Answer>,
    ) {
        let Received { from, to, ecn, bytes } = received;
        let source = UdpSource { socket: socket.number(), addr: from };
        let (way, length) = (Way { source, local: to }, bytes.len());
        match self.endpoint.handle_datagram(now, source, ecn, bytes, welcome) {
            Routed::Connection(handle, input) => {
                if let Some(link) = self.links.get(&handle.0) {
                    inputs.push(link, Some(Input { event: input, way, bytes: length }));
                }
            }
            Routed::New(handle, connection) => {
                let ways = Ways::new(socket, from, to, true, Seed::from_bytes(entropy::bytes()));
                let link = self.enter(handle, connection, ways, Kind::Incoming { begun: now });
                inputs.push(&link, None);
            }
            Routed::Answer(bytes) => answers.push(Answer { to: from, from: to, bytes }),
            Routed::Nothing => {}
        }
    }

    fn enter(
        &mut self,
        handle: QuicHandle,
        connection: Box<QuicConnection>,
        ways: Ways,
        kind: Kind,
    ) -> Arc<Link> {
        self.next_link += 1;
        let link = Link::new(self.next_link, handle, connection, ways, kind);
        self.links.insert(handle.0, link.clone());
        link
    }

    /// The connection that path checks with that tag belong to.
    pub(super) fn checked(&self, tag: CheckTag) -> Option<&Arc<Link>> {
        self.checks.get(&tag)
    }

    /// A connection that a dial may share, up or being made.
    pub(super) fn shared(&self, expected: PublicKey, to: UdpSource) -> Option<Arc<Link>> {
        self.peers.get(&(expected, to)).cloned()
    }

    /// Begins a connection; `alone`: no other dial shares it.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        socket: &Arc<UdpSocket>,
        remote: SocketAddr,
        expected: PublicKey,
        path_mtu: PathMtu,
        alone: bool,
    ) -> Result<Arc<Link>, DialError> {
        let to = UdpSource { socket: socket.number(), addr: remote };
        let (handle, connection) = self.endpoint.dial(now, to, expected, path_mtu, alone)?;
        let ways = Ways::new(socket, remote, None, false, Seed::from_bytes(entropy::bytes()));
        let kind = if alone { Kind::Alone } else { Kind::Shared { expected } };
        let link = self.enter(handle, connection, ways, kind);
        if !alone {
            self.peers.insert((expected, to), link.clone());
        }
        Ok(link)
    }

    /// Hands on what a connection said. A connection that is gone says nothing any more.
    pub(super) fn handle_event(&mut self, link: &Arc<Link>, event: ToEndpoint) -> Option<ToConnection> {
        if !self.knows(link) {
            return None;
        }
        let handle = link.handle();
        if event.is_drained() {
            self.links.remove(&handle.0);
            self.checks.retain(|_, known| !Arc::ptr_eq(known, link));
            self.unshare(link);
        }
        self.endpoint.handle_event(handle, event)
    }

    /// Whether its handle is still its own.
    fn knows(&self, link: &Arc<Link>) -> bool {
        self.links.get(&link.handle().0).is_some_and(|known| Arc::ptr_eq(known, link))
    }

    /// The connection is up. What is lent to its window.
    pub(super) fn connected(&mut self, link: &Arc<Link>, tag: Option<CheckTag>) -> u64 {
        if let Some(tag) = tag.filter(|_| self.knows(link)) {
            self.checks.insert(tag, link.clone());
        }
        if self.knows(link) { self.endpoint.lend_first_window(link.handle()) } else { 0 }
    }

    pub(super) fn lend_window(&mut self, link: &Arc<Link>, wanted: u64) -> u64 {
        if self.knows(link) { self.endpoint.lend_window(link.handle(), wanted) } else { 0 }
    }

    pub(super) fn admitted(&mut self, link: &Arc<Link>) {
        if self.knows(link) {
            self.endpoint.admitted(link.handle());
        }
    }

    /// No further dial shares it.
    pub(super) fn unshare(&mut self, link: &Arc<Link>) {
        if matches!(link.kind(), Kind::Shared { .. }) {
            self.peers.retain(|_, known| !Arc::ptr_eq(known, link));
        }
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.links.values().cloned().collect()
    }

    pub(super) fn take_links(&mut self) -> Vec<Arc<Link>> {
        self.peers.clear();
        self.dials.clear();
        self.parked.clear();
        self.checks.clear();
        std::mem::take(&mut self.links).into_values().collect()
    }
}
