//! Punching with a relay at hand: direct where that works, by the relay where nothing else does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nat_traversal::protocol::turn::{
    AddressFamily, TurnClient, TurnCredentials, TurnEvent, TurnLink, TurnReceived,
};
use nat_traversal::protocol::{
    Datagram, Machine, PunchEvent, PunchKeys, Seed, SocketIndex, Transmit, UdpPuncher,
};
use nat_traversal::testing::{Link, Net, NodeId, Program, Relay, RelayRules, Running};
use nat_traversal::{AddrKind, MappedSocketAddr, PortRule};

use crate::nat_matrix::{Declared, SITES, declared, link};
use crate::world::{Site, World, place};

#[test]
fn with_a_relay_every_pair_meets_and_directly_where_it_can() {
    for a in SITES {
        for b in SITES {
            let soon = declared(a.name, b.name) == Declared::Soon;
            let names = (a.name, b.name);
            let (events, by_relay) = punch([a, b]);
            for event in events {
                let Some((at, PunchEvent::Punched { .. })) = event else { panic!("{names:?}: {events:?}") };
                assert!(at <= Duration::from_secs(1), "{names:?}: {at:?}");
            }
            // Those who would need luck have the relay before they have it.
            assert_eq!(by_relay, !soon, "{names:?}");
        }
    }
}

/// Lets both peers punch, each with an allocation at one server; when each has ended, and whether the relay carries it.
fn punch(sites: [Site; 2]) -> ([Option<(Duration, PunchEvent)>; 2], bool) {
    let seed = Seed::from(1);
    let mut net = Net::new(seed.derive("net"));
    let placed = [0, 1].map(|side| place(&mut net, side, sites[usize::from(side)], link()));
    let hosts = placed.map(|(host, _)| host);
    let credentials = TurnCredentials::new("user", "secret");
    let server = net.host(None, "203.0.113.20", Link::delay(Duration::from_millis(20)));
    let relay = Relay::new(&mut net, server, credentials.clone(), RelayRules::default());
    let mut relay = Running::new(relay);
    let at: SocketAddr = "203.0.113.20:3478".parse().unwrap();
    let mut peers = [0_u64, 1].map(|side| {
        let (link, family) = (TurnLink::Datagrams, AddressFamily::V4);
        let client = TurnClient::new(net.now(), at, link, family, credentials.clone(), side.into());
        Running::new(RelayedPeer { now: net.now(), client, puncher: None, events: VecDeque::new() })
    });
    let [first, second] = &mut peers;
    let programs: &mut [(NodeId, &mut dyn Program)] =
        &mut [(server, &mut relay), (hosts[0], first), (hosts[1], second)];
    net.run(programs, Duration::from_secs(1));
    // Only now, since a NAT that counts has given the relay a port, too.
    let mut world = World::map(net, seed, placed);

    let start = world.net.now();
    let endpoints = [0, 1].map(|side: usize| {
        let relayed = peers[side].machine().client.relayed_address().expect("an allocation");
        let relayed = MappedSocketAddr {
            addr: relayed,
            kind: AddrKind::Relayed,
            nat_restricted: true,
            ports: PortRule::Stable,
        };
        [&world.peers[side].addresses[..], &[relayed]].concat()
    });
    for (side, peer) in peers.iter_mut().enumerate() {
        let names: [&[u8]; 2] = [b"a", b"b"];
        let keys = PunchKeys::derive(b"secret", names[side], names[1 - side]).unwrap();
        let seed = world.seed.derive(["a", "b"][side]);
        let (ours, theirs) = (&endpoints[side], &endpoints[1 - side]);
        let puncher =
            UdpPuncher::new(start, ours, theirs, keys, seed).also_from(RELAY, theirs, start + RELAY_LATER);
        peer.machine_mut().begin(start, puncher, theirs);
    }
    let [first, second] = &mut peers;
    let programs: &mut [(NodeId, &mut dyn Program)] =
        &mut [(server, &mut relay), (hosts[0], first), (hosts[1], second)];
    world.net.run(programs, Duration::from_secs(3));
    let events = peers
        .each_ref()
        .map(|peer| peer.events().first().map(|(at, event)| (at.saturating_duration_since(start), *event)));
    let by_relay = events.iter().flatten().any(|(_, event)| match event {
        PunchEvent::Punched { socket, peer } => *socket == RELAY || peer.ip() == at.ip(),
        PunchEvent::Heard { .. } | PunchEvent::Hopeless(_) => false,
    });
    (events, by_relay)
}

/// A puncher and an allocation that share a socket, as a program would drive them.
#[derive(Debug)]
struct RelayedPeer {
    now: Instant,
    client: TurnClient,
    puncher: Option<UdpPuncher>,
    events: VecDeque<PunchEvent>,
}

impl RelayedPeer {
    fn begin(&mut self, now: Instant, puncher: UdpPuncher, theirs: &[MappedSocketAddr]) {
        self.now = now;
        self.puncher = Some(puncher);
        for endpoint in theirs {
            self.client.permit(now, endpoint.addr.ip()).unwrap();
        }
    }
}

impl Machine for RelayedPeer {
    type Event = PunchEvent;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.now = now;
        let datagram = match self.client.receive(now, datagram) {
            TurnReceived::Data { peer, payload } => Datagram { socket: RELAY, source: peer, bytes: payload },
            TurnReceived::Handled => return,
            TurnReceived::Ignored => datagram,
        };
        if let Some(puncher) = &mut self.puncher {
            puncher.handle_datagram(now, datagram);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.client.handle_timeout(now);
        if let Some(puncher) = &mut self.puncher {
            puncher.handle_timeout(now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        while let Some(transmit) = self.puncher.as_mut().and_then(Machine::poll_transmit) {
            if transmit.socket != RELAY {
                return Some(transmit);
            }
            // What the relay does not take is lost, like any packet.
            let sent = self.client.send(self.now, transmit.destination, &transmit.bytes);
            sent.unwrap_or_else(|error| assert_ne!(error.to_string(), ""));
        }
        self.client.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let puncher = self.puncher.as_ref().and_then(Machine::poll_timeout);
        puncher.into_iter().chain(self.client.poll_timeout()).min()
    }

    fn poll_event(&mut self) -> Option<PunchEvent> {
        while let Some(event) = self.client.poll_event() {
            assert!(!matches!(event, TurnEvent::Failed(_)), "{event:?}");
        }
        self.events.extend(self.puncher.as_mut().and_then(Machine::poll_event));
        self.events.pop_front()
    }
}

/// Stands for the allocation among the puncher's sockets.
const RELAY: SocketIndex = SocketIndex(u16::MAX);

/// The relay's turn comes when direct ways have had theirs.
const RELAY_LATER: Duration = Duration::from_millis(300);
