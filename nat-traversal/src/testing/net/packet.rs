//! How a packet moves: up its host's link, through NATs, across a segment and down again.

use std::net::SocketAddr;

use super::{Arrived, Inside, Net, NodeId, Passage};
use crate::protocol::SocketIndex;
use crate::testing::nat::{Layer, Unsolicited};
use crate::testing::tcp::{Segment, SegmentKind};

/// A packet as it is at one place.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) layer: Layer,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) hops: u8,
    pub(super) payload: Vec<u8>,
    /// What it says, if it is of TCP; the payload is empty then.
    pub(super) segment: Option<SegmentKind>,
}

/// A packet on its way to a place.
#[derive(Debug)]
pub(super) struct Moving {
    to: Place,
    packet: Packet,
}

/// What a host received.
#[derive(Debug)]
pub(super) enum Delivery {
    Datagram(Arrived),
    Segment(Segment),
}

/// Where a packet arrives.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At a host or a NAT, from the side where the internet is.
    Node(NodeId),
    /// On the segment that hosts and NATs of this upper neighbour share; `None` is the internet.
    Segment(Option<NodeId>),
}

impl Net {
    /// Moves the packet that arrives next; returns what a host received.
    pub(super) fn step(&mut self) -> Option<(NodeId, Delivery)> {
        let (_, Moving { to, packet }) = self.moving.pop_first()?;
        match to {
            Place::Segment(upper) => self.cross(upper, packet),
            Place::Node(node) => match self.nodes[node.0].inside {
                Inside::Host(_) => return self.receive_at(node, packet),
                Inside::Nat(_) => self.enter(node, packet),
            },
        }
        None
    }

    /// Sends a packet up the link of `node`.
    pub(super) fn climb(&mut self, node: NodeId, packet: Packet) {
        let upper = self.nodes[node.0].behind;
        self.pass_link(node, true, Place::Segment(upper), packet);
    }

    /// A packet is on a segment: its destination is there, or it goes on through the NAT above.
    fn cross(&mut self, upper: Option<NodeId>, mut packet: Packet) {
        let address = packet.destination.ip();
        let here = |node: &super::Node| node.behind == upper && node.addresses.contains(&address);
        if let Some(neighbour) = self.nodes.iter().position(here).map(NodeId) {
            if upper.is_none() && !take_hop(&mut packet) {
                return self.note(&packet, Passage::OutOfHops);
            }
            return self.pass_link(neighbour, false, Place::Node(neighbour), packet);
        }
        match upper {
            Some(nat) => self.leave(nat, packet),
            None => self.note(&packet, Passage::NoSuchPlace),
        }
    }

    /// A packet from inside goes through a NAT, up or straight back in.
    fn leave(&mut self, nat: NodeId, mut packet: Packet) {
        if self.ask_router(nat, &packet) {
            return;
        }
        let (now, outside) = (self.now, self.nodes[nat.0].addresses[0]);
        let hairpin = packet.destination.ip() == outside;
        let Inside::Nat(table) = &mut self.nodes[nat.0].inside else {
            unreachable!("only NATs have an inside")
        };
        let rules = *table.nat();
        if (hairpin && !rules.hairpin) || (rules.blocks_udp && packet.layer == Layer::Udp) {
            return self.note(&packet, Passage::Filtered);
        }
        if !take_hop(&mut packet) {
            return self.note(&packet, Passage::OutOfHops);
        }
        let port = table.outbound(now, packet.layer, packet.source, packet.destination, &mut self.random);
        packet.source = SocketAddr::new(outside, port);
        if hairpin {
            self.enter(nat, packet);
        } else {
            self.climb(nat, packet);
        }
    }

    /// A packet from outside reaches a NAT.
    fn enter(&mut self, nat: NodeId, mut packet: Packet) {
        let now = self.now;
        let Inside::Nat(table) = &mut self.nodes[nat.0].inside else {
            unreachable!("only NATs have an inside")
        };
        let (layer, port) = (packet.layer, packet.destination.port());
        let forwarded =
            self.routers.get(&nat).and_then(|(_, router)| router.forward(now, layer.number(), port));
        let Some(inside) = forwarded.or_else(|| table.inbound(now, layer, port, packet.source)) else {
            if table.nat().unsolicited == Unsolicited::Reject {
                self.refuse(nat, &packet);
            }
            return self.note(&packet, Passage::Filtered);
        };
        packet.destination = inside;
        if !take_hop(&mut packet) {
            return self.note(&packet, Passage::OutOfHops);
        }
        self.cross_inside(nat, packet);
    }

    /// A NAT refuses a connection to nobody inside.
    fn refuse(&mut self, nat: NodeId, packet: &Packet) {
        if packet.segment.as_ref().is_some_and(|kind| *kind != SegmentKind::Rst) {
            let (source, destination) = (packet.destination, packet.source);
            self.climb(nat, Packet::of_segment(source, destination, None, SegmentKind::Rst));
        }
    }

    pub(super) fn cross_inside(&mut self, nat: NodeId, packet: Packet) {
        let address = packet.destination.ip();
        let here = |node: &super::Node| node.behind == Some(nat) && node.addresses.contains(&address);
        match self.nodes.iter().position(here).map(NodeId) {
            Some(neighbour) => self.pass_link(neighbour, false, Place::Node(neighbour), packet),
            None => self.note(&packet, Passage::NoSuchPlace),
        }
    }

    fn receive_at(&mut self, host: NodeId, packet: Packet) -> Option<(NodeId, Delivery)> {
        if packet.segment.is_some() {
            self.note(&packet, Passage::Delivered);
            let Packet { source, destination, segment, .. } = packet;
            let segment = segment.map(|kind| Segment { source, destination, hops: None, kind });
            return segment.map(|segment| (host, Delivery::Segment(segment)));
        }
        let Some(index) = self.nodes[host.0].sockets().iter().position(|at| *at == packet.destination) else {
            self.note(&packet, Passage::NoSuchPlace);
            return None;
        };
        self.note(&packet, Passage::Delivered);
        let socket = SocketIndex(u16::try_from(index).expect("sockets are numbered by u16"));
        Some((host, Delivery::Datagram(Arrived { socket, source: packet.source, bytes: packet.payload })))
    }

    fn pass_link(&mut self, node: NodeId, upwards: bool, to: Place, mut packet: Packet) {
        let routers = self.nodes[node.0].link.hops;
        if packet.hops <= routers {
            return self.note(&packet, Passage::OutOfHops);
        }
        packet.hops -= routers;
        let size = packet.payload_bytes() + HEADERS_BYTES;
        let owner = &mut self.nodes[node.0];
        let link = owner.link;
        let free = if upwards { &mut owner.up } else { &mut owner.down };
        match link.pass(self.now, free, size, &mut self.random) {
            Some(arrival) => {
                self.sent += 1;
                self.moving.insert((arrival, self.sent), Moving { to, packet });
            }
            None => self.note(&packet, Passage::Lost),
        }
    }
}

impl Packet {
    pub(super) fn of_segment(
        source: SocketAddr,
        destination: SocketAddr,
        hops: Option<u8>,
        kind: SegmentKind,
    ) -> Self {
        let hops = hops.unwrap_or(super::DEFAULT_HOPS);
        Self { layer: Layer::Tcp, source, destination, hops, payload: Vec::new(), segment: Some(kind) }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        match &self.segment {
            Some(SegmentKind::Data(_, bytes)) => bytes.len(),
            _ => self.payload.len(),
        }
    }
}

/// Counts one router; false if that was one too many.
const fn take_hop(packet: &mut Packet) -> bool {
    packet.hops = packet.hops.saturating_sub(1);
    packet.hops > 0
}

/// Ethernet, IPv4 and UDP around a payload, for links with a rate.
const HEADERS_BYTES: usize = 42;
