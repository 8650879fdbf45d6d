//! How often two peers have met by a spray, by when, beside what is computed.

use std::time::Duration;

use crate::nat_matrix::{link, punch, site};
use crate::world::Site;
use nat_traversal::testing::Nat;

#[test]
#[ignore = "a figure, best in release: see the module"]
fn a_spray_hits_as_the_computed_curve_says() {
    let run = |seed: u64| {
        // Both directions.
        let sites = if seed.is_multiple_of(2) { ["hard", "easy"] } else { ["easy", "hard"] };
        let outcome = punch(3_000_000 + seed, sites.map(site), link(), Duration::ZERO);
        if outcome.is_direct() { outcome.took } else { Duration::MAX }
    };
    let largest = compare((0..SPRAYS).map(run).collect());
    assert!(largest <= 0.01, "the curve is not what happens: {largest}");
}

/// The same where the NAT has a block of ports for each customer, which the knocks near the known port find.
#[test]
#[ignore = "a figure, best in release: see the module"]
fn a_block_of_ports_is_found_sooner() {
    const BLOCK: Site = Site { name: "hardblock", nats: &[Nat::hard_block()] };
    let mut took: Vec<Duration> = (0..1_000_u64)
        .map(|seed| {
            let sites = if seed.is_multiple_of(2) { [BLOCK, site("easy")] } else { [site("easy"), BLOCK] };
            let outcome = punch(4_000_000 + seed, sites, link(), Duration::ZERO);
            if outcome.is_direct() { outcome.took } else { Duration::MAX }
        })
        .collect();
    took.sort_unstable();
    let [half, most, worst] = [0.5, 0.95, 1.0].map(|share| quantile(&took, share).as_secs_f64());
    println!(
        "the same within a block of 2,048 ports, 1,000 runs: p50 {half:.2} s, p95 {most:.2} s, worst {worst:.2} s"
    );
    assert!(half <= 1.0 && most <= 2.0, "it is hardly sooner than anywhere: {half} {most}");
}

/// Prints both; how far apart they are at most.
fn compare(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    let runs = took.len() as f64;
    let missed = took.iter().filter(|took| **took == Duration::MAX).count();
    println!("port-restricted x symmetric with random ports, both directions, {runs} runs:");
    println!("{:>12} {:>7} {:>7} {:>7} {:>7}", "", "p50", "p95", "worst", "missed");
    let worst = took[..took.len() - missed].last().copied().unwrap_or_default().as_secs_f64();
    let [half, most] = [0.5, 0.95].map(|share| quantile(&took, share).as_secs_f64());
    println!("{:>12} {half:>7.2} {most:>7.2} {worst:>7.2} {missed:>7}", "simulated");
    let [half, most] = [0.5, 0.95].map(|share| computed_quantile(share).as_secs_f64());
    let never = (1.0 - chance_by(Duration::from_secs(60))) * runs;
    println!("{:>12} {half:>7.2} {most:>7.2} {:>7} {never:>7.1}", "computed", "–");
    let mut largest: f64 = 0.0;
    let mut at = Duration::from_millis(400);
    while at <= Duration::from_secs(25) {
        let simulated = took.partition_point(|took| *took <= at) as f64 / runs;
        let computed = chance_by(at);
        largest = largest.max((simulated - computed).abs());
        if PRINTED.contains(&at.as_millis()) {
            println!(
                "by {:4.1} s  computed {:6.2} %  simulated {:6.2} %",
                at.as_secs_f64(),
                100.0 * computed,
                100.0 * simulated
            );
        }
        at += Duration::from_millis(50);
    }
    let mark = if largest <= 0.01 { "ok" } else { "!! more than 1 %" };
    println!(
        "largest difference {:.2} % of at most 1 %  {mark}; chance alone makes up to {:.2} % of {runs} runs",
        100.0 * largest,
        100.0 * 1.36 / runs.sqrt()
    );
    largest
}

/// The chance that both know of each other by then, on the mean of the two directions.
fn chance_by(at: Duration) -> f64 {
    SETTLING.iter().map(|settling| chance_of_hit_by(at.saturating_sub(*settling))).sum::<f64>()
        / SETTLING.len() as f64
}

/// The chance that a knock sent by then comes to an open port. The n-th knock is one of 64,513 - n ports that were not tried, of which
/// as many are open as openers had gone out when it came: without replacement, as birthdays are.
fn chance_of_hit_by(at: Duration) -> f64 {
    let Some(since) = at.checked_sub(KNOCKS_BEGIN) else { return 0.0 };
    let knocks = steps(since, KNOCK_GAP, 2_048);
    let open =
        |knock: u32| steps(KNOCKS_BEGIN + KNOCK_GAP * knock + ONE_WAY - OPENING_BEGINS, OPENING_GAP, 256);
    let missed = |knock: u32| 1.0 - f64::from(open(knock)) / f64::from(64_512 - knock);
    1.0 - (0..knocks).map(missed).product::<f64>()
}

/// How many of at most `limit` have gone out by then, if the first goes out at once.
fn steps(since: Duration, gap: Duration, limit: u128) -> u32 {
    u32::try_from((since.as_micros() / gap.as_micros() + 1).min(limit)).unwrap()
}

fn computed_quantile(share: f64) -> Duration {
    (0..30_000).map(Duration::from_millis).find(|at| chance_by(*at) >= share).unwrap()
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// So many tell one part in a hundred: chance alone makes up to 0.7 of it, of 2,000 up to three.
const SPRAYS: u64 = 40_000;

const PRINTED: [u128; 14] =
    [500, 700, 1_000, 1_500, 2_000, 2_500, 3_000, 4_000, 5_000, 6_000, 8_000, 12_000, 15_000, 20_000];

/// As in the strategy: when the two sides begin, and how fast 2,048 knocks and 256 openers go out.
const OPENING_BEGINS: Duration = Duration::from_millis(150);
const OPENING_GAP: Duration = Duration::from_millis(2);
const KNOCKS_BEGIN: Duration = Duration::from_millis(300);
const KNOCK_GAP: Duration = Duration::from_micros(10_100);

/// From one peer to the other, with half of the jitter of both links.
const ONE_WAY: Duration = Duration::from_millis(42);

/// From the knock that hits until both sides know: the knock, a check and its answer, the choice and its answer, and one way more if it is
/// the knocking side that chooses, for which the check has to be its own.
const SETTLING: [Duration; 2] = [Duration::from_millis(5 * 42), Duration::from_millis(6 * 42)];
