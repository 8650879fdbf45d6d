//! What the strategies are worth over many runs: a figure, not an everyday test.
//!
//! ```text
//! cargo test --release --package nat-traversal --test it simulation -- --ignored --nocapture --test-threads 1
//! ```

use std::time::Instant;

use crate::nat_matrix::{Declared, declared};
use crate::world::Site;
use crate::{nat_matrix, tcp_matrix};

mod bar;
mod curve;
mod mix;
mod rows;

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
    let seconds = start.elapsed().as_secs_f64();
    let expected = f64::from(by_chance) / 2_000.0;
    let held = surprises.is_empty() && seconds <= SECONDS && cells >= CELLS;
    println!(
        "{runs} runs over {cells} cells (UDP {}, TCP {}) in {seconds:.1} s on one core: {} surprises   ≥ {RUNS} over ≥ {CELLS} in ≤ \
         {SECONDS} s, 0  {}",
        udp.len(),
        tcp.len(),
        surprises.len(),
        if held { "ok" } else { "!! missed" },
    );
    println!("of {by_chance} sprays {} missed by chance, of some {expected:.1} computed", missed.len());
    missed.iter().for_each(|miss| println!("missed: {miss}"));
    assert!(surprises.is_empty(), "{} surprises:\n{}", surprises.len(), surprises.join("\n"));
    // One in 3,900 misses by bad luck; one in 1,000 where what was sent whole after 14 s has shut out the rest.
    assert!(missed.len() <= 2 + by_chance as usize / 400, "{} of {by_chance} sprays missed", missed.len());
}

fn pairs(sites: &[Site]) -> Vec<[Site; 2]> {
    sites.iter().flat_map(|a| sites.iter().map(|b| [*a, *b])).collect()
}

const RUNS: usize = 10_000;

/// What is asked: so many runs over so many cells, in so many seconds.
const CELLS: usize = 64;
const SECONDS: f64 = 60.0;
