use super::*;
use crate::testing::Rule;

const SERVER: &str = "203.0.113.10:3478";

#[test]
fn a_hairpin_gives_the_inside_peer_our_outside_address() {
    for hairpin in [true, false] {
        let mut home = Home::new(1, Nat { hairpin, ..Nat::cone() });
        let other = home.net.host(Some(home.nat), "192.168.1.12", Link::default());
        home.net.bind(other, 4001);
        home.net.send(other, SocketIndex::MAIN, SERVER.parse().unwrap(), b"open");
        home.net.send(home.laptop, SocketIndex::MAIN, "198.51.100.2:4001".parse().unwrap(), b"hello");
        let arrived = home.net.receive(other, Duration::from_secs(1));
        assert_eq!(arrived.map(|a| a.source.to_string()), hairpin.then(|| "198.51.100.2:4000".to_owned()));
    }
}

#[test]
fn two_nats_in_a_row_both_translate() {
    let mut net = Net::new(Seed::from(1));
    let server = net.host(None, "203.0.113.10", Link::default());
    let carrier = net.nat(None, "198.51.100.2", Link::default(), Nat::easy_random());
    let home = net.nat(Some(carrier), "100.64.10.2", Link::default(), Nat::easy());
    let laptop = net.host(Some(home), "192.168.1.11", Link::default());
    net.bind(server, 3478);
    net.bind(laptop, 4000);
    net.send(laptop, SocketIndex::MAIN, SERVER.parse().unwrap(), b"ping");
    let ping = net.receive(server, Duration::from_secs(1)).unwrap();
    assert_eq!(ping.source.ip().to_string(), "198.51.100.2");
    net.send(server, SocketIndex::MAIN, ping.source, b"pong");
    assert_eq!(net.receive(laptop, Duration::from_secs(1)).unwrap().bytes, b"pong");
}

#[test]
fn a_packet_goes_no_further_than_its_hops() {
    for (hops, arrives) in [(1, false), (2, false), (3, true)] {
        let mut home = Home::new(1, Nat::easy());
        home.net.transmit(
            home.laptop,
            Transmit {
                socket: SocketIndex::MAIN,
                destination: SERVER.parse().unwrap(),
                bytes: b"ping".to_vec(),
                hops: Some(hops),
            },
        );
        let arrived = home.net.receive(home.server, Duration::from_secs(1));
        assert_eq!(arrived.is_some(), arrives, "{hops} hops");
    }
}

#[test]
fn a_seed_replays_a_run_bit_for_bit_and_another_seed_does_not() {
    let run = |seed| {
        let mut home = Home::new(seed, Nat { filtering: Rule::EndpointIndependent, ..Nat::hard() });
        for count in 0..50 {
            home.net.send(home.laptop, SocketIndex(count % 5), SERVER.parse().unwrap(), &[0; 100]);
        }
        while home.net.receive(home.server, Duration::from_secs(1)).is_some() {}
        home.net.fingerprint()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_link_loses_its_share_delays_reorders_and_keeps_its_rate() {
    let mut net = Net::new(Seed::from(3));
    let link =
        Link::delay(Duration::from_millis(10)).loss(0.2).jitter(Duration::from_millis(5)).rate_bytes(142_000);
    let sender = net.host(None, "198.51.100.2", link);
    let server = net.host(None, "203.0.113.10", Link::default());
    net.bind(sender, 4000);
    net.bind(server, 3478);
    for number in 0..1_000_u32 {
        net.send(
            sender,
            SocketIndex::MAIN,
            SERVER.parse().unwrap(),
            &[&number.to_be_bytes()[..], &[0; 96]].concat(),
        );
    }
    let mut numbers = Vec::new();
    while let Some(arrived) = net.receive(server, Duration::from_millis(100)) {
        numbers.push(u32::from_be_bytes(arrived.bytes[..4].try_into().unwrap()));
    }
    assert!((750..=850).contains(&numbers.len()), "{} of 1,000 arrived", numbers.len());
    assert!(!numbers.is_sorted(), "a jitter above the gap between packets reorders");
    let time = net.elapsed();
    assert!(time >= Duration::from_millis(750), "1,000 packets a second at most: {time:?}");
}

/// A laptop behind a NAT, and a server.
struct Home {
    net: Net,
    server: NodeId,
    nat: NodeId,
    laptop: NodeId,
}

impl Home {
    fn new(seed: u64, nat: Nat) -> Self {
        let mut net = Net::new(Seed::from(seed));
        let server = net.host(None, "203.0.113.10", Link::delay(Duration::from_millis(20)).loss(0.01));
        let nat = net.nat(None, "198.51.100.2", Link::default(), nat);
        let laptop = net.host(Some(nat), "192.168.1.11", Link::default());
        net.bind(server, 3478);
        net.bind(laptop, 4000);
        Self { net, server, nat, laptop }
    }
}
