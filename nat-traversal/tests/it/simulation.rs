//! What the strategies are worth over many runs: a figure, not an everyday test.
//!
//! ```text
//! cargo test --release --package nat-traversal --test it simulation -- --ignored --nocapture --test-threads 1
//! ```

use std::time::{Duration, Instant};

use crate::nat_matrix::{Declared, declared, link, punch, site};
use crate::world::Site;
use crate::{nat_matrix, tcp_matrix};

mod mix;

#[test]
#[ignore = "a figure, best in release: see the module"]
fn ten_thousand_runs_end_as_declared() {
    let udp: Vec<[Site; 2]> = pairs(&nat_matrix::SITES);
    let tcp: Vec<[Site; 2]> = pairs(&tcp_matrix::SITES);
    let cells = udp.len() + tcp.len();
    let rounds = u64::try_from(RUNS.div_ceil(cells)).unwrap();
    let start = Instant::now();
    let (mut surprises, mut runs, mut by_chance) = (Vec::new(), 0, 0_u32);
    let mut missed = Vec::new();
    for seed in 0..rounds {
        for (cell, sites) in (0_u64..).zip(&udp) {
            // Other seeds than those of the everyday tests, and one of its own for each run: equal seeds draw equal ports.
            let seed = 1_000_000 + seed * 1_000 + cell;
            runs += 1;
            let chance = declared(sites[0].name, sites[1].name) == Declared::ByChance;
            by_chance += u32::from(chance);
            match nat_matrix::surprise(seed, *sites) {
                // Chance may miss; how often is looked at below.
                Some(miss) if chance => missed.push(miss),
                surprise => surprises.extend(surprise),
            }
        }
        for (cell, sites) in (0_u64..).zip(&tcp) {
            let seed = 2_000_000 + seed * 1_000 + cell;
            runs += 1;
            surprises.extend(tcp_matrix::surprise(seed, *sites));
        }
    }
    let elapsed = start.elapsed();
    println!(
        "{runs} runs over {cells} cells (UDP {}, TCP {}) in {:.1} s: {} surprises; of {by_chance} sprays {missed} missed",
        udp.len(),
        tcp.len(),
        elapsed.as_secs_f64(),
        surprises.len(),
        missed = missed.len(),
    );
    missed.iter().for_each(|miss| println!("missed: {miss}"));
    assert!(surprises.is_empty(), "{} surprises:\n{}", surprises.len(), surprises.join("\n"));
    // One in 3,000 misses by bad luck.
    assert!(missed.len() <= 1 + by_chance as usize / 200, "{} of {by_chance} sprays missed", missed.len());
}

#[test]
#[ignore = "a figure, best in release: see the module"]
fn a_spray_hits_as_the_computed_curve_says() {
    let mut took: Vec<Duration> = Vec::new();
    for seed in 0..SPRAYS {
        // Both directions.
        let sites = if seed % 2 == 0 { ["hard", "easy"] } else { ["easy", "hard"] };
        let outcome = punch(2_000_000 + seed, sites.map(site), link(), Duration::ZERO);
        took.push(if outcome.is_direct() { outcome.took } else { Duration::MAX });
    }
    took.sort_unstable();
    let runs = f64::from(u32::try_from(SPRAYS).unwrap());
    let missed = took.iter().filter(|took| **took == Duration::MAX).count();
    let [half, most] = [50, 95].map(|percent| quantile(&took, percent).as_secs_f64());
    println!("port-restricted x symmetric, {SPRAYS} runs: p50 {half:.1} s, p95 {most:.1} s, {missed} missed");
    let mut worst: f64 = 0.0;
    for tenths in [6, 8, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250] {
        let at = Duration::from_millis(100 * tenths);
        let simulated = f64::from(u32::try_from(took.partition_point(|took| *took <= at)).unwrap()) / runs;
        let computed = chance_by(at);
        worst = worst.max((simulated - computed).abs());
        println!(
            "by {:4.1} s  computed {:6.2} %  simulated {:6.2} %",
            at.as_secs_f64(),
            100.0 * computed,
            100.0 * simulated
        );
    }
    println!(
        "largest difference {:.2} %; chance alone makes {:.2} % of {SPRAYS} runs",
        100.0 * worst,
        100.0 * 1.36 / runs.sqrt()
    );
    assert!(worst <= 1.63 / runs.sqrt(), "beyond what chance makes of one set of runs in a hundred: {worst}");
}

/// The chance that a knock has come to a port that was open by then. What opens it dies before it could meet the knocker.
fn chance_by(at: Duration) -> f64 {
    let since = at.saturating_sub(SETTLING + SPRAY_BEGINS);
    let steps = |since: Duration, gap: Duration, limit: u128| {
        u32::try_from((since.as_millis() / gap.as_millis() + 1).min(limit)).unwrap()
    };
    let knocks = steps(since, KNOCK_GAP, 2_048);
    let open = |knock: u32| steps(KNOCK_GAP * knock + ONE_WAY, OPENING_GAP, 256);
    let missed = |knock: u32| 1.0 - f64::from(open(knock)) / f64::from(64_512 - knock);
    1.0 - (0..knocks).map(missed).product::<f64>()
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn pairs(sites: &[Site]) -> Vec<[Site; 2]> {
    sites.iter().flat_map(|a| sites.iter().map(|b| [*a, *b])).collect()
}

const RUNS: usize = 10_000;
const SPRAYS: u64 = 2_000;

/// As in the strategy: the plain checks have so long for themselves, then 100 knocks and 500 openings a second go out.
const SPRAY_BEGINS: Duration = Duration::from_millis(400);
const KNOCK_GAP: Duration = Duration::from_millis(10);
const OPENING_GAP: Duration = Duration::from_millis(2);

/// From one peer to the other.
const ONE_WAY: Duration = Duration::from_millis(40);

/// From the hit until both sides know: a packet, a check and its answer, the choice and its answer, 40 ms each.
const SETTLING: Duration = Duration::from_millis(200);
