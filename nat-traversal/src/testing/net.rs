use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::digest;

use super::{Link, Nat, Program, Router, Segment, SegmentKind, TcpStack};
use crate::protocol::{Datagram, Random, Seed, SocketIndex, Transmit};
use crate::testing::nat::{Layer, Table};

mod ask;
mod packet;

use packet::{Delivery, Moving, Packet};

/// A network in memory with its own time; see the [module](super).
#[derive(Debug)]
pub struct Net {
    start: Instant,
    now: Instant,
    random: Random,
    nodes: Vec<Node>,
    /// Packets by the time at which they arrive and, within it, by the order in which they were sent.
    moving: BTreeMap<(Instant, u64), Moving>,
    sent: u64,
    trace: Vec<TraceEntry>,
    /// The NATs that can be asked for ports, and where.
    routers: BTreeMap<NodeId, (IpAddr, Router)>,
}

/// A host or a NAT of a [`Net`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

/// A datagram that a host received outside of [`Net::run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The socket it arrived on.
    pub socket: SocketIndex,
    /// Where it came from.
    pub source: SocketAddr,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// One thing that happened to one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEntry {
    /// When, from the start of the network.
    pub at: Duration,
    /// The packet's source as it was there.
    pub source: SocketAddr,
    /// Its destination as it was there.
    pub destination: SocketAddr,
    /// How large its payload was.
    pub payload_bytes: usize,
    /// What it said, if it was of TCP.
    pub segment: Option<SegmentKind>,
    /// What happened.
    pub passage: Passage,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// A host sent it.
    Sent,
    /// It arrived at a socket.
    Delivered,
    /// The link lost it.
    Lost,
    /// A NAT kept it out, or let no such packet out.
    Filtered,
    /// It had passed as many routers as it may.
    OutOfHops,
    /// Nobody has that address or port there.
    NoSuchPlace,
}

impl Net {
    /// An internet without hosts. All that is left to chance in it follows from `seed`.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        let start = super::epoch();
        Self {
            start,
            now: start,
            random: Random::new(seed),
            nodes: Vec::new(),
            moving: BTreeMap::new(),
            sent: 0,
            trace: Vec::new(),
            routers: BTreeMap::new(),
        }
    }

    /// Adds a host on the internet, or behind a NAT.
    ///
    /// # Panics
    ///
    /// If `address` is no IP address.
    pub fn host(&mut self, behind: Option<NodeId>, address: &str, link: Link) -> NodeId {
        self.node(behind, address, link, Inside::Host(Vec::new()))
    }

    /// Adds a NAT on the internet, or behind another NAT; `address` is its outside one.
    ///
    /// # Panics
    ///
    /// If `address` is no IP address.
    pub fn nat(&mut self, behind: Option<NodeId>, address: &str, link: Link, nat: Nat) -> NodeId {
        let table = Table::new(nat, &mut self.random);
        self.node(behind, address, link, Inside::Nat(table))
    }

    /// Lets a NAT forward ports for the hosts behind it when they ask by PCP or NAT-PMP at `inside`, its address on their
    /// network.
    ///
    /// # Panics
    ///
    /// If `inside` is no IP address.
    pub fn add_router(&mut self, nat: NodeId, inside: &str, router: Router) {
        self.routers.insert(nat, (inside.parse().expect("an IP address"), router));
    }

    /// The router of a NAT, to look at or to change. What it sends to all hosts goes out with [`Net::announce`].
    pub fn router(&mut self, nat: NodeId) -> Option<&mut Router> {
        self.routers.get_mut(&nat).map(|(_, router)| router)
    }

    /// Gives a host one more address, so that it can serve at both.
    ///
    /// # Panics
    ///
    /// If `address` is no IP address.
    pub fn add_address(&mut self, host: NodeId, address: &str) {
        self.nodes[host.0].addresses.push(address.parse().expect("an IP address"));
    }

    /// The first address of a host, or the outside one of a NAT.
    #[must_use]
    pub fn address(&self, node: NodeId) -> IpAddr {
        self.nodes[node.0].addresses[0]
    }

    /// Opens a socket of a host at its first address.
    pub fn bind(&mut self, host: NodeId, port: u16) -> SocketIndex {
        let address = SocketAddr::new(self.nodes[host.0].addresses[0], port);
        self.bind_at(host, address)
    }

    /// Opens a socket of a host.
    ///
    /// # Panics
    ///
    /// If `host` is a NAT.
    pub fn bind_at(&mut self, host: NodeId, address: SocketAddr) -> SocketIndex {
        let sockets = self.nodes[host.0].sockets();
        sockets.push(address);
        SocketIndex(u16::try_from(sockets.len() - 1).expect("far fewer sockets than 65,536"))
    }

    /// Takes a host elsewhere: behind another NAT, or onto the internet. Its sockets keep their ports; what is on its way to where it was
    /// is lost.
    ///
    /// # Panics
    ///
    /// If `host` is a NAT or `address` no IP address.
    pub fn relocate(&mut self, host: NodeId, behind: Option<NodeId>, address: &str, link: Link) {
        let address = address.parse().expect("an IP address");
        let node = &mut self.nodes[host.0];
        (node.behind, node.link, node.addresses) = (behind, link, vec![address]);
        (node.up, node.down) = (None, None);
        for socket in node.sockets() {
            socket.set_ip(address);
        }
    }

    /// Makes a NAT forget all its mappings.
    pub fn flush(&mut self, nat: NodeId) {
        if let Inside::Nat(table) = &mut self.nodes[nat.0].inside {
            table.flush();
        }
    }

    /// The time in the network.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// How long the network has been running, in its own time.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.duration_since(self.start)
    }

    /// Everything that happened to every packet.
    #[must_use]
    pub fn trace(&self) -> &[TraceEntry] {
        &self.trace
    }

    /// A digest of the trace: equal for equal runs.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for entry in &self.trace {
            context.update(format!("{entry:?}").as_bytes());
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Sends one datagram from a host.
    ///
    /// # Panics
    ///
    /// If the host has no such socket.
    pub fn send(&mut self, host: NodeId, socket: SocketIndex, destination: SocketAddr, payload: &[u8]) {
        self.transmit(host, Transmit { socket, destination, bytes: payload.to_vec(), hops: None });
    }

    /// Waits at most `patience` for a datagram to a host that runs no program.
    pub fn receive(&mut self, host: NodeId, patience: Duration) -> Option<Arrived> {
        let deadline = self.now + patience;
        while let Some(time) = self.moving.keys().next().map(|key| key.0).filter(|time| *time <= deadline) {
            self.now = time;
            if let Some((at, Delivery::Datagram(arrived))) = self.step()
                && at == host
            {
                return Some(arrived);
            }
        }
        self.now = deadline;
        None
    }

    /// Runs programs on hosts until all that are to end have ended, nothing is left to happen, or `patience` is over.
    /// A datagram to a host without a program is lost.
    pub fn run(&mut self, programs: &mut [(NodeId, &mut dyn Program)], patience: Duration) {
        let deadline = self.now + patience;
        for index in 0..programs.len() {
            programs[index].1.collect(self.now);
            self.drain(programs, index);
        }
        while !all_ended(programs) {
            let timer = programs.iter().filter_map(|(_, program)| program.poll_timeout()).min();
            let packet = self.moving.keys().next().map(|key| key.0);
            let Some(next) = timer.into_iter().chain(packet).min() else { return };
            if next > deadline {
                break;
            }
            self.now = self.now.max(next);
            if packet.is_some_and(|packet| packet <= next) {
                self.deliver(programs);
            } else {
                self.wake(programs);
            }
        }
        if !all_ended(programs) {
            self.now = self.now.max(deadline);
        }
    }

    fn deliver(&mut self, programs: &mut [(NodeId, &mut dyn Program)]) {
        let Some((host, delivery)) = self.step() else { return };
        match delivery {
            Delivery::Datagram(arrived) => {
                let Some(index) = programs.iter().position(|(at, _)| *at == host) else { return };
                let datagram =
                    Datagram { socket: arrived.socket, source: arrived.source, bytes: &arrived.bytes };
                programs[index].1.handle_datagram(self.now, datagram);
                self.drain(programs, index);
            }
            Delivery::Segment(segment) => match programs.iter().position(|(at, _)| *at == host) {
                Some(index) => {
                    programs[index].1.handle_segment(self.now, segment);
                    self.drain(programs, index);
                }
                None => {
                    let mut stack = TcpStack::default();
                    stack.handle_segment(self.now, segment);
                    while let Some(refusal) = stack.poll_segment() {
                        self.transmit_segment(host, refusal);
                    }
                }
            },
        }
    }

    fn wake(&mut self, programs: &mut [(NodeId, &mut dyn Program)]) {
        for index in 0..programs.len() {
            if programs[index].1.poll_timeout().is_some_and(|due| due <= self.now) {
                programs[index].1.handle_timeout(self.now);
                self.drain(programs, index);
            }
        }
    }

    fn drain(&mut self, programs: &mut [(NodeId, &mut dyn Program)], index: usize) {
        let (host, program) = &mut programs[index];
        while let Some(transmit) = program.poll_transmit() {
            self.transmit(*host, transmit);
        }
        while let Some(segment) = program.poll_segment() {
            self.transmit_segment(*host, segment);
        }
    }

    fn transmit_segment(&mut self, host: NodeId, segment: Segment) {
        let Segment { source, destination, hops, kind } = segment;
        let packet = Packet::of_segment(source, destination, hops, kind);
        self.note(&packet, Passage::Sent);
        self.climb(host, packet);
    }

    fn transmit(&mut self, host: NodeId, transmit: Transmit) {
        let source = self.socket(host, transmit.socket);
        let packet = Packet {
            layer: Layer::Udp,
            source,
            destination: transmit.destination,
            hops: transmit.hops.unwrap_or(DEFAULT_HOPS),
            payload: transmit.bytes,
            segment: None,
        };
        self.note(&packet, Passage::Sent);
        self.climb(host, packet);
    }

    /// The address of a host's socket, opened now if it has none of that index.
    fn socket(&mut self, host: NodeId, index: SocketIndex) -> SocketAddr {
        while self.nodes[host.0].sockets().len() <= usize::from(index.0) {
            let port = FIRST_EPHEMERAL + u16::try_from(self.random.below(EPHEMERALS)).expect("below 16,384");
            if !self.nodes[host.0].sockets().iter().any(|socket| socket.port() == port) {
                self.bind(host, port);
            }
        }
        self.nodes[host.0].sockets()[usize::from(index.0)]
    }

    fn node(&mut self, behind: Option<NodeId>, address: &str, link: Link, inside: Inside) -> NodeId {
        let addresses = vec![address.parse().expect("an IP address")];
        self.nodes.push(Node { behind, addresses, link, up: None, down: None, inside });
        NodeId(self.nodes.len() - 1)
    }

    fn note(&mut self, packet: &Packet, passage: Passage) {
        self.trace.push(TraceEntry {
            at: self.elapsed(),
            source: packet.source,
            destination: packet.destination,
            payload_bytes: packet.payload_bytes(),
            segment: packet.segment.clone(),
            passage,
        });
    }
}

/// A host or a NAT.
#[derive(Debug)]
struct Node {
    behind: Option<NodeId>,
    addresses: Vec<IpAddr>,
    link: Link,
    /// When each direction of the link has sent all it was given, if it has a rate.
    up: Option<Instant>,
    down: Option<Instant>,
    inside: Inside,
}

#[derive(Debug)]
enum Inside {
    Host(Vec<SocketAddr>),
    Nat(Table),
}

impl Node {
    fn sockets(&mut self) -> &mut Vec<SocketAddr> {
        match &mut self.inside {
            Inside::Host(sockets) => sockets,
            Inside::Nat(_) => panic!("a NAT has no sockets"),
        }
    }
}

/// Whether all programs that are to end have ended; if there is none, a run goes on until its patience is over.
fn all_ended(programs: &[(NodeId, &mut dyn Program)]) -> bool {
    let mut to_end = programs.iter().filter(|(_, program)| program.is_to_end()).peekable();
    to_end.peek().is_some() && to_end.all(|(_, program)| program.has_ended())
}

/// What systems give a packet if nobody says otherwise.
const DEFAULT_HOPS: u8 = 64;

/// Where ports chosen by the system begin (RFC 6335, section 6), and how many there are.
const FIRST_EPHEMERAL: u16 = 49_152;
const EPHEMERALS: u64 = 16_384;

#[cfg(test)]
mod tests;
