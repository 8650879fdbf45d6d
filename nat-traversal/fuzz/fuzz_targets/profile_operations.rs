//! The two probers and servers that say whatever the input holds, late, twice, from anywhere. Nobody panics, they end in time
//! with one outcome each, and send little.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nat_traversal::protocol::nat_profile::LifetimeProber;
use nat_traversal::protocol::stun::{Class, Message, MessageBuilder, Method, attribute};
use nat_traversal::protocol::{Datagram, Machine as _, NatProber, Seed, SocketIndex, Transmit};

fuzz_target!(|bytes: &[u8]| {
    let mut input = bytes.iter().copied();
    let begun = nat_traversal::testing::epoch();
    let mut now = begun;
    let servers: [SocketAddr; 2] =
        ["203.0.113.10:3478", "203.0.113.20:3478"].map(|at| at.parse().expect("ok"));
    let local: SocketAddr = "192.168.1.11:4000".parse().expect("an address");
    let mut prober = NatProber::new(now, &servers, &[local], 4000, Seed::from(1));
    let mut sent: Vec<Transmit> = Vec::new();
    let mut profiles = 0;
    let ports: Vec<u16> = (4_001..).take(NatProber::FURTHER).collect();
    prober = prober.further_ports(&ports);
    let most = Duration::from_secs(2);
    let mut lifetime = LifetimeProber::new(now, servers[0], most, Seed::from(2));
    let mut lifetimes = 0;
    while let (Some(operation), Some(argument)) = (input.next(), input.next()) {
        if operation % 4 == 0 || sent.is_empty() {
            now += Duration::from_millis(u64::from(argument));
        } else {
            let request = &sent[usize::from(argument) % sent.len()];
            let transaction = Message::decode(&request.bytes).expect("we sent it").transaction();
            let port = 4_000 + u16::from(input.next().unwrap_or(0));
            let seen = SocketAddr::new("198.51.100.2".parse().expect("ok"), port);
            let other =
                SocketAddr::new("203.0.113.11".parse().expect("ok"), 3478 + u16::from(operation >> 5));
            let class = [Class::Success, Class::Error, Class::Request][usize::from(operation >> 2) % 3];
            let mut answer = MessageBuilder::new(class, Method::BINDING, transaction).mapped_address(seen);
            if operation & 16 > 0 {
                answer = answer.address(attribute::OTHER_ADDRESS, other);
            }
            let source = if operation & 2 > 0 { request.destination } else { other };
            let socket =
                if operation & 1 > 0 { request.socket } else { SocketIndex(u16::from(argument % 7)) };
            let bytes = answer.fingerprint();
            prober.handle_datagram(now, Datagram { socket, source, bytes: &bytes });
            lifetime.handle_datagram(now, Datagram { socket, source, bytes: &bytes });
        }
        prober.handle_timeout(now);
        lifetime.handle_timeout(now);
        sent.extend(std::iter::from_fn(|| prober.poll_transmit()));
        sent.extend(std::iter::from_fn(|| lifetime.poll_transmit()));
        profiles += u32::from(prober.poll_event().is_some());
        lifetimes += u32::from(lifetime.poll_event().is_some());
        // The second opens 25 ports and asks for each, three times at most.
        assert!(profiles <= 1 && lifetimes <= 1 && sent.len() <= 128 + 150, "{} packets", sent.len());
    }
    now = now.max(begun + NatProber::MOST);
    prober.handle_timeout(now);
    profiles += u32::from(prober.poll_event().is_some());
    assert_eq!((profiles, prober.poll_timeout()), (1, None));
    now = now.max(begun + LifetimeProber::takes(most));
    lifetime.handle_timeout(now);
    lifetimes += u32::from(lifetime.poll_event().is_some());
    assert_eq!((lifetimes, lifetime.poll_timeout()), (1, None));
});
