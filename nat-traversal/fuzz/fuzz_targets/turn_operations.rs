//! Any history to the TURN client, with a server that does as it should, a network that loses, damages and forges, and a
//! caller that does anything at any time.
//!
//! The input is read as a list of steps: a byte says what happens, what follow are its arguments.
#![no_main]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use nat_traversal::protocol::turn::{AddressFamily, TurnClient, TurnCredentials, TurnEvent, TurnLink};
use nat_traversal::protocol::{Datagram, Machine, Seed, SocketIndex};
use nat_traversal::testing::{Link, Net, Relay, RelayRules};

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
    client: TurnClient,
    relay: Relay,
    /// On their way to the server and from it.
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    ended: bool,
}

impl World {
    fn new(kind: u8) -> Self {
        let mut net = Net::new(Seed::from(1));
        let host = net.host(None, "203.0.113.20", Link::default());
        let credentials = TurnCredentials::new("user", "secret");
        let rules = RelayRules { nonce_lifetime: Duration::from_secs(60), ..RelayRules::default() };
        let relay = Relay::new(&mut net, host, credentials.clone(), rules);
        let now = net.now();
        let link = if kind & 1 == 0 { TurnLink::Datagrams } else { TurnLink::Stream };
        let client = TurnClient::new(now, server(), link, AddressFamily::V4, credentials, Seed::from(2));
        let mut world = Self { now, client, relay, up: VecDeque::new(), down: VecDeque::new(), ended: false };
        // Half of the histories begin with an allocation, which few inputs would come to.
        let rounds = if kind & 2 == 0 { 4 } else { 0 };
        for _ in 0..rounds {
            world.settle();
            world.deliver_up();
            world.deliver_down(|_| {});
        }
        world.settle();
        world
    }

    fn step(&mut self, input: &mut &[u8]) {
        let now = self.now;
        match byte(input) % 16 {
            0 => self.now += Duration::from_millis(u64::from(byte(input)) * 10),
            1 => self.now += Duration::from_secs(u64::from(byte(input)) * 4),
            2 => self.client.permit(now, peer(input).ip()).unwrap_or_default(),
            3 => self.client.bind(now, peer(input)).unwrap_or_default(),
            4 => {
                let (to, length) = (peer(input), usize::from(byte(input)));
                self.client.send(now, to, &vec![7; length]).unwrap_or_default();
            }
            5 | 6 => self.deliver_up(),
            7 | 8 => self.deliver_down(|_| {}),
            9 => {
                let (at, with) = (usize::from(byte(input)), byte(input));
                self.deliver_down(|bytes| {
                    let length = bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at % length) {
                        *byte ^= with;
                    }
                });
            }
            10 => drop(self.up.pop_front()),
            11 => drop(self.down.pop_front()),
            12 => {
                let (from, length) = (peer(input), usize::from(byte(input)));
                let socket = SocketIndex(1);
                self.relay.handle_datagram(now, Datagram { socket, source: from, bytes: &vec![9; length] });
            }
            13 => {
                let length = usize::from(byte(input)).min(input.len());
                let (raw, rest) = input.split_at(length);
                *input = rest;
                self.client.handle_datagram(now, from_server(raw));
            }
            14 => match byte(input) % 4 {
                0 => self.client.handle_unreachable(now),
                1 => self.client.handle_reconnected(now),
                2 => self.relay.restart(),
                _ => self.client.handle_disconnected(),
            },
            _ => {
                if byte(input).is_multiple_of(8) {
                    self.client.close(now);
                }
            }
        }
    }

    /// What a driver does, and what must hold afterwards.
    fn settle(&mut self) {
        self.client.handle_timeout(self.now);
        let mut sent = 0;
        while let Some(transmit) = self.client.poll_transmit() {
            sent += 1;
            assert!(sent <= 2_000, "it sends without bound");
            self.up.push_back(transmit.bytes);
        }
        self.up.truncate(256);
        let mut told = 0;
        while let Some(event) = self.client.poll_event() {
            told += 1;
            assert!(told <= 1_300, "it tells without bound");
            assert!(!self.ended, "an event after the last one: {event:?}");
            self.ended = matches!(event, TurnEvent::Failed(_) | TurnEvent::Closed);
        }
        let due = self.client.poll_timeout();
        assert!(due.is_none_or(|due| due > self.now), "it would be woken again and again");
        assert!(!self.ended || (due.is_none() && self.client.relayed_address().is_none()), "it is over");
    }

    fn deliver_up(&mut self) {
        let Some(bytes) = self.up.pop_front() else { return };
        let source = SocketAddr::from(([198, 51, 100, 2], 4_000));
        self.relay.handle_datagram(self.now, Datagram { socket: SocketIndex::MAIN, source, bytes: &bytes });
        while let Some(transmit) = self.relay.poll_transmit() {
            if transmit.socket == SocketIndex::MAIN && self.down.len() < 256 {
                self.down.push_back(transmit.bytes);
            }
        }
    }

    fn deliver_down(&mut self, damage: impl FnOnce(&mut Vec<u8>)) {
        while let Some(transmit) = self.relay.poll_transmit() {
            if transmit.socket == SocketIndex::MAIN && self.down.len() < 256 {
                self.down.push_back(transmit.bytes);
            }
        }
        if let Some(mut bytes) = self.down.pop_front() {
            damage(&mut bytes);
            self.client.handle_datagram(self.now, from_server(&bytes));
        }
    }
}

fn from_server(bytes: &[u8]) -> Datagram<'_> {
    Datagram { socket: SocketIndex::MAIN, source: server(), bytes }
}

fn server() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 20], 3_478))
}

fn peer(input: &mut &[u8]) -> SocketAddr {
    let host = byte(input);
    SocketAddr::new(IpAddr::from([192, 0, 2 + host % 3, host]), 4_000 + u16::from(host % 5))
}

fn byte(input: &mut &[u8]) -> u8 {
    let Some((first, rest)) = input.split_first() else { return 0 };
    *input = rest;
    *first
}
