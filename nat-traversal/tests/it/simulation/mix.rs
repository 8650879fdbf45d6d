//! What the strategies are worth where NATs are mixed as in the world: the share of pairs that meet directly over UDP.
//!
//! The mix is the one that the hole-punching code of KTH and SICS is configured with, as "roberto's statistics", percentages of hosts by
//! mapping, allocation of ports and filtering together:
//! <https://github.com/jimdowling/nat-traverser>, `hole-punching/hp-client-main/…/clientmain/Configuration.java`, commit `50a96de`. The words
//! and the three axes are those of Roverso, El-Ansary and Haridi, "NATCracker: NAT Combinations Matter" (ICCCN 2009); when and where
//! the hosts were counted is not said there. It has no carriers behind homes, and no host whose UDP is blocked.

use std::time::Duration;

use nat_traversal::protocol::PortRule;
use nat_traversal::testing::{Nat, PortChoice, Rule};

use crate::nat_matrix::link;
use crate::world::{Site, World};

/// NATs and how many of a hundred hosts are behind such a one, in the order and words of the source: `m` mapping, `a` allocation (ports
/// preserved, contiguous, random), `f` filtering; endpoint-independent, host-dependent, port-dependent.
const MIX: [(&str, &[Nat], f64); 14] = [
    ("m(EI) a(PP) f(PD)", &[Nat::easy()], 25.2),
    ("open", &[], 21.4),
    ("m(PD) a(RD) f(PD)", &[Nat::hard()], 12.4),
    ("m(EI) a(RD) f(PD)", &[Nat::easy_random()], 9.9),
    ("m(EI) a(PP) f(EI)", &[Nat::cone()], 9.3),
    ("m(EI) a(RD) f(EI)", &[Nat { ports: PortChoice::Random, ..Nat::cone() }], 7.7),
    ("m(EI) a(PP) f(HD)", &[Nat::address_cone()], 4.6),
    ("m(EI) a(PC) f(EI)", &[Nat { ports: PortChoice::Sequential(1), ..Nat::cone() }], 4.4),
    // Where the port is taken, and so for every second destination, they go on with the next one.
    ("m(PD) a(PP) f(PD)", &[Nat::hard_sequential()], 2.6),
    ("m(PD) a(PP) f(EI)", &[Nat { filtering: Rule::EndpointIndependent, ..Nat::hard_sequential() }], 0.7),
    ("m(PD) a(RD) f(EI)", &[Nat { filtering: Rule::EndpointIndependent, ..Nat::hard() }], 0.6),
    ("m(EI) a(PC) f(PD)", &[Nat { ports: PortChoice::Sequential(1), ..Nat::easy() }], 0.6),
    ("m(EI) a(RD) f(HD)", &[Nat { ports: PortChoice::Random, ..Nat::address_cone() }], 0.4),
    ("m(HD) a(RD) f(PD)", &[Nat::hard_by_address()], 0.2),
];

/// What is done without.
#[derive(Clone, Copy)]
struct Without {
    prediction: bool,
    spray: bool,
}

#[test]
#[ignore = "a figure, best in release: see the module"]
fn direct_share_of_the_world() {
    println!("mix, of a hundred hosts:");
    for (name, _, share) in MIX {
        println!("  {name:<18}{share:>5.1}");
    }
    assert!((MIX.iter().map(|(_, _, share)| share).sum::<f64>() - 100.0).abs() < 1e-9);
    let keeps = |nat: &Nat| nat.mapping == Rule::EndpointIndependent;
    let lets_in = |nat: &Nat| keeps(nat) && nat.filtering == Rule::EndpointIndependent;
    let open = 1.0 - (1.0 - share_of(|nat| nat.is_none_or(lets_in))).powi(2);
    println!("pairs that meet directly over UDP:");
    println!("  one side lets everybody in, nobody punches       {:>5.1} %", 100.0 * open);
    let mut last = open;
    for (what, without) in [
        ("both send together", Without { prediction: true, spray: true }),
        ("and the next ports are predicted", Without { prediction: false, spray: true }),
        ("and random ports are sprayed: all strategies", Without { prediction: false, spray: false }),
    ] {
        let direct = direct_share(without);
        println!("  {what:<49}{:>5.1} %", 100.0 * direct);
        assert!(direct >= last, "each strategy adds to those before");
        last = direct;
    }
    let without_prediction = direct_share(Without { prediction: true, spray: false });
    println!("  all but prediction                               {:>5.1} %", 100.0 * without_prediction);
    // What is left are pairs of which one draws ports and the other draws or counts them.
    let counts = |nat: &Nat| matches!(nat.ports, PortChoice::Sequential(_));
    let random = share_of(|nat| nat.is_some_and(|nat| !keeps(nat) && !counts(nat)));
    let counts = share_of(|nat| nat.is_some_and(|nat| !keeps(nat) && counts(nat)));
    let hopeless = random * random + 2.0 * random * counts;
    println!("  both unpredictable, which nothing helps          {:>5.1} %", 100.0 * hopeless);
    assert!((1.0 - last - hopeless).abs() <= 0.01, "all others meet, but for bad luck");
}

/// The share of pairs that are direct, each weighed by how often it is met.
fn direct_share(without: Without) -> f64 {
    let mut direct = 0.0;
    for (row, (name_a, a, share_a)) in MIX.into_iter().enumerate() {
        for (column, (name_b, b, share_b)) in MIX.into_iter().enumerate() {
            let sites = [(name_a, a), (name_b, b)].map(|(name, nats)| Site { name, nats });
            let met = (0..RUNS).filter(|run| {
                let seed = 5_000_000 + *run * 100 + u64::try_from(row * MIX.len() + column).unwrap();
                let mut world = World::new(seed, sites, link());
                for address in world.peers.iter_mut().flat_map(|peer| &mut peer.addresses) {
                    address.ports = told(address.ports, without);
                }
                world.punch(Duration::ZERO, PATIENCE).is_direct()
            });
            let met = u32::try_from(met.count()).unwrap();
            direct += share_a * share_b / 10_000.0 * f64::from(met) / RUNS as f64;
        }
    }
    direct
}

/// What a peer that lacks a strategy makes of a NAT: the port seen last, and nothing more.
const fn told(rule: PortRule, without: Without) -> PortRule {
    match rule {
        PortRule::Random if without.spray => PortRule::Unknown,
        PortRule::Sequential(_) if without.prediction && without.spray => PortRule::Unknown,
        PortRule::Sequential(_) if without.prediction => PortRule::Random,
        other => other,
    }
}

fn share_of(which: impl Fn(Option<&Nat>) -> bool) -> f64 {
    MIX.iter().filter(|(_, nats, _)| which(nats.first())).map(|(_, _, share)| share / 100.0).sum()
}

/// Of each pair, and of each direction.
const RUNS: u64 = 5;

/// Longer than any punch of ours goes on.
const PATIENCE: Duration = Duration::from_secs(30);
