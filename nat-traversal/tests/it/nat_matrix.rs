use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nat_traversal::protocol::{Obstacle, PortRule, PunchEvent, PunchKeys, UdpPuncher};
use nat_traversal::testing::{Link, Nat, Passage, Unsolicited};

use crate::world::{Outcome, Peer, Site, World, place};

/// What is declared of a pair of sites.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Declared {
    /// Direct, within 300 ms.
    Soon,
    /// Direct with high probability after a spray.
    ByChance,
    /// Not direct, and given up at once.
    Never,
}

pub(crate) const SITES: [Site; 18] = [
    Site { name: "open", nats: &[] },
    Site { name: "cone", nats: &[Nat::cone()] },
    Site { name: "acone", nats: &[Nat::address_cone()] },
    Site { name: "easy", nats: &[Nat::easy()] },
    Site { name: "easyrand", nats: &[Nat::easy_random()] },
    Site { name: "easy,accept", nats: &[Nat { unsolicited: Unsolicited::Accept, ..Nat::easy() }] },
    Site { name: "easyrand,accept", nats: &[Nat { unsolicited: Unsolicited::Accept, ..Nat::easy_random() }] },
    Site { name: "easy,blacklist", nats: &[Nat { unsolicited: Unsolicited::Blacklist, ..Nat::easy() }] },
    Site {
        name: "easyrand,blacklist",
        nats: &[Nat { unsolicited: Unsolicited::Blacklist, ..Nat::easy_random() }],
    },
    Site { name: "cgnat", nats: &[Nat::easy(), Nat::easy()] },
    Site { name: "easy+easyrand", nats: &[Nat::easy(), Nat::easy_random()] },
    Site { name: "hardseq", nats: &[Nat::hard_sequential()] },
    Site { name: "cgnathardseq", nats: &[Nat::easy(), Nat::hard_sequential()] },
    Site { name: "hardad", nats: &[Nat::hard_by_address()] },
    Site { name: "hard", nats: &[Nat::hard()] },
    Site { name: "hard,accept", nats: &[Nat { unsolicited: Unsolicited::Accept, ..Nat::hard() }] },
    Site { name: "hard,blacklist", nats: &[Nat { unsolicited: Unsolicited::Blacklist, ..Nat::hard() }] },
    Site { name: "cgnathard", nats: &[Nat::easy(), Nat::hard()] },
];

/// From the rules of the two NATs alone: who lets whom in.
pub(crate) fn declared(a: &str, b: &str) -> Declared {
    let random = |name| matches!(name, "hard" | "hardad" | "cgnathard" | "hard,accept" | "hard,blacklist");
    let counts = |name| matches!(name, "hardseq" | "cgnathardseq");
    let open = |name| matches!(name, "open" | "cone" | "acone");
    match () {
        () if random(a) && (random(b) || counts(b)) || random(b) && counts(a) => Declared::Never,
        () if random(a) && !open(b) || random(b) && !open(a) => Declared::ByChance,
        () => Declared::Soon,
    }
}

/// Runs one cell once; what it did if that was not declared.
pub(crate) fn surprise(seed: u64, sites: [Site; 2]) -> Option<String> {
    let declared = declared(sites[0].name, sites[1].name);
    let outcome = punch(seed, sites, link(), Duration::ZERO);
    let as_declared = match declared {
        Declared::Soon => outcome.is_direct() && outcome.took <= Duration::from_millis(300),
        Declared::ByChance => outcome.is_direct() && outcome.took <= Duration::from_secs(25),
        Declared::Never => outcome.is_hopeless() && outcome.took.is_zero(),
    };
    let [a, b] = sites.map(|site| site.name);
    (!as_declared).then(|| format!("UDP {a} {b} seed {seed}: {outcome:?}, not {declared:?}"))
}

#[test]
fn every_pair_of_nats_ends_as_declared() {
    let mut surprises = Vec::new();
    let mut runs = 0;
    for a in SITES {
        for b in SITES {
            let declared = declared(a.name, b.name);
            let seeds = if declared == Declared::ByChance { 1 } else { 12 };
            for seed in 0..seeds {
                runs += 1;
                surprises.extend(surprise(seed, [a, b]));
            }
        }
    }
    println!("{runs} runs over {} cells, {} surprises", SITES.len() * SITES.len(), surprises.len());
    assert!(surprises.is_empty(), "{} surprises:\n{}", surprises.len(), surprises.join("\n"));
}

#[test]
fn both_peers_agree_on_the_pair() {
    for seed in 0..50 {
        let mut world = World::new(seed, [site("easy"), site("easyrand")], link().loss(0.05));
        let outcome = world.punch(Duration::ZERO, PATIENCE);
        let [Some(PunchEvent::Punched { peer: of_b, .. }), Some(PunchEvent::Punched { peer: of_a, .. })] =
            outcome.events
        else {
            panic!("seed {seed}: {outcome:?}")
        };
        assert!(world.peers[1].addresses.iter().any(|known| known.addr == of_b), "seed {seed}");
        assert!(world.peers[0].addresses.iter().any(|known| known.addr == of_a), "seed {seed}");
    }
}

#[test]
fn with_five_percent_loss_it_works_at_the_first_try() {
    let mut took = Vec::new();
    for seed in 0..500 {
        let outcome = punch(seed, [site("easy"), site("easyrand")], link().loss(0.05), Duration::ZERO);
        if outcome.is_direct() {
            took.push(outcome.took);
        }
    }
    took.sort_unstable();
    assert!(took.len() >= 490, "{} of 500", took.len());
    assert!(took[250] <= Duration::from_millis(300), "median {:?}", took[250]);
    assert!(took[489] <= Duration::from_millis(1_500), "{:?}", took[489]);
}

#[test]
fn a_peer_that_begins_five_seconds_later_is_met() {
    for a in &SITES[..5] {
        for b in &SITES[..5] {
            let outcome = punch(1, [*a, *b], link(), Duration::from_secs(5));
            assert!(outcome.is_direct(), "{} {}: {outcome:?}", a.name, b.name);
            assert!(outcome.took <= Duration::from_millis(400), "{} {}: {outcome:?}", a.name, b.name);
        }
    }
}

#[test]
fn behind_one_nat_the_lan_is_used() {
    for hairpin in [false, true] {
        let mut net = nat_traversal::testing::Net::new(1.into());
        let nat = net.nat(None, "198.51.100.2", link(), Nat { hairpin, ..Nat::hard() });
        let mut world = World::new(1, [site("easy"), site("easy")], link());
        for (peer, ip) in world.peers.iter_mut().zip(["192.168.1.11", "192.168.1.12"]) {
            peer.host = net.host(Some(nat), ip, Link::default());
            net.bind(peer.host, 4000);
            peer.addresses =
                vec![nat_traversal::MappedSocketAddr::host(format!("{ip}:4000").parse().unwrap())];
        }
        world.net = net;
        let outcome = world.punch(Duration::ZERO, PATIENCE);
        assert!(outcome.is_direct() && outcome.took < Duration::from_millis(120), "{outcome:?}");
    }
}

#[test]
fn behind_one_nat_that_keeps_its_hosts_apart_and_turns_nothing_round_the_reason_is_told() {
    for hairpin in [false, true] {
        let mut net = nat_traversal::testing::Net::new(1.into());
        let nat = net.nat(None, "198.51.100.2", link(), Nat { hairpin, ..Nat::easy() });
        let mut world = World::new(1, [site("easy"), site("easy")], link());
        for (peer, ip, port) in [(0, "192.168.1.11", 4000), (1, "192.168.2.12", 4001)] {
            let host = net.host(Some(nat), ip, Link::default());
            net.bind(host, port);
            let local = nat_traversal::MappedSocketAddr::host(SocketAddr::new(ip.parse().unwrap(), port));
            let seen = SocketAddr::new("198.51.100.2".parse().unwrap(), port);
            let seen = nat_traversal::MappedSocketAddr::reflexive(seen, nat_traversal::PortRule::Stable);
            world.peers[peer] = Peer { host, addresses: vec![local, seen] };
        }
        world.net = net;
        let keys = PunchKeys::derive(b"s", b"a", b"b").unwrap();
        let [a, b] = &world.peers;
        let silent = UdpPuncher::new(world.net.now(), &a.addresses, &b.addresses, keys, 1.into());
        assert_eq!(silent.obstacle(), Obstacle::SameNat);
        assert_eq!(world.punch(Duration::ZERO, PATIENCE).is_direct(), hairpin);
    }
}

#[test]
fn the_same_private_network_at_both_homes_leads_to_no_wrong_host() {
    let mut world = World::new(1, [site("easy"), site("easy")], link());
    // The second peer's private address exists on the first one's network as well, at another host.
    let claimed = nat_traversal::MappedSocketAddr::host("192.168.1.12:4000".parse().unwrap());
    world.peers[1].addresses[0] = claimed;
    let outcome = world.punch(Duration::ZERO, PATIENCE);
    let Some(PunchEvent::Punched { peer, .. }) = outcome.events[0] else { panic!("{outcome:?}") };
    assert_eq!(peer.to_string(), "192.0.2.2:4000");
}

#[test]
fn random_ports_meet_a_port_restricted_nat_as_often_as_computed() {
    const RUNS: u64 = 60;
    let mut took = Vec::new();
    for seed in 0..RUNS {
        // Both directions: the side with random ports is the first, then the second.
        let (sites, random) =
            if seed.is_multiple_of(2) { (["hard", "easy"], 0) } else { (["easy", "hard"], 1) };
        let mut world = World::new(seed, sites.map(site), link());
        let outcome = world.punch(Duration::ZERO, PATIENCE);
        if !outcome.is_direct() {
            assert_missed_by_chance(&world, random, seed);
        }
        took.push(if outcome.is_direct() { outcome.took } else { Duration::MAX });
    }
    took.sort_unstable();
    // Of n knocks at 64,512 ports of which 256 are open, at least one hits with 1 - (1 - 256/64,512)^n.
    let by_three_seconds = took.iter().filter(|took| **took <= Duration::from_secs(3)).count();
    let by_twelve_seconds = took.iter().filter(|took| **took <= Duration::from_secs(12)).count();
    assert!((26..=54).contains(&by_three_seconds), "{by_three_seconds} of 60; computed are 37");
    assert!(by_twelve_seconds >= 56, "{by_twelve_seconds} of 60; computed are 59");
    let late = took.iter().filter(|took| (Duration::from_secs(25)..Duration::MAX).contains(took)).count();
    assert_eq!(late, 0, "{took:?}");
}

/// All knocks and openers went out, and no number is among both.
fn assert_missed_by_chance(world: &World, random: usize, seed: u64) {
    let outside: [IpAddr; 2] = ["198.51.100.2", "192.0.2.2"].map(|ip| ip.parse().unwrap());
    let (drawing, keeping) = (outside[random], outside[1 - random]);
    let between = |from, to| {
        let trace = world.net.trace().iter();
        trace.filter(move |entry| entry.source.ip() == from && entry.destination.ip() == to)
    };
    let knocked: BTreeSet<u16> = between(keeping, drawing).map(|entry| entry.destination.port()).collect();
    let opened: BTreeSet<u16> = between(drawing, keeping).map(|entry| entry.source.port()).collect();
    assert!(knocked.len() >= 2_048 && opened.len() >= 256, "seed {seed}: {} {}", knocked.len(), opened.len());
    assert!(knocked.is_disjoint(&opened), "seed {seed}: {:?}", knocked.intersection(&opened));
}

#[test]
fn a_nat_that_was_taken_for_one_that_counts_is_sprayed_in_the_end() {
    for sides in [["hard", "easy"], ["easy", "hard"], ["hard", "easy,accept"]] {
        let mut world = World::new(1, sides.map(site), link());
        for address in world.peers.iter_mut().flat_map(|peer| &mut peer.addresses) {
            if address.ports == PortRule::Random {
                address.ports = PortRule::Sequential(3);
            }
        }
        let outcome = world.punch(Duration::ZERO, PATIENCE);
        assert!(outcome.is_direct() && outcome.took <= Duration::from_secs(25), "{sides:?}: {outcome:?}");
    }
}

#[test]
fn a_nat_farther_away_than_dying_openers_get_is_met_later() {
    let mut net = nat_traversal::testing::Net::new(1.into());
    let carrier = net.nat(None, "198.51.100.2", link(), Nat::hard());
    let home = net.nat(Some(carrier), "100.64.0.2", Link::default().hops(6), Nat::easy());
    let far = net.host(Some(home), "192.168.1.11", Link::default());
    net.bind(far, 4000);
    let (near, near_socket) = place(&mut net, 1, site("easy"), link());
    let hosts = [(far, "192.168.1.11:4000".parse().unwrap()), (near, near_socket)];
    let outcome = World::map(net, 1.into(), hosts).punch(Duration::ZERO, PATIENCE);
    assert!(outcome.is_direct() && outcome.took > Duration::from_secs(14), "{outcome:?}");
    assert!(outcome.took <= Duration::from_secs(25), "{outcome:?}");
}

#[test]
fn openers_that_live_as_long_as_measured_open_a_carriers_nat_in_time() {
    const CARRIER: Nat = Nat { unsolicited: Unsolicited::Accept, ..Nat::easy() };
    const NATS: &[Nat] = &[Nat::easy(), CARRIER];
    let sites = [site("easy"), Site { name: "easy+easy,accept", nats: NATS }];
    for (hops, met) in [(None, false), (Some(3), true)] {
        let mut world = World { opener_hops: hops, ..World::new(1, sites, link()) };
        // The peer's check comes between this one's openers and its checks.
        let outcome = world.punch(Duration::from_millis(60), PATIENCE);
        assert_eq!(outcome.is_direct(), met, "{hops:?}: {outcome:?}");
    }
}

#[test]
fn an_address_that_never_answers_gets_five_packets_at_most() {
    let sizes = packets_to_a_victim(1, site("easy"));
    assert!(sizes.len() <= 5 && sizes.iter().sum::<usize>() <= 1_200, "{sizes:?}");
}

/// The sizes of what a third party gets whose address the peer, behind that NAT, names a thousand times instead of its own.
pub(crate) fn packets_to_a_victim(seed: u64, peer: Site) -> Vec<usize> {
    let mut world = World::new(seed, [site("easy"), peer], link());
    let victim = world.net.host(None, "203.0.113.66", Link::default());
    world.net.bind(victim, 9);
    let named = nat_traversal::MappedSocketAddr::host("203.0.113.66:9".parse().unwrap());
    world.peers[1].addresses = (0..1_000).map(|_| named).collect();
    assert!(!world.punch(Duration::ZERO, PATIENCE).is_direct());
    let is_delivered = |entry: &&nat_traversal::testing::TraceEntry| {
        entry.destination == named.addr && entry.passage == Passage::Delivered
    };
    world.net.trace().iter().filter(is_delivered).map(|entry| entry.payload_bytes).collect()
}

#[test]
fn two_nats_with_random_ports_are_given_up_with_the_reason() {
    let outcome = punch(1, [site("hard"), site("hard")], link(), Duration::ZERO);
    assert_eq!(outcome.events, [Some(PunchEvent::Hopeless(Obstacle::BothUnpredictable)); 2]);
}

#[test]
fn a_run_is_replayed_bit_for_bit_by_its_seed() {
    let run = |seed| {
        let mut world = World::new(seed, [site("hard"), site("easy")], link().loss(0.1));
        world.punch(Duration::ZERO, PATIENCE);
        world.net.fingerprint()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

pub(crate) fn punch(seed: u64, sites: [Site; 2], link: Link, skew: Duration) -> Outcome {
    World::new(seed, sites, link).punch(skew, PATIENCE)
}

pub(crate) fn site(name: &str) -> Site {
    *SITES.iter().find(|site| site.name == name).unwrap()
}

/// 20 ms each way, and never quite the same, over some routers of a provider.
pub(crate) fn link() -> Link {
    Link::delay(Duration::from_millis(20)).jitter(Duration::from_millis(2)).hops(4)
}

/// Longer than any punch of ours goes on.
const PATIENCE: Duration = Duration::from_secs(30);
