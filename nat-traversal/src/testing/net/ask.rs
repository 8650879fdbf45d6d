//! Routers that are asked for ports.

use std::net::SocketAddr;

use super::packet::Packet;
use super::{DEFAULT_HOPS, Inside, Net, NodeId, Passage};
use crate::protocol::port_map::SERVER_PORT;
use crate::protocol::{Datagram, Machine as _, SocketIndex, Transmit};
use crate::testing::nat::Layer;

impl Net {
    /// Sends what the router of a NAT has to tell all hosts behind it.
    pub fn announce(&mut self, nat: NodeId) {
        self.send_of_router(nat);
    }

    /// Whether a packet from inside was for the NAT's own router, which has answered then.
    pub(super) fn ask_router(&mut self, nat: NodeId, packet: &Packet) -> bool {
        let now = self.now;
        let Some((inside, router)) = self.routers.get_mut(&nat) else { return false };
        if packet.destination != SocketAddr::new(*inside, SERVER_PORT) || packet.layer != Layer::Udp {
            return false;
        }
        let datagram = Datagram { socket: SocketIndex::MAIN, source: packet.source, bytes: &packet.payload };
        router.handle_datagram(now, datagram);
        self.note(packet, Passage::Delivered);
        self.send_of_router(nat);
        true
    }

    fn send_of_router(&mut self, nat: NodeId) {
        while let Some((source, transmit)) = self.routers.get_mut(&nat).and_then(|(inside, router)| {
            Some((SocketAddr::new(*inside, SERVER_PORT), router.poll_transmit()?))
        }) {
            for destination in self.hosts_meant(nat, &transmit) {
                let packet = Packet {
                    layer: Layer::Udp,
                    source,
                    destination,
                    hops: DEFAULT_HOPS,
                    payload: transmit.bytes.clone(),
                    segment: None,
                };
                self.note(&packet, Passage::Sent);
                self.cross_inside(nat, packet);
            }
        }
    }

    /// One host, or all behind the NAT.
    fn hosts_meant(&self, nat: NodeId, transmit: &Transmit) -> Vec<SocketAddr> {
        if !transmit.destination.ip().is_multicast() {
            return vec![transmit.destination];
        }
        let hosts = self.nodes.iter().filter(|node| node.behind == Some(nat));
        hosts
            .filter(|node| matches!(node.inside, Inside::Host(_)))
            .map(|node| SocketAddr::new(node.addresses[0], transmit.destination.port()))
            .collect()
    }
}
