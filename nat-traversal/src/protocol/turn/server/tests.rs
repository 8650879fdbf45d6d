use super::*;
use crate::protocol::stun::TransactionId;
use crate::protocol::turn::{AddressFamily, TurnClient, TurnCredentials, TurnEvent, TurnFailure, TurnLink};
use crate::protocol::{Datagram, Machine as _, Seed, SocketIndex};

const UNIX: u64 = 1_700_000_000;
const HOUR: u64 = 3_600;

/// A server and some clients, with nothing between them.
struct World {
    now: Instant,
    server: RelayServer,
    clients: Vec<(RelayClient, TurnClient)>,
    /// What went out of lent sockets, and where these are.
    sent: Vec<(RelayId, SocketAddr, Vec<u8>)>,
    open: BTreeMap<RelayId, SocketAddr>,
    port: u16,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn new(rules: RelayRules) -> Self {
        let now = Instant::now();
        let server = RelayServer::new(now, UNIX, secret(), rules);
        Self { now, server, clients: Vec::new(), sent: Vec::new(), open: BTreeMap::new(), port: 50_000 }
    }

    fn client(&mut self, who: RelayClient, credentials: TurnCredentials) -> usize {
        let seed = Seed::from(self.clients.len() as u64 + 1);
        let link = match who {
            RelayClient::Datagrams(_) => TurnLink::Datagrams,
            RelayClient::Stream(..) => TurnLink::Stream,
        };
        let client =
            TurnClient::new(self.now, at("203.0.113.10:3478"), link, AddressFamily::V4, credentials, seed);
        self.clients.push((who, client));
        self.settle();
        self.clients.len() - 1
    }

    /// Carries messages until there are no more.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for (who, client) in &mut self.clients {
                while let Some(transmit) = client.poll_transmit() {
                    self.server.handle_client(self.now, *who, &transmit.bytes);
                    quiet = false;
                }
            }
            while let Some(order) = self.server.poll_order() {
                quiet = false;
                match order {
                    RelayOrder::Answer(to, bytes) => {
                        let found = self.clients.iter_mut().find(|(who, _)| *who == to);
                        if let Some((_, client)) = found {
                            let (socket, source) = (SocketIndex::MAIN, at("203.0.113.10:3478"));
                            client.handle_datagram(self.now, Datagram { socket, source, bytes: &bytes });
                        }
                    }
                    RelayOrder::Open(relay) => {
                        let addr = SocketAddr::new([203, 0, 113, 10].into(), self.port);
                        self.port += 1;
                        self.open.insert(relay, addr);
                        self.server.handle_opened(self.now, relay, Some(addr));
                    }
                    RelayOrder::Send(relay, peer, bytes) => self.sent.push((relay, peer, bytes)),
                    RelayOrder::Close(relay) => drop(self.open.remove(&relay)),
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn outcome(&mut self, client: usize) -> Option<Result<SocketAddr, TurnFailure>> {
        std::iter::from_fn(|| self.clients[client].1.poll_event()).find_map(|event| match event {
            TurnEvent::Allocated { relayed, .. } => Some(Ok(relayed)),
            TurnEvent::Failed(failure) => Some(Err(failure)),
            _ => None,
        })
    }

    /// Lets time pass in steps of a second, with all that is due.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.server.handle_timeout(self.now);
            for (_, client) in &mut self.clients {
                if client.poll_timeout().is_some_and(|due| due <= self.now) {
                    client.handle_timeout(self.now);
                }
            }
            self.settle();
        }
    }
}

fn secret() -> RelaySecret {
    RelaySecret::new([7; 32])
}

fn rules() -> RelayRules {
    RelayRules::new([203, 0, 113, 10].into())
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn udp(host: u8) -> RelayClient {
    RelayClient::Datagrams(SocketAddr::from(([198, 51, 100, host], 4_000)))
}

fn valid(who: &str) -> TurnCredentials {
    secret().credentials(UNIX + HOUR, who)
}

#[test]
fn who_has_credentials_gets_an_address_and_keeps_it() {
    let mut world = World::new(rules());
    for who in [udp(2), RelayClient::Stream(5, at("198.51.100.3:5000"))] {
        let client = world.client(who, valid(&format!("{who:?}")));
        let relayed = world.outcome(client).unwrap().unwrap();
        assert!(world.open.values().any(|addr| *addr == relayed));
    }
    // Beyond the first lifetime, which the clients refresh.
    world.pass(900);
    assert_eq!(world.open.len(), 2);
    world.server.handle_gone(udp(2));
    world.settle();
    assert_eq!((world.open.len(), world.server.stats().allocations), (1, 1));
}

#[test]
fn an_allocation_ends_with_its_credentials() {
    let mut world = World::new(rules());
    world.client(udp(2), secret().credentials(UNIX + 700, "someone"));
    world.pass(690);
    assert_eq!(world.open.len(), 1);
    world.pass(20);
    assert_eq!(world.open.len(), 0, "nobody may go on with what has expired");
}

#[test]
fn wrong_expired_and_foreign_credentials_are_refused() {
    let mut world = World::new(rules());
    let good = valid("someone");
    let others = [
        TurnCredentials::new(good.username(), "wrong"),
        TurnCredentials::new("nonsense", "wrong"),
        TurnCredentials::new("", ""),
        secret().credentials(UNIX, "someone"),
        RelaySecret::new([8; 32]).credentials(UNIX + HOUR, "someone"),
        TurnCredentials::new("18446744073709551616:someone", "wrong"),
    ];
    for (host, credentials) in (2..).zip(others) {
        let client = world.client(udp(host), credentials);
        assert!(matches!(world.outcome(client), Some(Err(_)) | None), "client {host}");
    }
    assert!(world.open.is_empty());
    assert!(world.server.stats().refused_credentials > 0);
    // Far into the future is no overflow.
    world.client(udp(99), secret().credentials(u64::MAX, "someone"));
    assert_eq!(world.open.len(), 1);
}

#[test]
fn quotas_hold_for_a_user_an_address_and_all() {
    let failed = |world: &mut World, client| matches!(world.outcome(client), Some(Err(_)));
    let mut world = World::new(rules().allocations_per_user(2));
    let clients = [2, 3, 4].map(|host| world.client(udp(host), valid("one")));
    assert_eq!(clients.map(|client| failed(&mut world, client)), [false, false, true]);

    let mut world = World::new(rules().allocations_per_address(2));
    let clients = [1, 2, 3].map(|port| {
        let from = RelayClient::Datagrams(SocketAddr::from(([198, 51, 100, 2], port)));
        world.client(from, valid(&format!("user {port}")))
    });
    assert_eq!(clients.map(|client| failed(&mut world, client)), [false, false, true]);

    let mut world = World::new(rules().allocations(1));
    let clients = [2, 3].map(|host| world.client(udp(host), valid(&format!("user {host}"))));
    assert_eq!(clients.map(|client| failed(&mut world, client)), [false, true]);
    assert_eq!(world.server.stats().refused_quota, 1);
}

#[test]
fn packets_pass_both_ways_and_through_channels() {
    let mut world = World::new(rules());
    let client = world.client(udp(2), valid("someone"));
    let relayed = world.outcome(client).unwrap().unwrap();
    let peer = at("192.0.2.77:700");
    for round in 0..20_u8 {
        let now = world.now;
        let _ = world.clients[client].1.send(now, peer, &[round; 50]);
        world.settle();
        world.pass(1);
    }
    assert!(world.sent.len() >= 15, "{}", world.sent.len());
    assert!(
        world
            .sent
            .iter()
            .all(|(relay, to, data)| { world.open[relay] == relayed && *to == peer && data.len() == 50 })
    );
    // The way back, by a peer that was sent to, and by one that was not.
    let relay = *world.open.keys().next().unwrap();
    world.server.handle_peer(world.now, relay, peer, b"back");
    world.server.handle_peer(world.now, relay, at("192.0.2.78:700"), b"stranger");
    let mut answers = 0;
    while let Some(order) = world.server.poll_order() {
        answers += u32::from(matches!(order, RelayOrder::Answer(to, _) if to == udp(2)));
    }
    assert_eq!((answers, world.server.stats().dropped_unpermitted), (1, 1));
}

#[test]
fn what_is_too_much_is_dropped() {
    let mut world = World::new(rules().bytes_per_second(1_000));
    let client = world.client(udp(2), valid("someone"));
    let peer = at("192.0.2.77:700");
    let now = world.now;
    let _ = world.clients[client].1.send(now, peer, b"!");
    world.settle();
    let relay = *world.open.keys().next().unwrap();
    for _ in 0..10 {
        world.server.handle_peer(world.now, relay, peer, &[0; 500]);
    }
    assert!(world.server.stats().dropped_rate >= 6, "{:?}", world.server.stats());
    world.now += Duration::from_secs(1);
    let before = world.server.stats().bytes;
    world.server.handle_peer(world.now, relay, peer, &[0; 500]);
    assert_eq!(world.server.stats().bytes, before + 500, "a second later there is room again");
}

#[test]
fn targets_that_are_nobodys_business_are_refused() {
    let strict = TargetPolicy::strict();
    for refused in [
        "127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "198.18.0.1",
        "168.63.129.16",
        "224.0.0.251",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:a00:1::1",
        "2001::1",
        "100::1",
    ] {
        assert!(!strict.admits(refused.parse().unwrap()), "{refused}");
    }
    for admitted in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:4860:4860::8888", "2a00::1"] {
        assert!(strict.admits(admitted.parse().unwrap()), "{admitted}");
    }
    let closed = TargetPolicy::strict().allow(["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    assert!(closed.admits("10.1.2.3".parse().unwrap()) && closed.admits("fd12::1".parse().unwrap()));
    assert!(
        closed.admits("::ffff:10.1.2.3".parse().unwrap()),
        "it is the same network, however it is written"
    );
    assert!(!closed.admits("192.168.1.1".parse().unwrap()));
    for wrong in ["10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "x/8", "fd00::/129", "10.0.0.0/-1"] {
        assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
    }
    assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("1.2.3.4".parse().unwrap()));
}

#[test]
fn a_refused_target_gets_nothing_even_by_a_channel() {
    let mut world = World::new(rules());
    let client = world.client(udp(2), valid("someone"));
    for peer in ["10.0.0.1:53", "169.254.169.254:80", "127.0.0.1:3478"] {
        let now = world.now;
        let _ = world.clients[client].1.send(now, at(peer), b"hello");
        world.settle();
        world.pass(2);
    }
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    assert!(world.server.stats().refused_targets >= 3);
}

#[test]
fn of_its_own_host_only_lent_ports_are_reached() {
    let own = TargetPolicy::strict().own([[203, 0, 113, 10].into()]);
    let mut world = World::new(rules().targets(own));
    let (a, b) = (world.client(udp(2), valid("a")), world.client(udp(3), valid("b")));
    let (_, theirs) = (world.outcome(a).unwrap().unwrap(), world.outcome(b).unwrap().unwrap());
    for peer in [theirs, at("203.0.113.10:53"), at("203.0.113.10:3478")] {
        for _ in 0..3 {
            let now = world.now;
            let _ = world.clients[a].1.send(now, peer, b"hello");
            world.settle();
        }
    }
    assert!(!world.sent.is_empty() && world.sent.iter().all(|(_, to, _)| *to == theirs), "{:?}", world.sent);
    assert!(world.server.stats().refused_targets > 0);
}

#[test]
fn strangers_get_little_and_junk_gets_nothing() {
    let mut world = World::new(rules());
    let request = |method| MessageBuilder::new(Class::Request, method, TransactionId([1; 12]));
    let allocate =
        request(Method::ALLOCATE).attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).finish();
    for bytes in [allocate.clone(), request(Method::BINDING).finish(), request(Method::REFRESH).finish()] {
        world.server.handle_client(world.now, udp(9), &bytes);
        let Some(RelayOrder::Answer(_, answer)) = world.server.poll_order() else { panic!("an answer") };
        assert!(answer.len() <= StunServer::MAX_FACTOR * bytes.len(), "{} for {}", answer.len(), bytes.len());
    }
    let mut answers = 0;
    for _ in 0..1_000 {
        world.server.handle_client(world.now, udp(9), &allocate);
        answers += u32::from(world.server.poll_order().is_some());
    }
    assert!(answers < StunServer::MAX_ANSWERS, "{answers}");
    for junk in [&b""[..], b"hello", &[0x40, 0, 0xff, 0xff], &[0; 20], &[0x40, 1, 0, 0], &allocate[..27]] {
        world.server.handle_client(world.now, udp(10), junk);
        assert_eq!(world.server.poll_order(), None);
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), peer: bool) {
        let mut world = World::new(rules());
        world.client(udp(2), valid("someone"));
        if peer {
            let relay = *world.open.keys().next().unwrap();
            world.server.handle_peer(world.now, relay, at("192.0.2.77:700"), &bytes);
        } else {
            world.server.handle_client(world.now, udp(2), &bytes);
        }
        world.settle();
    }
}
