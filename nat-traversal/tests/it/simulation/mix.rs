//! What the strategies are worth where NATs are mixed as in the world: the share of pairs that meet directly over UDP.
//!
//! The shares are those that Roverso, El-Ansary and Haridi saw among the peers of a video network ("NATCracker: NAT
//! Combinations Matter", ICCCN 2009), as they are quoted: mapping 80.2 % endpoint-independent and 19.8 % not; filtering
//! 13.5 % endpoint-independent, 17.5 % address-dependent, 69.0 % address- and port-dependent; ports 54.7 % preserved,
//! 23.7 % in sequence, 21.6 % random. How they go together is not known, so they are taken to be independent. There are no
//! hosts without a NAT in it, and no carriers.

use std::time::Duration;

use nat_traversal::protocol::PortRule;
use nat_traversal::testing::{Nat, Rule};

use crate::nat_matrix::link;
use crate::world::{Site, World};

/// NATs and how many of a hundred hosts are behind such a one.
const MIX: [(&str, &[Nat], f64); 6] = [
    ("cone", &[Nat::cone()], EI * 0.135),
    ("acone", &[Nat::address_cone()], EI * 0.175),
    ("easy", &[Nat::easy()], EI * 0.690 * 0.547),
    ("easyrand", &[Nat::easy_random()], EI * 0.690 * 0.453),
    // Those that keep ports as far as they can are among them, by half.
    ("hardseq", &[Nat::hard_sequential()], (100.0 - EI) * 0.523),
    ("hard", &[Nat::hard()], (100.0 - EI) * 0.477),
];
const EI: f64 = 80.2;

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
        println!("  {name:<10}{share:>5.1}");
    }
    let open = 1.0 - (1.0 - share_of(|nat| nat.filtering == Rule::EndpointIndependent)).powi(2);
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
    let (random, counts) = (share_named("hard"), share_named("hardseq"));
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

fn share_of(which: impl Fn(&Nat) -> bool) -> f64 {
    MIX.iter().filter(|(_, nats, _)| which(&nats[0])).map(|(_, _, share)| share / 100.0).sum()
}

fn share_named(wanted: &str) -> f64 {
    MIX.iter().filter(|(name, ..)| *name == wanted).map(|(_, _, share)| share / 100.0).sum()
}

/// Of each pair, and of each direction.
const RUNS: u64 = 5;

/// Longer than any punch of ours goes on.
const PATIENCE: Duration = Duration::from_secs(30);
