//! Punching among liars, forgers and the absent.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nat_traversal::protocol::stun::{Class, Message, MessageBuilder, Method, ServerAddresses};
use nat_traversal::protocol::{
    Datagram, Machine, Obstacle, PunchEvent, PunchKeys, Seed, SocketIndex, StunServer, Transmit, UdpPuncher,
};
use nat_traversal::testing::{Link, Nat, Net, Passage, Program, Running, epoch};
use nat_traversal::{
    MappedSocketAddr, MappedTcpSocket, MappedUdpSocket, MappingConfig, MappingContext, PortRule,
    PunchOptions, PunchedUdpSocket, gen_rendezvous_info, tcp_punch_hole,
};

use crate::nat_matrix::link;
use crate::tcp_world::TcpWorld;
use crate::world::{Outcome, Site, World, place};

const EASY: Site = Site { name: "easy", nats: &[Nat::easy()] };
const HARD: Site = Site { name: "hard", nats: &[Nat::hard()] };
const OPEN: Site = Site { name: "open", nats: &[] };

#[test]
fn without_servers_or_with_silent_ones_open_hosts_meet_and_others_are_told() {
    let silent = || vec![bad(Manner::Silent)];
    for servers in [Vec::new, silent] {
        let (outcome, _) = punch([OPEN, OPEN], servers());
        assert!(outcome.is_direct(), "{outcome:?}");
        let (outcome, _) = punch([EASY, EASY], servers());
        assert!(!outcome.is_direct() && outcome.is_hopeless(), "{outcome:?}");
    }
}

#[test]
fn one_server_that_is_down_or_lies_does_not_keep_peers_apart() {
    for third in [Manner::Silent, Manner::Lying(victim()), Manner::Garbling] {
        let servers = vec![honest(), honest(), bad(third)];
        let (outcome, world) = punch([EASY, EASY], servers);
        assert!(outcome.is_direct(), "{outcome:?}");
        assert_eq!(knocks_at_victim(&world), 0);
    }
}

#[test]
fn servers_that_lie_in_concert_keep_peers_apart_and_their_victim_gets_five_packets() {
    let liars = || bad(Manner::Lying(victim()));
    let (outcome, world) = punch([EASY, EASY], vec![liars(), liars(), honest()]);
    assert!(!outcome.is_direct(), "{outcome:?}");
    assert!(knocks_at_victim(&world) <= 10, "five from each peer");

    // Each says something else: the spray that this suggests goes to no address that only a liar has named twice.
    let servers = (0..3).map(|number: u16| {
        let claimed = SocketAddr::new(victim().ip(), 1_000 + 7_919 * number);
        bad(Manner::Lying(claimed))
    });
    let (outcome, world) = punch([OPEN, OPEN], servers.collect());
    assert!(outcome.is_direct(), "{outcome:?}");
    assert!(knocks_at_victim(&world) <= 20, "{}", knocks_at_victim(&world));
}

#[test]
fn reflected_forged_and_replayed_packets_change_nothing() {
    for seed in 0..30 {
        let mut duel = Duel::new(seed);
        let events = duel.run(|packet, attacks| {
            // Back to who sent it, as if the other had; with one bit turned; and again, from elsewhere and later.
            attacks.push_back(Packet { to: packet.to ^ 1, source: packet.destination, ..packet.clone() });
            let mut forged = packet.clone();
            let at = usize::try_from(seed).unwrap() * 3 % (forged.bytes.len() - 8);
            forged.bytes[at] ^= 1 << (seed % 8);
            attacks.push_back(forged);
            attacks.push_back(packet.clone());
            attacks.push_back(Packet { source: victim(), ..packet.clone() });
        });
        let expected = [1, 0].map(|other: usize| PunchEvent::Punched {
            socket: SocketIndex::MAIN,
            peer: Duel::address(other),
        });
        assert_eq!(events, expected.map(Some), "seed {seed}");
        assert!(duel.answers_to_victim <= 2 * duel.requests, "seed {seed}");
    }
}

#[test]
fn a_flood_of_garbage_changes_nothing() {
    let mut duel = Duel::new(1);
    let events = duel.run(|packet, attacks| {
        for length in [0, 1, 19, 20, 28, 100, 1_472] {
            let mut bytes = packet.bytes.clone();
            bytes.resize(length, 0xA5);
            attacks.push_back(Packet { bytes, ..packet.clone() });
            attacks.push_back(Packet { bytes: vec![0; length], ..packet.clone() });
        }
    });
    assert!(events.iter().all(|event| matches!(event, Some(PunchEvent::Punched { .. }))), "{events:?}");
}

#[test]
fn one_of_a_thousand_candidates_gets_five_packets_and_only_sixteen_get_any() {
    let mut world = World::new(1, [EASY, EASY], link());
    for number in 1..=200 {
        let host = world.net.host(None, &format!("203.0.112.{number}"), Link::default());
        world.net.bind(host, 9);
    }
    world.peers[1].addresses = (0..1_000_u32)
        .map(|number| MappedSocketAddr::host(format!("203.0.112.{}:9", 1 + number % 200).parse().unwrap()))
        .collect();
    world.punch(Duration::ZERO, Duration::from_secs(30));
    let mut packets = std::collections::BTreeMap::<SocketAddr, (u32, usize)>::new();
    let knocks = world.net.trace().iter().filter(|entry| entry.passage == Passage::Delivered);
    for entry in knocks.filter(|entry| entry.destination.port() == 9) {
        let (count, bytes) = packets.entry(entry.destination).or_default();
        *count += 1;
        *bytes += entry.payload_bytes;
    }
    assert_eq!(packets.len(), 16);
    assert!(packets.values().all(|(count, bytes)| *count <= 5 && *bytes <= 1_200), "{packets:?}");
}

/// A liar says that its ports are random, or that it is at a victim's with ours random: nobody else says that it is there.
#[test]
fn a_victim_of_whom_only_the_peer_speaks_gets_five_packets() {
    let elsewhere = || PunchOptions::new().vouched("203.0.112.2".parse().unwrap());
    // What an introducer behind the same NAT as the peer sees.
    let private = || PunchOptions::new().vouched("192.168.2.11".parse().unwrap());
    for (ours, claimed) in [(EASY, PortRule::Random), (HARD, PortRule::Stable)] {
        for options in [PunchOptions::new(), elsewhere(), private()] {
            let mut world = World::new(1, [ours, EASY], link());
            let named = silent(&mut world);
            world.options = options;
            world.peers[1].addresses = vec![MappedSocketAddr::reflexive(named, claimed)];
            assert!(!world.punch(Duration::ZERO, Duration::from_secs(60)).is_direct());
            let arrived = arrived(&world, named.ip());
            assert!(arrived.len() <= 5, "{arrived:?}");
        }
    }
}

#[test]
fn a_victim_whose_ports_are_said_to_count_gets_five_packets_at_sixteen_of_them() {
    let mut world = World::new(1, [EASY, EASY], link());
    let named = silent(&mut world);
    world.options = PunchOptions::new();
    let counting =
        |number: u16| MappedSocketAddr::reflexive(at(named, 2_000 * number), PortRule::Sequential(1));
    world.peers[1].addresses = (1..=16).map(counting).collect();
    assert!(!world.punch(Duration::ZERO, Duration::from_secs(60)).is_direct());
    let arrived = arrived(&world, named.ip());
    let ports: std::collections::BTreeSet<u16> = arrived.iter().map(|(_, port)| *port).collect();
    assert!(ports.len() <= 16 && arrived.len() <= 5 * 16, "{} at {ports:?}", arrived.len());
}

fn at(place: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(place.ip(), port)
}

#[test]
fn who_is_vouched_for_while_the_punch_goes_on_is_sprayed_from_then_on() {
    let theirs: SocketAddr = "203.0.112.1:9".parse().unwrap();
    let ours = [MappedSocketAddr::host("203.0.112.3:4000".parse().unwrap())];
    let keys = PunchKeys::derive(b"secret", b"a", b"b").unwrap();
    let mut now = epoch();
    let there = [MappedSocketAddr::reflexive(theirs, PortRule::Random)];
    let mut puncher = UdpPuncher::new(now, &ours, &there, keys, Seed::from(1));
    let mut sent = |puncher: &mut UdpPuncher, until: Instant| {
        let mut packets = Vec::new();
        while let Some(due) = puncher.poll_timeout().filter(|due| *due <= until) {
            now = now.max(due);
            puncher.handle_timeout(now);
            packets.extend(std::iter::from_fn(|| puncher.poll_transmit()));
        }
        packets
    };
    // Five, and one that dies on the way.
    assert_eq!(sent(&mut puncher, epoch() + Duration::from_secs(5)).len(), 6);
    assert_eq!(puncher.obstacle(), Obstacle::NotVouched);
    puncher.vouch(epoch() + Duration::from_secs(5), "203.0.112.2".parse().unwrap());
    assert_eq!(sent(&mut puncher, epoch() + Duration::from_secs(6)).len(), 0, "that is somewhere else");
    // As a socket for both families shows it.
    puncher.vouch(epoch() + Duration::from_secs(6), "::ffff:203.0.112.1".parse().unwrap());
    let knocks = sent(&mut puncher, epoch() + Duration::from_secs(60));
    assert_eq!(knocks.len(), 2_048);
    assert!(knocks.iter().all(|knock| knock.destination.ip() == theirs.ip()));
    assert_eq!(puncher.obstacle(), Obstacle::NothingHeard);
}

/// The address of a host that never answers.
fn silent(world: &mut World) -> SocketAddr {
    let host = world.net.host(None, "203.0.112.1", Link::default());
    world.net.bind(host, 9);
    "203.0.112.1:9".parse().unwrap()
}

/// What got as far as there, and when.
fn arrived(world: &World, ip: IpAddr) -> Vec<(Duration, u16)> {
    let there = world.net.trace().iter().filter(|entry| {
        let passed = [Passage::Delivered, Passage::NoSuchPlace].contains(&entry.passage);
        passed && entry.destination.ip() == ip
    });
    there.map(|entry| (entry.at, entry.destination.port())).collect()
}

#[test]
fn a_victim_whose_ports_are_called_random_gets_a_hundred_packets_a_second_and_one_a_port() {
    let mut world = World::new(1, [EASY, EASY], link());
    let named = silent(&mut world);
    // One server lies with the peer.
    world.options = PunchOptions::new().vouched(named.ip());
    world.peers[1].addresses = vec![MappedSocketAddr::reflexive(named, PortRule::Random)];
    assert!(!world.punch(Duration::ZERO, Duration::from_secs(60)).is_direct());
    let arrived = arrived(&world, named.ip());
    let limit = 2_048 + 5;
    assert!((1_000..=limit).contains(&arrived.len()), "{}", arrived.len());
    for window in arrived.windows(112) {
        // Those to the port that was named are five in all, and jitter is a few milliseconds.
        let took = window[111].0.saturating_sub(window[0].0);
        assert!(took >= Duration::from_secs(1), "112 packets within {took:?}");
    }
    let mut ports: Vec<u16> = arrived.iter().map(|(_, port)| *port).filter(|port| *port != 9).collect();
    let sent = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), sent, "no port is knocked at twice");
}

#[test]
fn from_a_further_socket_sixteen_addresses_are_tried_whatever_the_peer_names_from_time_to_time() {
    let mut now = epoch();
    let ours = [MappedSocketAddr::host("192.168.1.11:4000".parse().unwrap())];
    let keys = PunchKeys::derive(b"secret", b"a", b"b").unwrap();
    let mut puncher = UdpPuncher::new(now, &ours, &[], keys, Seed::from(1)).only_further().more_to_come();
    let relay = SocketIndex(300);
    puncher.add_socket(now, relay, &[], now);
    let mut tried = BTreeMap::<SocketAddr, u32>::new();
    for round in 0..100_u16 {
        let named = |number| SocketAddr::from(([203, 0, 112, 1], 1_000 + round * 16 + number));
        let named: Vec<MappedSocketAddr> =
            (0..16).map(|number| MappedSocketAddr::host(named(number))).collect();
        puncher.learn(now, &ours, &named, true);
        for _ in 0..100 {
            let Some(due) = puncher.poll_timeout() else { break };
            now = now.max(due);
            puncher.handle_timeout(now);
            while let Some(transmit) = puncher.poll_transmit() {
                assert_eq!(transmit.socket, relay);
                *tried.entry(transmit.destination).or_default() += 1;
            }
        }
    }
    assert_eq!((tried.len(), tried.values().max()), (16, Some(&5)));
}

#[test]
fn of_a_thousand_silent_addresses_sixteen_are_dialled_by_five_packets_at_most() {
    let mut world = TcpWorld::new(1, [EASY, EASY], link());
    for number in 1..=200 {
        // A NAT with nobody behind it: what comes is dropped.
        world.net.nat(None, &format!("203.0.112.{number}"), Link::default(), Nat::easy());
    }
    let silent = (0..1_000_u32)
        .map(|number| MappedSocketAddr::host(format!("203.0.112.{}:9", 1 + number % 200).parse().unwrap()));
    world.peers[1].addresses.truncate(1);
    world.peers[1].addresses.extend(silent);
    assert!(!world.punch(Duration::ZERO, Duration::from_secs(60)).is_direct());
    let mut packets = std::collections::BTreeMap::<SocketAddr, u32>::new();
    let dials = world.net.trace().iter().filter(|entry| entry.passage == Passage::Filtered);
    for entry in dials.filter(|entry| entry.destination.port() == 9) {
        *packets.entry(entry.destination).or_default() += 1;
    }
    assert_eq!(packets.len(), 15, "sixteen with the one that is on another network");
    assert!(packets.values().all(|count| *count <= 5), "{packets:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_deadline_in_any_state_leaves_neither_socket_nor_thread() {
    // In a process of its own, so that nobody else's threads and sockets are counted.
    const ALONE: &str = "adversary::a_deadline_in_any_state_leaves_neither_socket_nor_thread";
    if std::env::var_os("NAT_TRAVERSAL_ALONE").is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", ALONE]).env("NAT_TRAVERSAL_ALONE", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let held = || ["task", "fd"].map(|kind| std::fs::read_dir(format!("/proc/self/{kind}")).unwrap().count());
    let context = MappingContext::new(MappingConfig::new()).unwrap();
    let before = held();
    for milliseconds in (0..240_u64).step_by(8) {
        // The peer has less time, so that it ends in another state.
        let deadline = |share: u64| Instant::now() + Duration::from_millis(milliseconds * share / 4);
        thread::scope(|scope| {
            let [a, b] = [0, 1].map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mapped = MappedUdpSocket::map(socket, &context).unwrap();
                (mapped.socket, gen_rendezvous_info(mapped.endpoints))
            });
            let (socket, (secret, public)) = a;
            let (their_socket, (their_secret, their_public)) = b;
            let context = &context;
            scope.spawn(move || {
                PunchedUdpSocket::punch_hole(their_socket, their_secret, &public, context, deadline(3))
                    .is_ok()
            });
            drop(PunchedUdpSocket::punch_hole(socket, secret, &their_public, context, deadline(4)));
        });
        thread::scope(|scope| {
            let [a, b] = [0, 1].map(|_| {
                let mapped = MappedTcpSocket::new(&context).unwrap();
                (mapped.socket, gen_rendezvous_info(mapped.endpoints))
            });
            let (socket, (secret, public)) = a;
            let (their_socket, (their_secret, their_public)) = b;
            let context = &context;
            scope.spawn(move || {
                tcp_punch_hole(their_socket, their_secret, &public, context, deadline(3)).is_ok()
            });
            drop(tcp_punch_hole(socket, secret, &their_public, context, deadline(4)));
        });
    }
    // A scope ends when its threads have given their results, which is a moment before the system has cleared them away.
    let limit = Instant::now() + Duration::from_secs(30);
    while held() != before {
        assert!(Instant::now() < limit, "{before:?} threads and descriptors before, {:?} after", held());
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Maps by these servers and punches.
fn punch(sites: [Site; 2], servers: Vec<Box<dyn Program>>) -> (Outcome, World) {
    let seed = Seed::from(1);
    let mut net = Net::new(seed.derive("net"));
    let hosts = [0, 1].map(|side| place(&mut net, side, sites[usize::from(side)], link()));
    let target = net.host(None, &victim().ip().to_string(), Link::default());
    net.bind(target, victim().port());
    let mut world = World::map_by(net, seed, hosts, servers);
    let outcome = world.punch(Duration::ZERO, Duration::from_secs(30));
    (outcome, world)
}

fn honest() -> Box<dyn Program> {
    Box::new(Running::new(StunServer::new(ServerAddresses::One)))
}

fn victim() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 66], 9))
}

fn knocks_at_victim(world: &World) -> usize {
    let there = |at: &SocketAddr| at.ip() == victim().ip();
    let arrived = |passage| matches!(passage, Passage::Delivered | Passage::NoSuchPlace);
    world.net.trace().iter().filter(|entry| arrived(entry.passage) && there(&entry.destination)).count()
}

/// A STUN server that does not do as it should.
#[derive(Debug)]
struct BadServer {
    manner: Manner,
    transmits: VecDeque<Transmit>,
}

#[derive(Debug, Clone, Copy)]
enum Manner {
    Silent,
    Lying(SocketAddr),
    Garbling,
}

fn bad(manner: Manner) -> Box<dyn Program> {
    Box::new(Running::new(BadServer { manner, transmits: VecDeque::new() }))
}

impl Machine for BadServer {
    type Event = std::convert::Infallible;

    fn handle_datagram(&mut self, _now: Instant, datagram: Datagram<'_>) {
        let Ok(request) = Message::decode(datagram.bytes) else { return };
        let answer = MessageBuilder::new(Class::Success, Method::BINDING, request.transaction());
        let bytes = match self.manner {
            Manner::Silent => return,
            Manner::Lying(claimed) => answer.mapped_address(claimed).fingerprint(),
            Manner::Garbling => answer.attribute(0x0020, &[0, 9, 1]).fingerprint(),
        };
        let destination = datagram.source;
        self.transmits.push_back(Transmit { socket: datagram.socket, destination, bytes, hops: None });
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<Self::Event> {
        None
    }
}

/// Two punchers on a wire that an attacker reads and writes.
struct Duel {
    sides: [UdpPuncher; 2],
    now: Instant,
    requests: usize,
    answers_to_victim: usize,
}

#[derive(Clone, Debug)]
struct Packet {
    /// Which side it arrives at.
    to: usize,
    source: SocketAddr,
    destination: SocketAddr,
    bytes: Vec<u8>,
}

impl Duel {
    fn new(seed: u64) -> Self {
        let now = epoch();
        let candidates = [0, 1].map(|side| [MappedSocketAddr::host(Self::address(side))]);
        let sides = [0, 1].map(|side: usize| {
            let names: [&[u8]; 2] = [b"a", b"b"];
            let keys = PunchKeys::derive(b"secret", names[side], names[1 - side]).unwrap();
            UdpPuncher::new(
                now,
                &candidates[side],
                &candidates[1 - side],
                keys,
                Seed::from(seed * 2 + side as u64),
            )
        });
        Self { sides, now, requests: 0, answers_to_victim: 0 }
    }

    fn address(side: usize) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 2 + u8::try_from(side).unwrap()], 4_000))
    }

    /// Carries packets until both sides have ended; `attack` adds what arrives right behind each of them.
    fn run(&mut self, mut attack: impl FnMut(&Packet, &mut VecDeque<Packet>)) -> [Option<PunchEvent>; 2] {
        let mut events = [None; 2];
        let end = self.now + Duration::from_secs(30);
        while events.contains(&None) && self.now < end {
            let mut wire = VecDeque::new();
            for (side, puncher) in self.sides.iter_mut().enumerate() {
                puncher.handle_timeout(self.now);
                while let Some(transmit) = puncher.poll_transmit() {
                    self.answers_to_victim += usize::from(transmit.destination == victim());
                    if transmit.destination == Self::address(1 - side) && transmit.hops.is_none() {
                        let (source, destination) = (Self::address(side), transmit.destination);
                        wire.push_back(Packet { to: 1 - side, source, destination, bytes: transmit.bytes });
                    }
                }
                events[side] = events[side].or_else(|| puncher.poll_event());
            }
            for packet in wire {
                self.requests += 1;
                let mut arriving = VecDeque::from([packet.clone()]);
                attack(&packet, &mut arriving);
                for Packet { to, source, bytes, .. } in arriving {
                    let datagram = Datagram { socket: SocketIndex::MAIN, source, bytes: &bytes };
                    self.sides[to].handle_datagram(self.now, datagram);
                }
            }
            self.now += Duration::from_millis(5);
        }
        events
    }
}
