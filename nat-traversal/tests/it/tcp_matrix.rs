use std::net::SocketAddr;
use std::time::Duration;

use nat_traversal::MappedSocketAddr;
use nat_traversal::protocol::Seed;
use nat_traversal::testing::{Link, Nat, Net, Passage, Unsolicited};

use crate::tcp_world::{TcpOutcome, TcpWorld};
use crate::world::{Site, place_behind_one_carrier};

const fn with(unsolicited: Unsolicited) -> Nat {
    Nat { unsolicited, ..Nat::easy() }
}

pub(crate) const SITES: [Site; 14] = [
    Site { name: "open", nats: &[] },
    Site { name: "cone", nats: &[Nat::cone()] },
    Site { name: "acone", nats: &[Nat::address_cone()] },
    Site { name: "easy", nats: &[Nat::easy()] },
    Site { name: "easyrand", nats: &[Nat::easy_random()] },
    Site { name: "easy,udpblock", nats: &[Nat { blocks_udp: true, ..Nat::easy() }] },
    Site { name: "easy,reject", nats: &[with(Unsolicited::Reject)] },
    Site { name: "easy,accept", nats: &[with(Unsolicited::Accept)] },
    Site { name: "easy,blacklist", nats: &[with(Unsolicited::Blacklist)] },
    Site { name: "cgnat", nats: &[Nat::easy(), Nat::easy()] },
    Site { name: "hardseq", nats: &[Nat::hard_sequential()] },
    Site { name: "hardad", nats: &[Nat::hard_by_address()] },
    Site { name: "hard", nats: &[Nat::hard()] },
    Site { name: "cgnathard", nats: &[Nat::easy(), Nat::hard()] },
];

/// What is declared of a pair of sites, from the rules of the two NATs alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Declared {
    /// Direct, within 400 ms: openers, then two and a half round trips of 80 ms.
    Soon,
    /// Direct, within 1,100 ms: only one side gets in, and its first attempt may be in the way of the other's.
    OneWay,
    /// Not direct: there is no spray for TCP.
    NotMet,
    /// Not direct, and given up at once.
    Never,
}

pub(crate) fn declared(a: &str, b: &str) -> Declared {
    let random = |name| matches!(name, "hard" | "hardad" | "cgnathard");
    let open = |name| matches!(name, "open" | "cone" | "acone");
    match (random(a), random(b)) {
        (false, false) => Declared::Soon,
        (true, true) => Declared::Never,
        _ if a == "hardseq" || b == "hardseq" => Declared::Never,
        _ if open(a) || open(b) => Declared::OneWay,
        _ => Declared::NotMet,
    }
}

/// Runs one cell once; what it did if that was not declared.
pub(crate) fn surprise(seed: u64, sites: [Site; 2]) -> Option<String> {
    let declared = declared(sites[0].name, sites[1].name);
    let outcome = punch(seed, sites, link(), Duration::ZERO);
    let as_declared = match declared {
        Declared::Soon => outcome.is_direct() && outcome.took <= Duration::from_millis(400),
        Declared::OneWay => outcome.is_direct() && outcome.took <= Duration::from_millis(1_100),
        Declared::NotMet => outcome.events == [None, None],
        Declared::Never => outcome.is_hopeless() && outcome.took.is_zero(),
    };
    let [a, b] = sites.map(|site| site.name);
    (!as_declared || !outcome.is_agreed())
        .then(|| format!("TCP {a} {b} seed {seed}: {outcome:?}, not {declared:?}"))
}

#[test]
fn every_pair_of_nats_ends_as_declared_over_tcp() {
    let mut surprises = Vec::new();
    for a in SITES {
        for b in SITES {
            surprises.extend((0..4).filter_map(|seed| surprise(seed, [a, b])));
        }
    }
    assert!(surprises.is_empty(), "{} surprises:\n{}", surprises.len(), surprises.join("\n"));
}

#[test]
fn a_peer_that_begins_five_seconds_later_is_met_over_tcp() {
    for a in &SITES[..11] {
        for b in &SITES[..11] {
            let outcome = punch(1, [*a, *b], link(), Duration::from_secs(5));
            // A router that shuts out whom it saw too early has seen the first one by then, and one that keeps the flow
            // for itself sends the second one's from another port, which only some let in.
            let declared = match b.name {
                "easy,blacklist" => false,
                "easy,accept" => matches!(a.name, "open" | "cone" | "acone"),
                _ => true,
            };
            assert_eq!(outcome.is_direct(), declared, "{} {}: {outcome:?}", a.name, b.name);
            let soon = outcome.took <= Duration::from_millis(1_100);
            assert!(soon || !declared, "{} {}: {outcome:?}", a.name, b.name);
        }
    }
}

#[test]
fn with_five_percent_loss_it_works_at_the_first_try_over_tcp() {
    let mut took = Vec::new();
    for seed in 0..200 {
        let outcome = punch(seed, [site("easy"), site("easyrand")], link().loss(0.05), Duration::ZERO);
        took.push(if outcome.is_direct() { outcome.took } else { Duration::MAX });
    }
    took.sort_unstable();
    assert!(took[100] <= Duration::from_millis(300), "median {:?}", took[100]);
    assert!(took[195] <= Duration::from_secs(3), "98 %: {:?}", took[195]);
}

#[test]
fn behind_one_carrier_peers_meet_if_it_has_a_hairpin() {
    for hairpin in [false, true] {
        let mut net = Net::new(Seed::from(1));
        let hosts = place_behind_one_carrier(&mut net, Nat { hairpin, ..Nat::easy() }, link());
        let outcome = TcpWorld::map(net, Seed::from(2), hosts).punch(Duration::ZERO, PATIENCE);
        assert_eq!(outcome.is_direct(), hairpin, "{outcome:?}");
    }
}

#[test]
fn behind_one_nat_the_lan_is_used_over_tcp() {
    let mut net = Net::new(Seed::from(1));
    let nat = net.nat(None, "198.51.100.2", link(), Nat::hard());
    let hosts = ["192.168.1.11", "192.168.1.12"].map(|ip| {
        let address = SocketAddr::new(ip.parse().unwrap(), 4000);
        (net.host(Some(nat), ip, Link::default()), address)
    });
    let outcome = TcpWorld::map(net, Seed::from(2), hosts).punch(Duration::ZERO, PATIENCE);
    assert!(outcome.is_direct() && outcome.took < Duration::from_millis(120), "{outcome:?}");
    assert_eq!(outcome.ends[0], Some((hosts[0].1, hosts[1].1)));
}

#[test]
fn the_same_private_network_at_both_homes_leads_to_no_wrong_host_over_tcp() {
    let mut net = Net::new(Seed::from(1));
    // Both peers have the same address, and a third host of the first one's network has the second's port open.
    let mut peer = |outside: &str| {
        let nat = net.nat(None, outside, link(), Nat::easy());
        let host = net.host(Some(nat), "192.168.1.11", Link::default());
        (nat, (host, "192.168.1.11:4000".parse().unwrap()))
    };
    let (first, second) = (peer("198.51.100.2"), peer("192.0.2.2"));
    net.host(Some(first.0), "192.168.1.12", Link::default());
    let mut world = TcpWorld::map(net, Seed::from(2), [first.1, second.1]);
    world.peers[1].addresses.push(MappedSocketAddr::host("192.168.1.12:4000".parse().unwrap()));
    let outcome = world.punch(Duration::ZERO, PATIENCE);
    assert!(outcome.is_direct(), "{outcome:?}");
    assert_eq!(outcome.ends[0].unwrap().1.to_string(), "192.0.2.2:4000");
}

#[test]
fn an_address_that_never_answers_gets_five_connection_attempts_at_most() {
    let mut world = TcpWorld::new(1, [site("easy"), site("easy")], link());
    let silent = world.net.nat(None, "203.0.113.66", Link::default(), Nat::easy());
    world.net.host(Some(silent), "192.168.1.11", Link::default());
    let named = MappedSocketAddr::host("203.0.113.66:9".parse().unwrap());
    world.peers[1].addresses = (0..1_000).map(|_| named).collect();
    world.punch(Duration::ZERO, PATIENCE);
    let reached = world.net.trace().iter().filter(|entry| {
        entry.destination == named.addr && entry.passage == Passage::Filtered && entry.segment.is_some()
    });
    let count = reached.count();
    assert!((1..=5).contains(&count), "{count} packets");
}

#[test]
fn a_run_over_tcp_is_replayed_bit_for_bit_by_its_seed() {
    let run = |seed| {
        let mut world = TcpWorld::new(seed, [site("hardseq"), site("cgnat")], link().loss(0.1));
        world.punch(Duration::ZERO, PATIENCE);
        world.net.fingerprint()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

pub(crate) fn punch(seed: u64, sites: [Site; 2], link: Link, skew: Duration) -> TcpOutcome {
    TcpWorld::new(seed, sites, link).punch(skew, PATIENCE)
}

fn site(name: &str) -> Site {
    *SITES.iter().find(|site| site.name == name).unwrap()
}

/// 20 ms each way, and never quite the same.
pub(crate) fn link() -> Link {
    Link::delay(Duration::from_millis(20)).jitter(Duration::from_millis(2))
}

/// Longer than any punch of ours goes on.
const PATIENCE: Duration = Duration::from_secs(30);
