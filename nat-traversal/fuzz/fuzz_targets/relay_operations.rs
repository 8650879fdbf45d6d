//! Any history to the TURN server: clients that do as they should, some that have credentials and ask for anything, strangers, peers,
//! lost, damaged and repeated packets, sockets that cannot be had, and time.
//!
//! The input is read as a list of steps: a byte says what happens, what follow are its arguments.
#![no_main]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use nat_traversal::protocol::stun::{Class, Message, MessageBuilder, Method, TransactionId, attribute};
use nat_traversal::protocol::turn::{
    AddressFamily, RelayClient, RelayId, RelayOrder, RelayRules, RelaySecret, RelayServer, RelayStats,
    TargetPolicy, TurnClient, TurnCredentials, TurnLink,
};
use nat_traversal::protocol::{Datagram, Machine, Seed, SocketIndex};
use nat_traversal::testing::{epoch, turn_key};

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let mut world = World::new(byte(&mut input));
    while !input.is_empty() {
        world.step(&mut input);
        world.settle();
    }
});

struct World {
    now: Instant,
    server: RelayServer,
    policy: TargetPolicy,
    stats: RelayStats,
    clients: Vec<Client>,
    /// Sockets that were asked for, and where they are once they are.
    relays: BTreeMap<RelayId, Option<SocketAddr>>,
    closed: BTreeSet<RelayId>,
    ports: u16,
    /// Answers to strangers, by address and second.
    answered: BTreeMap<(IpAddr, u64), u32>,
    /// What came before, to come again.
    replays: VecDeque<(RelayClient, Vec<u8>)>,
}

struct Client {
    who: RelayClient,
    machine: TurnClient,
    credentials: TurnCredentials,
    nonce: Vec<u8>,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
}

impl World {
    fn new(kind: u8) -> Self {
        let now = epoch();
        let policy =
            TargetPolicy::strict().allow(["192.0.2.0/24", "203.0.113.0/24"].map(|one| one.parse().unwrap()));
        let policy = policy.own([at(10).ip()]);
        let rules = RelayRules::new(at(10).ip())
            .targets(policy.clone())
            .allocations(MOST)
            .allocations_per_user(3)
            .allocations_per_address(3)
            .bytes_per_second(1_000);
        let secret = RelaySecret::new([7; 32]);
        let server = RelayServer::new(now, UNIX, secret.clone(), rules);
        let clients = (0..5_u8)
            .map(|number| {
                let from = SocketAddr::from(([198, 51, 100, 1 + number / 2], 4_000 + u16::from(number)));
                let (who, link) = if number == 3 {
                    (RelayClient::Stream(9, from), TurnLink::Stream)
                } else {
                    (RelayClient::Datagrams(from), TurnLink::Datagrams)
                };
                // The fourth ends soon, and the last is nobody's.
                let credentials = match number {
                    3 => secret.credentials(UNIX + 700, "late"),
                    4 => RelaySecret::new([8; 32]).credentials(UNIX + 3_600, "stranger"),
                    _ => secret.credentials(UNIX + 50_000, ["one", "one", "two"][usize::from(number)]),
                };
                let (family, seed) = (AddressFamily::V4, Seed::from(u64::from(number)));
                let machine = TurnClient::new(now, at(10), link, family, credentials.clone(), seed);
                let (up, down) = (VecDeque::new(), VecDeque::new());
                Client { who, machine, credentials, nonce: Vec::new(), up, down }
            })
            .collect();
        let mut world = Self {
            now,
            server,
            policy,
            stats: RelayStats::default(),
            clients,
            relays: BTreeMap::new(),
            closed: BTreeSet::new(),
            ports: 50_000,
            answered: BTreeMap::new(),
            replays: VecDeque::new(),
        };
        // Half of the histories begin with addresses lent, which few inputs would come to.
        for _ in 0..if kind & 1 == 0 { 4 } else { 0 } {
            world.settle();
            (0..world.clients.len()).for_each(|client| {
                world.deliver_up(client, |_| {});
                world.deliver_down(client);
            });
        }
        world.settle();
        world
    }

    fn step(&mut self, input: &mut &[u8]) {
        let now = self.now;
        let what = byte(input) % 16;
        let client = usize::from(byte(input)) % self.clients.len();
        match what {
            0 => self.now += Duration::from_millis(u64::from(byte(input)) * 10),
            1 => self.now += Duration::from_secs(u64::from(byte(input)) * 8),
            2 => self.clients[client].machine.permit(now, peer(input).ip()).unwrap_or_default(),
            3 => self.clients[client].machine.bind(now, peer(input)).unwrap_or_default(),
            4 => {
                let (to, length) = (peer(input), usize::from(byte(input)) * 4);
                self.clients[client].machine.send(now, to, &vec![7; length]).unwrap_or_default();
            }
            5 | 6 => self.deliver_up(client, |_| {}),
            7 | 8 => self.deliver_down(client),
            9 => {
                let (place, with) = (usize::from(byte(input)), byte(input));
                self.deliver_up(client, |bytes| {
                    let length = bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(place % length) {
                        *byte ^= with;
                    }
                });
            }
            10 => drop(self.clients[client].up.pop_front()),
            11 => {
                let (from, length) = (peer(input), usize::from(byte(input)) * 8);
                let relay =
                    self.relays.keys().nth(usize::from(byte(input)) % self.relays.len().max(1)).copied();
                if let Some(relay) = relay {
                    self.server.handle_peer(now, relay, from, &vec![9; length]);
                }
            }
            12 => {
                let length = usize::from(byte(input)).min(input.len());
                let (raw, rest) = input.split_at(length);
                *input = rest;
                let from = SocketAddr::from(([198, 51, 100, byte(input) % 8], u16::from(byte(input)) * 16));
                self.hand_in(RelayClient::Datagrams(from), raw);
            }
            13 => self.ask_anything(client, input),
            14 => {
                if let Some((who, bytes)) = self.replays.get(usize::from(byte(input)) % REPLAYS).cloned() {
                    self.hand_in(who, &bytes);
                }
            }
            _ => {
                let who = self.clients[client].who;
                if byte(input).is_multiple_of(4) {
                    self.server.handle_gone(who);
                }
            }
        }
    }

    /// A request that is signed as it should be, of anything.
    fn ask_anything(&mut self, client: usize, input: &mut &[u8]) {
        let Client { who, credentials, nonce, .. } = &self.clients[client];
        let methods = [
            Method::ALLOCATE,
            Method::REFRESH,
            Method::CREATE_PERMISSION,
            Method::CHANNEL_BIND,
            Method::SEND,
            Method(u16::from(byte(input))),
        ];
        let method = methods[usize::from(byte(input)) % methods.len()];
        let mut request = MessageBuilder::new(Class::Request, method, TransactionId([byte(input); 12]))
            .attribute(attribute::USERNAME, credentials.username().as_bytes())
            .attribute(attribute::REALM, REALM)
            .attribute(attribute::NONCE, nonce);
        for _ in 0..byte(input) % 6 {
            let value = [byte(input), byte(input), byte(input), byte(input)];
            request = match byte(input) % 8 {
                0 => request.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
                1 => request.attribute(attribute::LIFETIME, &value),
                2 | 3 => request.xor_address(attribute::XOR_PEER_ADDRESS, peer(input)),
                4 => request
                    .attribute(attribute::CHANNEL_NUMBER, &[0x40 | (value[0] & 0x1F), value[1] % 4, 0, 0]),
                5 => request.attribute(attribute::REQUESTED_ADDRESS_FAMILY, &value),
                6 => request.attribute(attribute::XOR_PEER_ADDRESS, &value),
                _ => request.attribute(u16::from_be_bytes([value[0], value[1]]), &value[2..]),
            };
        }
        let bytes = request.integrity(&turn_key(credentials, REALM)).finish();
        let who = *who;
        self.hand_in(who, &bytes);
    }

    /// Hands in a packet, and looks at what a stranger gets for it.
    fn hand_in(&mut self, who: RelayClient, bytes: &[u8]) {
        let is_stranger = !self.server.serves(who) && matches!(who, RelayClient::Datagrams(_));
        if self.replays.len() < REPLAYS {
            self.replays.push_back((who, bytes.to_vec()));
        }
        self.server.handle_client(self.now, who, bytes);
        let orders: Vec<RelayOrder> = std::iter::from_fn(|| self.server.poll_order()).collect();
        if is_stranger {
            let answers: Vec<usize> = orders
                .iter()
                .filter_map(
                    |order| if let RelayOrder::Answer(_, bytes) = order { Some(bytes.len()) } else { None },
                )
                .collect();
            // Who has credentials is none any more.
            let has_shown = self.server.serves(who) || orders.iter().any(is_signed);
            assert!(
                has_shown || answers.iter().sum::<usize>() <= 3 * bytes.len(),
                "{answers:?} for {} bytes",
                bytes.len()
            );
            let second = self.now.duration_since(epoch()).as_secs();
            let count = self.answered.entry((who.addr().ip(), second)).or_default();
            *count += u32::try_from(answers.len()).unwrap();
            // A window of a second may lie in two of ours.
            assert!(*count <= 40, "{count} answers in a second");
        }
        orders.into_iter().for_each(|order| self.carry_out(order));
    }

    /// What a driver does, and what must hold afterwards.
    fn settle(&mut self) {
        self.server.handle_timeout(self.now);
        let mut count = 0;
        while let Some(order) = self.server.poll_order() {
            count += 1;
            assert!(count <= 100, "it orders without bound");
            self.carry_out(order);
        }
        for client in &mut self.clients {
            client.machine.handle_timeout(self.now);
            while let Some(transmit) = client.machine.poll_transmit() {
                client.up.push_back(transmit.bytes);
            }
            client.up.truncate(64);
            while client.machine.poll_event().is_some() {}
        }
        let due = self.server.poll_timeout();
        assert!(due.is_none_or(|due| due > self.now), "it would be woken again and again");
        let stats = self.server.stats();
        assert_eq!(
            stats.allocations,
            self.relays.len(),
            "a socket is open for each address lent, and for no other"
        );
        assert!(stats.allocations <= MOST);
        assert!(stats.bytes >= self.stats.bytes && stats.refused_quota >= self.stats.refused_quota);
        self.stats = stats;
    }

    fn carry_out(&mut self, order: RelayOrder) {
        match order {
            RelayOrder::Answer(to, bytes) => {
                let Some(client) = self.clients.iter_mut().find(|client| client.who == to) else { return };
                if let Some(nonce) = Message::decode(&bytes).ok().and_then(|one| one.find(attribute::NONCE)) {
                    client.nonce = nonce.value.to_vec();
                }
                client.down.push_back(bytes);
                client.down.truncate(64);
            }
            RelayOrder::Open(relay) => {
                assert!(!self.closed.contains(&relay), "a number is given out once");
                assert!(self.relays.insert(relay, None).is_none(), "one socket for one number");
                self.ports += 1;
                // Now and then there is no socket to be had.
                let opened =
                    (!self.ports.is_multiple_of(7)).then(|| SocketAddr::new(at(10).ip(), self.ports));
                self.relays.insert(relay, opened);
                self.server.handle_opened(self.now, relay, opened);
            }
            RelayOrder::Send(relay, peer, _) => {
                assert!(matches!(self.relays.get(&relay), Some(Some(_))), "from a socket that is open");
                assert!(self.policy.admits(peer.ip()), "{peer} may not be reached");
                let lent = || self.relays.values().any(|open| *open == Some(peer));
                assert!(peer.ip() != at(10).ip() || lent(), "{peer} is a service of the relay's host");
            }
            RelayOrder::Close(relay) => {
                assert!(self.relays.remove(&relay).is_some(), "closed once");
                self.closed.insert(relay);
            }
        }
    }

    fn deliver_up(&mut self, client: usize, damage: impl FnOnce(&mut Vec<u8>)) {
        let Some(mut bytes) = self.clients[client].up.pop_front() else { return };
        damage(&mut bytes);
        let who = self.clients[client].who;
        self.hand_in(who, &bytes);
    }

    fn deliver_down(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if let Some(bytes) = client.down.pop_front() {
            let (socket, source) = (SocketIndex::MAIN, at(10));
            client.machine.handle_datagram(self.now, Datagram { socket, source, bytes: &bytes });
        }
    }
}

/// Whether it is an answer to somebody who has shown credentials.
fn is_signed(order: &RelayOrder) -> bool {
    let RelayOrder::Answer(_, bytes) = order else { return false };
    let message = Message::decode(bytes).ok();
    message.is_some_and(|message| message.find(attribute::MESSAGE_INTEGRITY).is_some())
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, host], 3_478))
}

/// Peers of any kind: admitted and not, the relay's host and what it may have lent.
fn peer(input: &mut &[u8]) -> SocketAddr {
    let (kind, host) = (byte(input), byte(input));
    let ip = match kind % 8 {
        0..=3 => IpAddr::from([192, 0, 2, host]),
        4 => IpAddr::from([127, 0, 0, host]),
        5 => IpAddr::from([10, 0, 0, host]),
        6 => IpAddr::from([0x2001, 0xDB8, 0, 0, 0, 0, 0, u16::from(host)]),
        _ => at(10).ip(),
    };
    SocketAddr::new(ip, if kind & 8 == 0 { 50_000 + u16::from(host % 32) } else { u16::from(host) })
}

fn byte(input: &mut &[u8]) -> u8 {
    let Some((first, rest)) = input.split_first() else { return 0 };
    *input = rest;
    *first
}

const UNIX: u64 = 1_700_000_000;
const MOST: usize = 4;
const REPLAYS: usize = 32;
const REALM: &[u8] = b"crust";
