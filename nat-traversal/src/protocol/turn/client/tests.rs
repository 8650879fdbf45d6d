use super::*;
use crate::protocol::stun::Message;
use crate::testing::{Link, Nat, Net, NodeId, Relay, RelayRules, Running};

#[test]
fn an_allocation_lives_as_long_as_it_is_held_and_ends_with_it() {
    let mut world = World::new(RelayRules::default());
    world.pass(1);
    let relayed = world.allocated();
    assert_eq!(relayed.to_string(), "203.0.113.20:49152");
    world.pass(7_200);
    assert_eq!(world.relay.machine().allocations(world.net.now()), 1);
    assert_eq!(world.client.machine().relayed_address(), Some(relayed));
    assert_eq!(world.client.events().len(), 1);

    let now = world.net.now();
    world.client.machine_mut().close(now);
    world.pass(1);
    assert_eq!(world.client.events()[1].1, TurnEvent::Closed);
    assert_eq!(world.relay.machine().allocations(world.net.now()), 0);
    assert_eq!(world.client.machine().poll_timeout(), None);
}

#[test]
fn a_stale_nonce_is_replaced_at_once_also_at_the_end() {
    let nonce_lifetime = Duration::from_secs(40);
    let mut world = World::new(RelayRules { nonce_lifetime, ..RelayRules::default() });
    world.pass(1);
    world.pass(1_000);
    assert_eq!(world.relay.machine().allocations(world.net.now()), 1);
    world.pass(60);
    let now = world.net.now();
    world.client.machine_mut().close(now);
    world.pass(1);
    assert_eq!(world.client.events().last().unwrap().1, TurnEvent::Closed);
    assert_eq!(world.relay.machine().allocations(world.net.now()), 0);
}

#[test]
fn the_first_packet_waits_for_no_permission_and_the_seventh_goes_by_a_channel() {
    let mut world = World::new(RelayRules::default());
    world.pass(1);
    let relayed = world.allocated();
    let mut overheads = Vec::new();
    for count in 0..12_u8 {
        let now = world.net.now();
        let mut frame = Vec::new();
        world.client.machine_mut().frame(now, world.peer_address, &[count; 100], &mut frame).unwrap();
        overheads.push(frame.len() - 100);
        world.client.machine_mut().send(now, world.peer_address, &[count; 100]).unwrap();
        world.pass(1);
        let arrived = world.arrived();
        assert_eq!((arrived.0, &arrived.1[..]), (relayed, &[count; 100][..]), "packet {count}");
    }
    assert_eq!(overheads[0], 36);
    assert_eq!(overheads[11], 4);
    world.reply(b"back");
    let expected = TurnEvent::Data { peer: world.peer_address, bytes: b"back".to_vec() };
    assert_eq!(world.client.events().last().unwrap().1, expected);
}

#[test]
fn a_peer_in_use_keeps_permission_and_channel_and_an_unused_one_loses_them() {
    let mut world = World::new(RelayRules::default());
    world.pass(1);
    world.client.machine_mut().bind(world.net.now(), world.peer_address).unwrap();
    for minute in 0..60 {
        let now = world.net.now();
        world.client.machine_mut().send(now, world.peer_address, b"still here").unwrap();
        world.pass(60);
        let count = world.client.events().len();
        world.reply(b"so am I");
        assert_eq!(world.client.events().len(), count + 1, "minute {minute}");
    }
    let head = world.client.machine_mut().channel_head(world.net.now(), world.peer_address, 10);
    assert!(head.is_some(), "the channel was renewed");
    world.pass(1_500);
    let count = world.client.events().len();
    world.reply(b"anyone?");
    assert_eq!(world.client.events().len(), count, "after ten minutes without a word nothing is renewed");
    assert_eq!(world.client.machine_mut().channel_head(world.net.now(), world.peer_address, 10), None);
    // And it is there again when it is used again, by the same number, as RFC 8656 demands.
    world.client.machine_mut().bind(world.net.now(), world.peer_address).unwrap();
    world.pass(1);
    let again = world.client.machine_mut().channel_head(world.net.now(), world.peer_address, 10);
    assert_eq!(again, head);
}

#[test]
fn refusals_are_told_by_their_names() {
    let mut world = World::with_password(RelayRules::default(), "wrong");
    world.pass(1);
    assert_eq!(world.client.events()[0].1, TurnEvent::Failed(TurnFailure::WrongCredentials));

    let mut world = World::new(RelayRules { quota: 0, ..RelayRules::default() });
    world.pass(1);
    let failure = TurnFailure::Refused(486);
    assert_eq!(world.client.events()[0].1, TurnEvent::Failed(failure));
    assert!(failure.to_string().contains("as many allocations as it may"));
}

#[test]
fn a_server_that_restarts_or_dies_is_noticed() {
    let mut world = World::new(RelayRules::default());
    world.pass(1);
    world.relay.machine_mut().restart();
    world.pass(301);
    assert_eq!(world.client.events().last().unwrap().1, TurnEvent::Failed(TurnFailure::Lost));

    let mut world = World::new(RelayRules::default());
    world.pass(1);
    let died = world.net.now();
    world.net.run(&mut [(world.laptop, &mut world.client)], Duration::from_secs(120));
    let (at, event) = world.client.events().last().unwrap();
    assert_eq!(*event, TurnEvent::Failed(TurnFailure::NoAnswer(7)));
    assert!(*at - died < Duration::from_secs(50), "{:?}", *at - died);
}

#[test]
fn what_loss_takes_is_sent_again() {
    for seed in 0..50 {
        let mut world = World::lossy(seed, 0.2);
        world.pass(30);
        let event = &world.client.events()[0].1;
        assert!(matches!(event, TurnEvent::Allocated { .. }), "seed {seed}: {event:?}");
        world.pass(3_600);
        assert_eq!(world.client.events().len(), 1, "seed {seed}: {:?}", world.client.events());
    }
}

#[test]
fn nobody_is_believed_without_the_password() {
    let mut bench = Bench::challenged();
    // Success and refusal by someone who saw the request.
    for class in [Class::Success, Class::Error] {
        let forged = bench.answer(class, None, |builder| {
            builder
                .error_code(486, "")
                .xor_address(attribute::XOR_RELAYED_ADDRESS, "192.0.2.66:6".parse().unwrap())
        });
        assert_eq!(bench.receive(&forged), TurnReceived::Ignored);
    }
    let stranger = TurnCredentials::new("user", "guess").classic_key(b"realm");
    let forged = bench.answer(Class::Success, Some(&stranger), allocation);
    assert_eq!(bench.receive(&forged), TurnReceived::Ignored);
    assert_eq!(bench.client.poll_event(), None);
    // The true answer still counts.
    let key = TurnCredentials::new("user", "secret").classic_key(b"realm");
    let answer = bench.answer(Class::Success, Some(&key), allocation);
    let elsewhere =
        Datagram { socket: SocketIndex::MAIN, source: "203.0.113.21:3478".parse().unwrap(), bytes: &answer };
    assert_eq!(bench.client.receive(bench.now, elsewhere), TurnReceived::Ignored);
    assert_eq!(bench.receive(&answer), TurnReceived::Handled);
    assert!(matches!(bench.client.poll_event(), Some(TurnEvent::Allocated { .. })));
    assert_eq!(bench.receive(&answer), TurnReceived::Ignored, "a replay");
    assert_eq!(bench.client.stats().ignored, 5);
}

#[test]
fn if_only_unsigned_answers_come_their_reason_is_told_in_the_end() {
    let mut bench = Bench::challenged();
    let refusal = bench.answer(Class::Error, None, |builder| builder.error_code(508, ""));
    bench.receive(&refusal);
    while let Some(due) = bench.client.poll_timeout() {
        bench.client.handle_timeout(due);
    }
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed(TurnFailure::Refused(508))));
}

#[test]
fn endless_challenges_and_referrals_come_to_an_end() {
    let mut bench = Bench::challenged();
    let mut rounds = 0;
    let failure = loop {
        rounds += 1;
        let challenge = bench.answer(Class::Error, None, |builder| {
            builder.error_code(438, "").attribute(attribute::NONCE, &[b'n', rounds])
        });
        bench.receive(&challenge);
        if let Some(event) = bench.client.poll_event() {
            break event;
        }
        bench.drain();
    };
    assert_eq!((failure, rounds), (TurnEvent::Failed(TurnFailure::Challenges), 4));

    let mut bench = Bench::new();
    for number in 21.. {
        let next = SocketAddr::from(([203, 0, 113, number], 3478));
        let referral = bench.answer(Class::Error, None, |builder| {
            builder.error_code(300, "").address(attribute::ALTERNATE_SERVER, next)
        });
        bench.receive(&referral);
        match bench.client.poll_event() {
            Some(TurnEvent::Redirected(to)) => assert_eq!((to, bench.drain()), (next, next)),
            Some(event) => {
                assert_eq!((event, number), (TurnEvent::Failed(TurnFailure::Redirects), 24));
                break;
            }
            None => panic!("neither followed nor given up"),
        }
    }
}

#[test]
fn over_a_stream_a_referral_waits_for_the_new_connection() {
    let mut bench = Bench::over(TurnLink::Stream);
    let next = "203.0.113.21:3478".parse().unwrap();
    let referral = bench.answer(Class::Error, None, |builder| {
        builder.error_code(300, "").address(attribute::ALTERNATE_SERVER, next)
    });
    bench.receive(&referral);
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Redirected(next)));
    assert_eq!(bench.client.poll_transmit(), None);
    bench.client.handle_reconnected(bench.now);
    assert_eq!(bench.drain(), next);
}

#[test]
fn strangers_and_floods_find_a_bound() {
    let mut bench = Bench::allocated();
    let data = |from: &str| {
        MessageBuilder::new(Class::Indication, Method::DATA, TransactionId([0; 12]))
            .xor_address(attribute::XOR_PEER_ADDRESS, from.parse().unwrap())
            .attribute(attribute::DATA, b"flood")
            .finish()
    };
    assert_eq!(bench.receive(&data("192.0.2.66:6")), TurnReceived::Ignored, "nobody asked for it");
    assert_eq!(bench.receive(&[0x40, 0, 0, 1, 7]), TurnReceived::Ignored, "no such channel");
    assert_eq!(bench.receive(&[0x40, 0, 0, 9, 7]), TurnReceived::Ignored, "cut off");

    bench.client.permit(bench.now, "192.0.2.2".parse().unwrap()).unwrap();
    let flood = data("192.0.2.2:4000");
    for _ in 0..1_000 {
        let source = bench.client.server();
        let datagram = Datagram { socket: SocketIndex::MAIN, source, bytes: &flood };
        bench.client.handle_datagram(bench.now, datagram);
    }
    let events = std::iter::from_fn(|| bench.client.poll_event()).count();
    assert_eq!((events, bench.client.stats().overflowed), (256, 744));

    let mut refused = 0;
    for number in 0..1_000_u32 {
        let peer = IpAddr::from((0xC000_0000_u32 + number).to_be_bytes());
        refused += u32::from(bench.client.permit(bench.now, peer) == Err(TurnSendError::TooManyPeers));
    }
    assert_eq!(refused, 744, "one of them has a place already");
    let mut taken = 0;
    while bench.client.send(bench.now, "192.0.2.2:4000".parse().unwrap(), b"x").is_ok() {
        taken += 1;
        assert!(taken <= 256);
    }
}

#[test]
fn what_cannot_be_sent_is_told_before() {
    let mut bench = Bench::allocated();
    let mut frame = Vec::new();
    let mut send = |peer: &str, payload: &[u8]| {
        bench.client.frame(bench.now, peer.parse().unwrap(), payload, &mut frame)
    };
    assert_eq!(send("[2001:db8::1]:1", b"x"), Err(TurnSendError::Family));
    assert_eq!(send("192.0.2.2:1", &[0; 65_001]), Err(TurnSendError::TooLong));
    assert!(frame.is_empty());
    let mut early = Bench::new();
    let result = early.client.send(early.now, "192.0.2.2:1".parse().unwrap(), b"x");
    assert_eq!(result, Err(TurnSendError::NotAllocated));
}

#[test]
fn nothing_is_told_after_the_end() {
    let mut bench = Bench::allocated();
    bench.client.permit(bench.now, "192.0.2.2".parse().unwrap()).unwrap();
    bench.client.handle_disconnected();
    let late = MessageBuilder::new(Class::Indication, Method::DATA, TransactionId([0; 12]))
        .xor_address(attribute::XOR_PEER_ADDRESS, "192.0.2.2:1".parse().unwrap())
        .attribute(attribute::DATA, b"late")
        .finish();
    assert_eq!(bench.receive(&late), TurnReceived::Ignored);
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed(TurnFailure::Disconnected)));
    assert_eq!(bench.client.poll_event(), None);
}

#[test]
fn an_address_of_the_other_family_is_asked_for_and_nothing_else_taken() {
    let mut bench = Bench::new();
    let server = bench.client.server();
    let credentials = TurnCredentials::new("user", "secret");
    let link = TurnLink::Datagrams;
    bench.client = TurnClient::new(bench.now, server, link, AddressFamily::V6, credentials, Seed::from(1));
    bench.drain();
    let family = |bytes: &[u8]| {
        let request = Message::decode(bytes).unwrap();
        request.find(attribute::REQUESTED_ADDRESS_FAMILY).map(|found| found.value.to_vec())
    };
    assert_eq!(family(&bench.last), Some(vec![2, 0, 0, 0]));
    let v4 = bench.answer(Class::Success, None, allocation);
    bench.receive(&v4);
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed(TurnFailure::BadAnswer)));
}

#[test]
fn a_forged_word_that_nobody_is_there_changes_nothing() {
    let mut bench = Bench::allocated();
    for _ in 0..100 {
        bench.client.handle_unreachable(bench.now);
        if bench.client.transmits.is_empty() {
            continue;
        }
        bench.drain();
        let key = TurnCredentials::new("user", "secret").classic_key(b"realm");
        let answer =
            bench.answer(Class::Success, Some(&key), |b| b.attribute(attribute::LIFETIME, &[0, 0, 2, 88]));
        assert_eq!(bench.receive(&answer), TurnReceived::Handled);
    }
    assert_eq!(bench.client.poll_event(), None);
    for _ in 0..3 {
        bench.client.handle_unreachable(bench.now);
    }
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed(TurnFailure::Unreachable)));
}

/// A laptop behind a NAT with a client, a server, and a peer on the internet.
struct World {
    net: Net,
    server: NodeId,
    relay: Running<Relay>,
    laptop: NodeId,
    client: Running<TurnClient>,
    peer_host: NodeId,
    peer: Running<Collector>,
    peer_address: SocketAddr,
}

impl World {
    fn new(rules: RelayRules) -> Self {
        Self::with_password(rules, "secret")
    }

    fn with_password(rules: RelayRules, password: &str) -> Self {
        Self::build(1, rules, password, Link::delay(Duration::from_millis(20)))
    }

    fn lossy(seed: u64, loss: f64) -> Self {
        let link = Link::delay(Duration::from_millis(20)).loss(loss);
        Self::build(seed, RelayRules::default(), "secret", link)
    }

    fn build(seed: u64, rules: RelayRules, password: &str, link: Link) -> Self {
        let mut net = Net::new(Seed::from(seed));
        let server = net.host(None, "203.0.113.20", Link::default());
        let relay = Relay::new(&mut net, server, TurnCredentials::new("user", "secret"), rules);
        // The NAT forgets a flow after half a minute, which the client must prevent.
        let nat = Nat { lifetime: Duration::from_secs(30), ..Nat::hard() };
        let nat = net.nat(None, "198.51.100.2", link, nat);
        let laptop = net.host(Some(nat), "192.168.1.11", Link::default());
        net.bind(laptop, 4000);
        let peer_host = net.host(None, "192.0.2.2", Link::default());
        net.bind(peer_host, 4000);
        let client = TurnClient::new(
            net.now(),
            "203.0.113.20:3478".parse().unwrap(),
            TurnLink::Datagrams,
            AddressFamily::V4,
            TurnCredentials::new("user", password),
            Seed::from(seed + 1),
        );
        let (relay, client) = (Running::new(relay), Running::new(client));
        let peer = Running::new(Collector::default());
        let peer_address = "192.0.2.2:4000".parse().unwrap();
        Self { net, server, relay, laptop, client, peer_host, peer, peer_address }
    }

    fn pass(&mut self, seconds: u64) {
        let programs: &mut [(NodeId, &mut dyn crate::testing::Program)] = &mut [
            (self.server, &mut self.relay),
            (self.laptop, &mut self.client),
            (self.peer_host, &mut self.peer),
        ];
        let until = self.net.now() + Duration::from_secs(seconds);
        while self.net.now() < until {
            let before = self.net.now();
            self.net.run(programs, until.saturating_duration_since(before));
            if self.net.now() == before {
                break;
            }
        }
    }

    fn allocated(&self) -> SocketAddr {
        match self.client.events()[0].1 {
            TurnEvent::Allocated { relayed, .. } => relayed,
            ref other => panic!("{other:?}"),
        }
    }

    /// What the peer received last: source and bytes.
    fn arrived(&self) -> &(SocketAddr, Vec<u8>) {
        &self.peer.events().last().expect("the peer has received something").1
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.net.send(self.peer_host, SocketIndex::MAIN, "203.0.113.20:49152".parse().unwrap(), bytes);
        self.pass(1);
    }
}

/// A client alone, whose server is the test.
struct Bench {
    client: TurnClient,
    now: Instant,
    last: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        Self::over(TurnLink::Datagrams)
    }

    fn over(link: TurnLink) -> Self {
        let now = crate::testing::epoch();
        let server = "203.0.113.20:3478".parse().unwrap();
        let credentials = TurnCredentials::new("user", "secret");
        let client = TurnClient::new(now, server, link, AddressFamily::V4, credentials, Seed::from(1));
        let mut bench = Self { client, now, last: Vec::new() };
        bench.drain();
        bench
    }

    fn challenged() -> Self {
        let mut bench = Self::new();
        let challenge = bench.answer(Class::Error, None, |builder| {
            builder
                .error_code(401, "")
                .attribute(attribute::REALM, b"realm")
                .attribute(attribute::NONCE, b"nonce")
        });
        assert_eq!(bench.receive(&challenge), TurnReceived::Handled);
        bench.drain();
        bench
    }

    fn allocated() -> Self {
        let mut bench = Self::challenged();
        let key = TurnCredentials::new("user", "secret").classic_key(b"realm");
        let answer = bench.answer(Class::Success, Some(&key), allocation);
        bench.receive(&answer);
        assert!(matches!(bench.client.poll_event(), Some(TurnEvent::Allocated { .. })));
        bench
    }

    /// An answer to the last request.
    fn answer(
        &self,
        class: Class,
        key: Option<&ring::hmac::Key>,
        add: impl FnOnce(MessageBuilder) -> MessageBuilder,
    ) -> Vec<u8> {
        let request = Message::decode(&self.last).unwrap();
        let builder = add(MessageBuilder::new(class, request.method(), request.transaction()));
        match key {
            Some(key) => builder.integrity(key).finish(),
            None => builder.finish(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> TurnReceived<'static> {
        let datagram = Datagram { socket: SocketIndex::MAIN, source: self.client.server(), bytes };
        match self.client.receive(self.now, datagram) {
            TurnReceived::Data { .. } => panic!("data"),
            TurnReceived::Handled => TurnReceived::Handled,
            TurnReceived::Ignored => TurnReceived::Ignored,
        }
    }

    /// Takes all that is to be sent; returns where the last of it goes.
    fn drain(&mut self) -> SocketAddr {
        let mut destination = self.client.server();
        while let Some(transmit) = self.client.poll_transmit() {
            destination = transmit.destination;
            self.last = transmit.bytes;
        }
        destination
    }
}

fn allocation(builder: MessageBuilder) -> MessageBuilder {
    builder
        .xor_address(attribute::XOR_RELAYED_ADDRESS, "203.0.113.20:50000".parse().unwrap())
        .attribute(attribute::LIFETIME, &[0, 0, 2, 88])
}

/// Keeps what arrives.
#[derive(Debug, Default)]
struct Collector(VecDeque<(SocketAddr, Vec<u8>)>);

impl Machine for Collector {
    type Event = (SocketAddr, Vec<u8>);

    fn handle_datagram(&mut self, _now: Instant, datagram: Datagram<'_>) {
        self.0.push_back((datagram.source, datagram.bytes.to_vec()));
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<Self::Event> {
        self.0.pop_front()
    }
}
