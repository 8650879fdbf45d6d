//! Each figure that is asked of the punchers, in memory.

use std::net::SocketAddr;
use std::time::Duration;

use nat_traversal::protocol::Seed;
use nat_traversal::testing::{Link, Nat, Net};

use super::bar::{Bar, print_head, print_row};
use crate::nat_matrix::{link, packets_to_a_victim, punch, site};
use crate::tcp_world::TcpWorld;
use crate::world::{Site, World, place_behind_one_carrier};
use crate::{nat_matrix, tcp_matrix};

#[test]
#[ignore = "a figure, best in release: see the module"]
fn each_row_is_as_asked() {
    print_head();
    let chance = Bar::share(0.98).p50(3_000).p95(12_000).worst(25_000);
    let rows = [
        udp("UDP, endpoint-independent pairs, all", &KEEPING, &KEEPING, 10, Bar::share(1.0).p95(300)),
        udp("UDP, accept or blacklist at one side or both", &STRICT, &ALL_KEEPING, 10, Bar::share(1.0)),
        udp("port-restricted x random, both directions", &RESTRICTED, &["hard", "cgnathard"], 60, chance),
        udp("port-restricted x random within a block of 2,048", &RESTRICTED, &["hardblock"], 60, chance),
        udp("port-restricted x sequential, both directions", &RESTRICTED, &SEQUENTIAL, 40, Bar::share(0.95)),
        udp("sequential x sequential", &SEQUENTIAL, &SEQUENTIAL, 40, Bar::share(0.90)),
        udp("open, cone, acone x random by address, both", &OPEN, &["hardad"], 40, Bar::share(1.0)),
        udp("open, cone, acone x other symmetric, both", &OPEN, &SYMMETRIC, 20, Bar::share(1.0)),
        udp("port-restricted x random by address, both", &RESTRICTED, &["hardad"], 60, chance),
        print_row("equal private addresses; one NAT or carrier, hairpin", &places(true), Bar::share(1.0)),
        never("the same without hairpin", &places(false)),
        print_row("TCP where no UDP leaves", &blocked(), Bar::share(0.98).p95(800)),
        print_row(
            "5 % loss each way, at the first try (worst of 50)",
            &lossy(),
            Bar::share(0.98).p50(300).worst(1_500),
        ),
        silent(),
    ];
    let missed = rows.iter().filter(|held| !**held).count();
    assert_eq!(missed, 0, "{missed} rows are not as asked");
}

/// Every pair of these, in both directions.
fn udp(name: &str, ones: &[&'static str], others: &[&'static str], runs: u64, bar: Bar) -> bool {
    let mut outcomes = Vec::new();
    for one in ones {
        for other in others {
            for (direction, pair) in [[one, other], [other, one]].into_iter().enumerate() {
                for run in 0..runs {
                    let cell = outcomes.len() as u64;
                    let seed = 7_000_000 + cell * 1_000 + run * 2 + direction as u64;
                    let outcome = punch(seed, pair.map(|name| named(name)), link(), Duration::ZERO);
                    outcomes.push(outcome.is_direct().then_some(outcome.took));
                }
            }
        }
    }
    print_row(name, &outcomes, bar)
}

/// None of these is to be direct.
fn never(name: &str, outcomes: &[Option<Duration>]) -> bool {
    let direct = outcomes.iter().flatten().count();
    let mark = if direct == 0 { "ok" } else { "!! some were" };
    println!("{name:<58}{:>6} {:>6.2}%   none  {mark}", outcomes.len(), 0.0);
    direct == 0
}

/// Peers that share a NAT or a carrier, or whose networks have equal addresses.
fn places(hairpin: bool) -> Vec<Option<Duration>> {
    let mut outcomes = Vec::new();
    for seed in 0..40 {
        for nat in [Nat::easy(), Nat::easy_random()] {
            let carrier = Nat { hairpin, ..nat };
            let mut net = Net::new(Seed::from(seed));
            let hosts = place_behind_one_carrier(&mut net, carrier, link());
            let outcome = World::map(net, Seed::from(seed), hosts).punch(Duration::ZERO, PATIENCE);
            outcomes.push(outcome.is_direct().then_some(outcome.took));
            let mut net = Net::new(Seed::from(seed));
            let hosts = place_behind_one_carrier(&mut net, carrier, link());
            let outcome = TcpWorld::map(net, Seed::from(seed), hosts).punch(Duration::ZERO, PATIENCE);
            outcomes.push(outcome.is_direct().then_some(outcome.took));
        }
        if hairpin {
            outcomes.extend([equal_addresses(seed), guests(seed)]);
        }
    }
    outcomes
}

/// Both hosts have the same private address, at two sites.
fn equal_addresses(seed: u64) -> Option<Duration> {
    let mut net = Net::new(Seed::from(seed));
    let hosts = ["198.51.100.2", "192.0.2.2"].map(|outside| {
        let nat = net.nat(None, outside, link(), Nat::easy());
        let host = net.host(Some(nat), "192.168.1.11", Link::default());
        net.bind(host, 4000);
        (host, SocketAddr::from(([192, 168, 1, 11], 4000)))
    });
    let outcome = World::map(net, Seed::from(seed), hosts).punch(Duration::ZERO, PATIENCE);
    outcome.is_direct().then_some(outcome.took)
}

/// Both are behind one NAT with hairpin, which does not let them see each other.
fn guests(seed: u64) -> Option<Duration> {
    let mut net = Net::new(Seed::from(seed));
    let nat = net.nat(None, "198.51.100.2", link(), Nat { hairpin: true, ..Nat::easy_random() });
    let hosts = [[192, 168, 1, 11], [192, 168, 2, 12]].map(|ip| {
        let address = SocketAddr::from((ip, 4000));
        let host = net.host(Some(nat), &address.ip().to_string(), Link::default());
        net.bind(host, 4000);
        (host, address)
    });
    let outcome = World::map(net, Seed::from(seed), hosts).punch(Duration::ZERO, PATIENCE);
    outcome.is_direct().then_some(outcome.took)
}

fn blocked() -> Vec<Option<Duration>> {
    const BLOCKED: [Site; 4] = [
        Site { name: "cone,udpblock", nats: &[Nat { blocks_udp: true, ..Nat::cone() }] },
        Site { name: "easy,udpblock", nats: &[Nat { blocks_udp: true, ..Nat::easy() }] },
        Site { name: "easyrand,udpblock", nats: &[Nat { blocks_udp: true, ..Nat::easy_random() }] },
        Site { name: "cgnat,udpblock", nats: &[Nat { blocks_udp: true, ..Nat::easy() }, Nat::easy()] },
    ];
    let mut outcomes = Vec::new();
    for (row, a) in BLOCKED.iter().enumerate() {
        for (column, b) in BLOCKED.iter().enumerate() {
            for run in 0..20 {
                let seed = 8_000_000 + run * 100 + (row * BLOCKED.len() + column) as u64;
                let outcome = tcp_matrix::punch(seed, [*a, *b], tcp_matrix::link(), Duration::ZERO);
                outcomes.push(outcome.is_direct().then_some(outcome.took));
            }
        }
    }
    outcomes
}

fn lossy() -> Vec<Option<Duration>> {
    let run = |seed: u64| {
        let sites = [site("easy"), site("easyrand")];
        let outcome = punch(9_000_000 + seed, sites, link().loss(0.05), Duration::ZERO);
        outcome.is_direct().then_some(outcome.took)
    };
    (0..50).map(run).collect()
}

/// How much an address gets that only a peer names, at one of its ports, whatever else that peer says.
fn silent() -> bool {
    let (mut most_packets, mut most_bytes) = (0, 0);
    for (seed, name) in (0..).zip(["easy", "hard", "hardseq", "easyrand"]) {
        let sizes = packets_to_a_victim(seed, site(name));
        most_packets = most_packets.max(sizes.len());
        most_bytes = most_bytes.max(sizes.iter().sum());
    }
    let held = most_packets <= 5 && most_bytes <= 1_200;
    println!(
        "{:<58}{most_packets} packets, {most_bytes} bytes   ≤ 5, ≤ 1,200  {}",
        "to an address and port that never answer",
        if held { "ok" } else { "!! missed" },
    );
    held
}

fn named(name: &str) -> Site {
    const BLOCK: Site = Site { name: "hardblock", nats: &[Nat::hard_block()] };
    const REJECT: Site = Site {
        name: "easy,reject",
        nats: &[Nat { unsolicited: nat_traversal::testing::Unsolicited::Reject, ..Nat::easy() }],
    };
    match name {
        "hardblock" => BLOCK,
        "easy,reject" => REJECT,
        other => nat_matrix::site(other),
    }
}

const KEEPING: [&str; 7] = ["open", "cone", "acone", "easy", "easyrand", "cgnat", "easy,reject"];
const STRICT: [&str; 4] = ["easy,accept", "easyrand,accept", "easy,blacklist", "easyrand,blacklist"];
const ALL_KEEPING: [&str; 11] = [
    "open",
    "cone",
    "acone",
    "easy",
    "easyrand",
    "cgnat",
    "easy,reject",
    "easy,accept",
    "easyrand,accept",
    "easy,blacklist",
    "easyrand,blacklist",
];
const RESTRICTED: [&str; 3] = ["easy", "easyrand", "cgnat"];
const SEQUENTIAL: [&str; 2] = ["hardseq", "cgnathardseq"];
const SYMMETRIC: [&str; 4] = ["hard", "cgnathard", "hardseq", "cgnathardseq"];
const OPEN: [&str; 3] = ["open", "cone", "acone"];

/// Longer than any punch of ours goes on.
const PATIENCE: Duration = Duration::from_secs(30);
