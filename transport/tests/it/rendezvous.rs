//! Two peers on this host meet: holes are punched over loopback, listeners dialled, and no `accept` sees any of it.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use nat_traversal::{
    MappedSocketAddr, MappedUdpSocket, MappingConfig, MappingContext, Obstacle, PortRule, PunchOptions,
    gen_rendezvous_info,
};
use transport::{
    AcceptError, Admission, ConnectError, ConnectOptions, Endpoint, Interrupter, Listener, ListenerSet, Path,
    Refusal, Rendezvous, RendezvousError, RendezvousOffer, RendezvousOptions, RendezvousRoad, Scheme, Stream,
    StreamError, Transport,
};

use crate::support::{PROMPTLY, interrupted, soon, transport};

struct Peer {
    transport: Transport,
    set: ListenerSet,
}

impl Peer {
    fn new(listeners: &[&str]) -> Self {
        let transport = transport();
        let set = ListenerSet::new(&transport);
        for listener in listeners {
            set.add_listener(Listener::bind(&transport, *listener).unwrap());
        }
        Self { transport, set }
    }

    fn prepare(&self, options: &RendezvousOptions) -> (RendezvousOffer, Rendezvous) {
        self.set.prepare_rendezvous(&context(), options).unwrap()
    }

    fn saw_nobody(&self) -> bool {
        let soon = Instant::now() + Duration::from_millis(20);
        matches!(self.set.accept_deadline(soon), Err(AcceptError::TimedOut))
    }
}

fn context() -> MappingContext {
    MappingContext::new(MappingConfig::new().port_map(false)).unwrap()
}

fn within(seconds: u64) -> ConnectOptions {
    ConnectOptions::new().timeout(Duration::from_secs(seconds))
}

/// Both meet, and what one writes the other reads.
fn meet(peers: [&Peer; 2], options: [&RendezvousOptions; 2]) -> [Path; 2] {
    let (first_offer, first) = peers[0].prepare(options[0]);
    let (second_offer, second) = peers[1].prepare(options[1]);
    let first_offer = RendezvousOffer::from_bytes(&first_offer.to_bytes()).unwrap();
    thread::scope(|scope| {
        let other =
            scope.spawn(|| peers[1].set.rendezvous_connect(second, &first_offer, &within(20)).unwrap());
        let stream = peers[0].set.rendezvous_connect(first, &second_offer, &within(20)).unwrap();
        let other = other.join().unwrap();
        exchange(&stream, &other);
        assert_eq!(stream.public_key(), peers[1].transport.public_key());
        assert_eq!(other.public_key(), peers[0].transport.public_key());
        [stream.path(), other.path()]
    })
}

fn exchange(mut one: &Stream, mut other: &Stream) {
    let mut word = [0; 5];
    one.write_all(b"hello").unwrap();
    other.read_exact(&mut word).unwrap();
    other.write_all(&word).unwrap();
    one.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
}

#[test]
fn quic_begins_before_the_peer_is_heard_where_a_third_sees_it() {
    let peers = [0, 1].map(|_| Peer::new(&["quic://127.0.0.1:0"]));
    let options = RendezvousOptions::new().tcp(false).listeners(false);
    let (first_offer, first) = peers[0].prepare(&options);
    let (second_offer, second) = peers[1].prepare(&options.second(true));
    second.channel().vouch("127.0.0.1".parse().unwrap());
    thread::scope(|scope| {
        let second = scope.spawn(|| second.connect(&first_offer, &within(30)).unwrap());
        // The first has not begun, so it has sent nothing; a stream of the second's comes all the same, too early.
        let deadline = soon();
        while peers[0].transport.stats().rendezvous_unknown == 0 {
            assert!(Instant::now() < deadline, "no stream has come");
            thread::sleep(Duration::from_millis(1));
        }
        // That does no harm.
        let first = first.connect(&second_offer, &within(30)).unwrap();
        exchange(&first, &second.join().unwrap());
    });
    assert!(peers.iter().all(Peer::saw_nobody));
}

/// Meets over a hole for QUIC; gives each side's stream.
fn meet_by_quic(peers: [&Peer; 2]) -> [Stream; 2] {
    let options = RendezvousOptions::new().tcp(false).listeners(false);
    let (first_offer, first) = peers[0].prepare(&options);
    let (second_offer, second) = peers[1].prepare(&options);
    thread::scope(|scope| {
        let other =
            scope.spawn(|| peers[1].set.rendezvous_connect(second, &first_offer, &within(30)).unwrap());
        let stream = peers[0].set.rendezvous_connect(first, &second_offer, &within(30)).unwrap();
        [stream, other.join().unwrap()]
    })
}

#[test]
fn a_connection_that_was_met_serves_both_for_further_streams_after_its_first() {
    let peers = [0, 1].map(|_| Peer::new(&["quic://127.0.0.1:0"]));
    let streams = meet_by_quic([&peers[0], &peers[1]]);
    exchange(&streams[0], &streams[1]);
    let connections = streams.map(|stream| stream.connection().unwrap());
    // Its streams are gone, and it stays for some seconds.
    for (here, there) in [(0, 1), (1, 0)] {
        let further = connections[here].connect(&within(30)).unwrap();
        let accepted = peers[there].set.accept_deadline(soon()).unwrap();
        exchange(&further, &accepted);
        let both = [further, accepted].map(|stream| stream.connection().unwrap());
        assert!(both == [&connections[here], &connections[there]].map(Clone::clone));
    }
    // What is asked for is judged as ever.
    peers[1].transport.set_admission(Admission::default().block([peers[0].transport.public_key()]));
    let error = connections[0].connect(&within(30)).unwrap_err();
    assert!(matches!(error, ConnectError::Refused { reason: Refusal::Key, .. }), "{error}");
}

#[test]
fn who_listens_nowhere_takes_no_further_streams_and_says_so() {
    let [here, there] = [Peer::new(&["quic://0.0.0.0:0"]), Peer::new(&[])];
    let [stream, other] = meet_by_quic([&here, &there]);
    let connection = stream.connection().unwrap();
    let error = connection.connect(&within(30)).unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
    exchange(&stream, &other);
    drop((other, there));
    let closed = stream.wait_path_change(&stream.path(), soon());
    assert!(closed.is_err_and(|error| !matches!(error, StreamError::TimedOut)), "the connection is over");
    let error = connection.connect(&within(30)).unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
}

#[test]
fn a_hole_for_quic_is_punched_from_the_listening_sockets() {
    let peers = [Peer::new(&["quic://127.0.0.1:0"]), Peer::new(&["quic://127.0.0.1:0"])];
    let udp = RendezvousOptions::new().tcp(false).listeners(false);
    let paths = meet([&peers[0], &peers[1]], [&udp, &udp]);
    for (side, path) in paths.iter().enumerate() {
        let ports = [0, 1].map(|side: usize| peers[side].set.local_endpoints()[0].addr().port());
        assert_eq!(path.scheme, Scheme::Quic);
        assert_eq!((path.local.port(), path.remote.port()), (ports[side], ports[1 - side]));
    }
    assert!(peers.iter().all(Peer::saw_nobody));
}

#[test]
fn two_peers_meet_from_sockets_of_their_own() {
    let peers = [Peer::new(&["quic://127.0.0.1:0"]), Peer::new(&["quic://127.0.0.1:0"])];
    let keys = peers.each_ref().map(|peer| peer.transport.public_key());
    let [(one, ours, told), (other, theirs, their_told)] = [0, 1].map(|_| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mapped = MappedUdpSocket::map(socket, &context()).unwrap();
        let (ours, told) = gen_rendezvous_info(mapped.endpoints);
        (mapped.socket, ours, told)
    });
    let ports = [&one, &other].map(|socket| socket.local_addr().unwrap().port());
    let options = within(20);
    thread::scope(|scope| {
        let transport = &peers[1].transport;
        let meeting = scope.spawn(|| {
            Stream::udp_rendezvous_connect(transport, other, theirs, keys[0], &told, &options).unwrap()
        });
        let transport = &peers[0].transport;
        let stream =
            Stream::udp_rendezvous_connect(transport, one, ours, keys[1], &their_told, &options).unwrap();
        let other = meeting.join().unwrap();
        exchange(&stream, &other);
        assert_eq!((stream.public_key(), other.public_key()), (keys[1], keys[0]));
        assert_eq!([stream.path().local.port(), stream.path().remote.port()], ports);
    });
    assert!(peers.iter().all(Peer::saw_nobody));
}

#[test]
fn a_hole_for_tcp_is_punched_where_udp_does_not_pass() {
    let peers = [Peer::new(&["tcp://127.0.0.1:0"]), Peer::new(&["tcp://127.0.0.1:0"])];
    let tcp = RendezvousOptions::new().udp(false).listeners(false);
    let paths = meet([&peers[0], &peers[1]], [&tcp, &tcp]);
    assert_eq!(paths.map(|path| path.scheme), [Scheme::Tcp; 2]);
    assert!(peers.iter().all(Peer::saw_nobody));
}

#[test]
fn one_side_listens_and_the_other_dials_whoever_leads() {
    let alone = RendezvousOptions::new().udp(false).tcp(false);
    // Who leads is drawn for each meeting; twelve see both cases but once in two thousand runs.
    for scheme in ["tcp", "quic"] {
        for round in 0..12 {
            let peers = [Peer::new(&[]), Peer::new(&[&format!("{scheme}://127.0.0.1:0")])];
            let paths = meet([&peers[0], &peers[1]], [&alone, &alone]);
            assert_eq!(paths[1].scheme.to_string(), scheme, "round {round}");
            assert!(peers[1].saw_nobody());
        }
    }
}

#[test]
fn everything_at_once_still_gives_one_stream() {
    for _ in 0..8 {
        let listeners = ["quic://127.0.0.1:0", "tcp://127.0.0.1:0"];
        let peers = [Peer::new(&listeners), Peer::new(&listeners)];
        let all = RendezvousOptions::new();
        let paths = meet([&peers[0], &peers[1]], [&all, &all]);
        assert_eq!(paths[0].local.port(), paths[1].remote.port());
        assert!(peers.iter().all(Peer::saw_nobody));
    }
}

#[test]
fn a_transport_without_listeners_meets_by_its_dialling_socket() {
    let peers = [transport(), transport()];
    let endpoint = |offer: &RendezvousOffer| RendezvousOffer::from_bytes(&offer.to_bytes()).unwrap();
    let options = RendezvousOptions::new();
    let (first_offer, first) = Rendezvous::prepare(&peers[0], &context(), &options).unwrap();
    let (second_offer, second) = Rendezvous::prepare(&peers[1], &context(), &options).unwrap();
    thread::scope(|scope| {
        let theirs = endpoint(&first_offer);
        let other = scope.spawn(move || Stream::rendezvous_connect(second, &theirs, &within(20)));
        let stream = Stream::rendezvous_connect(first, &endpoint(&second_offer), &within(20));
        match (stream, other.join().unwrap()) {
            (Ok(stream), Ok(other)) => exchange(&stream, &other),
            // A host without any network but loopback has no address to tell.
            (Err(RendezvousError::Failed { .. }), Err(RendezvousError::Failed { .. })) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_hundred_rendezvous_and_a_hundred_dials_do_not_mix() {
    let listeners = ["quic://127.0.0.1:0", "tcp://127.0.0.1:0"];
    let peers = [Peer::new(&listeners), Peer::new(&listeners)];
    let endpoints: Vec<Endpoint> = peers[1].set.endpoints().unwrap();
    let options = RendezvousOptions::new().tcp(false);
    thread::scope(|scope| {
        for number in 0..100_u8 {
            let (first_offer, first) = peers[0].prepare(&options);
            let (second_offer, second) = peers[1].prepare(&options);
            let endpoint = endpoints[usize::from(number) % 2];
            let [one, other] = &peers;
            scope.spawn(move || {
                let mut stream = one.set.rendezvous_connect(first, &second_offer, &within(30)).unwrap();
                stream.write_all(&[b'r', number]).unwrap();
                assert_eq!(read_two(&mut stream), [b'm', number]);
            });
            scope.spawn(move || {
                let mut stream = other.set.rendezvous_connect(second, &first_offer, &within(30)).unwrap();
                stream.write_all(&[b'm', number]).unwrap();
                assert_eq!(read_two(&mut stream), [b'r', number]);
            });
            scope.spawn(move || {
                let mut stream = Stream::connect_with(&one.transport, endpoint, &within(30)).unwrap();
                stream.write_all(&[b'd', number]).unwrap();
                assert_eq!(read_two(&mut stream), [b'd', number]);
            });
        }
        let mut seen = [false; 100];
        for _ in 0..100 {
            let mut stream = peers[1].set.accept_deadline(soon()).unwrap();
            let [what, number] = read_two(&mut stream);
            assert_eq!(what, b'd', "accept got a stream of a rendezvous");
            assert!(!std::mem::replace(&mut seen[usize::from(number)], true));
            stream.write_all(&[what, number]).unwrap();
        }
    });
    assert!(peers.iter().all(Peer::saw_nobody));
}

fn read_two(stream: &mut Stream) -> [u8; 2] {
    let mut two = [0; 2];
    stream.read_exact(&mut two).unwrap();
    two
}

#[test]
fn a_peer_that_never_comes_is_missed_at_the_deadline_and_its_late_dial_is_counted() {
    let peers = [Peer::new(&["tcp://127.0.0.1:0"]), Peer::new(&["tcp://127.0.0.1:0"])];
    let options = RendezvousOptions::new();
    let (first_offer, first) = peers[0].prepare(&options);
    let (second_offer, second) = peers[1].prepare(&options);
    let begun = Instant::now();
    let short = ConnectOptions::new().timeout(Duration::from_millis(300));
    let error = first.connect(&second_offer, &short).unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(300) + PROMPTLY, "{:?}", begun.elapsed());
    let RendezvousError::Failed { failures, .. } = &error else { panic!("{error:?}") };
    assert!(!failures.is_empty() && error.to_string().contains("no way to"), "{error}");
    // It dialled the other's listener, which expected nobody.
    let unknown = peers[1].transport.stats().rendezvous_unknown;
    second.connect(&first_offer, &short).unwrap_err();
    let late = peers[0].transport.stats().rendezvous_late;
    // Only the leader asks when both could; whoever asked was turned away and counted.
    assert!(unknown + late >= 1, "unknown {unknown}, late {late}");
    assert!(peers.iter().all(Peer::saw_nobody));
}

#[test]
fn two_labels_do_not_meet() {
    let peers = [Peer::new(&["quic://127.0.0.1:0"]), Peer::new(&["quic://127.0.0.1:0"])];
    let options = RendezvousOptions::new().tcp(false);
    let (first_offer, first) = peers[0].prepare(&options);
    let (second_offer, second) = peers[1].prepare(&options);
    let other = transport::ProtocolLabel::new("other").unwrap();
    thread::scope(|scope| {
        let short = within(2).protocol(other);
        let theirs = scope.spawn(move || second.connect(&first_offer, &short).unwrap_err());
        let ours = first.connect(&second_offer, &within(2)).unwrap_err();
        let refused = |error: &RendezvousError| matches!(error, RendezvousError::Refused { .. });
        assert!(refused(&ours) || refused(&theirs.join().unwrap()), "{ours}");
    });
}

#[test]
fn ones_own_offer_is_none() {
    let peer = Peer::new(&["quic://127.0.0.1:0"]);
    let (offer, ours) = peer.prepare(&RendezvousOptions::new().tcp(false));
    assert!(matches!(ours.connect(&offer, &within(2)), Err(RendezvousError::Offer)));
}

#[test]
fn a_rendezvous_ends_with_its_transport_or_by_interruption() {
    for close in [true, false] {
        let peer = Peer::new(&["quic://127.0.0.1:0"]);
        let other = Peer::new(&["quic://127.0.0.1:0"]);
        let (_, ours) = peer.prepare(&RendezvousOptions::new());
        let (offer, _theirs) = other.prepare(&RendezvousOptions::new());
        let interrupter = Interrupter::default();
        let options = within(30).interrupter(&interrupter);
        let transport = peer.transport.clone();
        let (outcome, took) = interrupted(
            move || ours.connect(&offer, &options),
            || if close { transport.close() } else { interrupter.interrupt() },
        );
        let expected = if close { "the transport is closed" } else { "interrupted" };
        assert_eq!(outcome.unwrap_err().to_string(), expected);
        assert!(took < PROMPTLY, "{took:?}");
    }
}

#[test]
fn a_stream_that_is_there_moves_to_a_hole_that_both_punch_later() {
    let peers = [Peer::new(&["quic://127.0.0.1:0"]), Peer::new(&["quic://127.0.0.1:0"])];
    let endpoint = peers[1].set.endpoints().unwrap()[0];
    let dialled = Stream::connect_with(&peers[0].transport, endpoint, &within(20)).unwrap();
    let accepted = peers[1].set.accept_deadline(soon()).unwrap();
    exchange(&dialled, &accepted);
    let before = dialled.path();
    let options = RendezvousOptions::new().tcp(false);
    let (first_offer, first) = peers[0].prepare(&options);
    let (second_offer, second) = peers[1].prepare(&options);
    let [ours, theirs] = thread::scope(|scope| {
        let theirs = scope.spawn(|| second.improve(&accepted, &first_offer, &within(20)).unwrap());
        let ours = first.improve(&dialled, &second_offer, &within(20)).unwrap();
        [ours, theirs.join().unwrap()]
    });
    exchange(&dialled, &accepted);
    // It was dialled from a socket of its own, and goes from the listening ones now.
    assert_ne!(before.local, ours.local);
    assert_eq!((ours.local, ours.remote), (theirs.remote, theirs.local));
    assert_eq!(ours.local, peers[0].set.local_endpoints()[0].addr());
    let (third_offer, _third) = Peer::new(&["quic://127.0.0.1:0"]).prepare(&options);
    let (_, fourth) = peers[0].prepare(&options);
    let error = fourth.improve(&dialled, &third_offer, &within(2)).unwrap_err();
    assert!(matches!(error, RendezvousError::Offer), "another peer's offer: {error}");
    // Who is met at relays only punches for no connection either.
    let (fifth_offer, fifth) = peers[1].prepare(&options);
    let (sixth_offer, sixth) = peers[0].prepare(&options.ways([transport::PathKind::Relayed]));
    let error = thread::scope(|scope| {
        scope.spawn(|| fifth.improve(&accepted, &sixth_offer, &within(1)).unwrap_err());
        sixth.improve(&dialled, &fifth_offer, &within(1)).unwrap_err()
    });
    assert!(matches!(error, RendezvousError::Failed { .. }), "{error}");
}

#[test]
fn what_is_learned_after_the_offers_is_told_and_used() {
    let peers = [0, 1].map(|_| Peer::new(&["quic://127.0.0.1:0"]));
    let server = nat_traversal::HolePunchServer::bind_pair("127.0.0.1:0".parse().unwrap()).unwrap();
    let context = context();
    let addresses = server.addresses();
    let stuns = addresses.iter().map(|address| nat_traversal::HolePunchServerAddr::Stun(address.addr));
    context.add_servers(stuns);
    let options = [RendezvousOptions::new(), RendezvousOptions::new().second(true)];
    let halves = [0, 1].map(|side: usize| peers[side].set.open_rendezvous(&options[side]).unwrap());
    let channels = [halves[0].channel(), halves[1].channel()];
    let offers = [channels[0].offer(), channels[1].offer()];
    assert!(offers.iter().all(RendezvousOffer::has_more_to_come));
    for side in [0, 1] {
        let told = std::sync::Mutex::new(0);
        let tell = |offer: RendezvousOffer| {
            *told.lock().unwrap() += 1;
            let offer = RendezvousOffer::from_bytes(&offer.to_bytes()).unwrap();
            channels[1 - side].receive(&offer);
        };
        channels[side].gather(&context, None, tell).unwrap();
        assert!(*told.lock().unwrap() >= 1, "UDP or TCP, or both");
        let last = channels[side].complete();
        assert!(!last.has_more_to_come() && last.public_key() == peers[side].transport.public_key());
        channels[1 - side].receive(&last);
    }
    let [first, second] = halves;
    thread::scope(|scope| {
        let other = scope.spawn(|| second.connect(&offers[0], &within(20)).unwrap());
        let stream = first.connect(&offers[1], &within(20)).unwrap();
        exchange(&stream, &other.join().unwrap());
    });
    assert!(peers.iter().all(Peer::saw_nobody));
}

#[test]
fn the_failure_says_whether_somebody_vouched_for_an_address_with_random_ports() {
    let [honest, liar] = [0, 1].map(|_| Peer::new(&["quic://127.0.0.1:0"]));
    let claimed = MappedSocketAddr::reflexive("127.0.0.99:9".parse().unwrap(), PortRule::Random);
    let udp = RendezvousOptions::new().tcp(false).listeners(false);
    let lying = udp.clone().known(liar.set.local_endpoints()[0].addr(), [claimed]);
    let obstacle = |vouched: Option<&str>, options: ConnectOptions| {
        let (offer, _silent) = liar.prepare(&lying);
        let (_, ours) = honest.prepare(&udp);
        if let Some(ip) = vouched {
            ours.channel().vouch(ip.parse().unwrap());
        }
        // Less than the checks take, so that the packets are few.
        let Err(RendezvousError::Failed { failures, .. }) =
            ours.connect(&offer, &options.timeout(Duration::from_secs(1)))
        else {
            panic!("nobody is there");
        };
        let punch = failures.into_iter().find(|one| one.road == RendezvousRoad::UdpPunch { v6: false });
        punch.unwrap().reason
    };
    let not_vouched = Obstacle::NotVouched.to_string();
    assert_eq!(obstacle(None, ConnectOptions::new()), not_vouched);
    // What an introducer in the same private network sees.
    assert_eq!(obstacle(Some("192.168.1.11"), ConnectOptions::new()), not_vouched);
    let nothing_heard = Obstacle::NothingHeard.to_string();
    assert_eq!(obstacle(Some("127.0.0.99"), ConnectOptions::new()), nothing_heard);
    let trusting = ConnectOptions::new().punch(PunchOptions::new().spray_unvouched(true));
    assert_eq!(obstacle(None, trusting), nothing_heard);
}
