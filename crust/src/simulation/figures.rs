//! Thousands of runs, as a table: `RUNS=1000 cargo test --release -p crust --lib simulation::figures -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::{
    faults, matrix,
    moving::{self, Disturbance},
    together,
};

/// One row: what was run, how often it was not as declared, and the times that it took.
struct Row {
    name: String,
    runs: u64,
    surprises: Vec<String>,
    times: Vec<Duration>,
}

impl Row {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), runs: 0, surprises: Vec::new(), times: Vec::new() }
    }

    fn note(&mut self, outcome: Result<Option<Duration>, String>) {
        self.runs += 1;
        match outcome {
            Ok(time) => self.times.extend(time),
            Err(surprise) => self.surprises.push(surprise),
        }
    }

    fn print(mut self) -> usize {
        self.times.sort_unstable();
        let at = |share: f64| {
            let last = self.times.len().saturating_sub(1);
            let index = (last as f64 * share).round() as usize;
            self.times.get(index).map_or_else(|| "–".to_owned(), |time| format!("{} ms", time.as_millis()))
        };
        let (name, runs, count) = (&self.name, self.runs, self.surprises.len());
        println!("| {name} | {runs} | {count} | {} | {} | {} |", at(0.5), at(0.95), at(1.0));
        for surprise in self.surprises.iter().take(5) {
            println!("    {surprise}");
        }
        count
    }
}

#[test]
#[ignore = "thousands of runs"]
fn thousands_of_runs() {
    let begun = Instant::now();
    let runs = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1_000_u64);
    println!(
        "| scenario | runs | not as declared | p50 | p95 | longest |\n| --- | --- | --- | --- | --- | --- |"
    );
    let mut surprises = 0;
    for row in pairs(runs).into_iter().chain([dials(runs)]).chain(streams(runs)).chain([faulty(runs)]) {
        surprises += row.print();
    }
    println!("in {:.0?}, times are virtual", begun.elapsed());
    assert_eq!(surprises, 0, "not as declared");
}

/// Each run is one cell; all cells in turn.
fn pairs(runs: u64) -> Vec<Row> {
    let mut echoes = Row::new("called by an introducer: first byte back after");
    let mut rows = [
        Row::new("called by an introducer, direct: stream after"),
        Row::new("over a relay, left if ports are met: stream after"),
        Row::new("over a relay: stream after"),
    ];
    let cells = matrix::SITES.iter().flat_map(|a| matrix::SITES.iter().map(move |b| (*a, *b)));
    let cells: Vec<_> = cells.collect();
    for (seed, (a, b)) in (0..runs).zip(cells.iter().cycle()) {
        let row = &mut rows[matrix::declared(a.name, b.name) as usize];
        let outcome = matrix::judge(seed, *a, *b);
        echoes.note(outcome.as_ref().map_or(Ok(None), |call| Ok(Some(call.echo_after))));
        row.note(outcome.map(|call| Some(call.stream_after)));
    }
    rows.into_iter().chain([echoes]).collect()
}

/// At least ten times as many, since these are the quick ones.
fn dials(runs: u64) -> Row {
    let mut row = Row::new("both dial at once: one connection, no byte lost");
    for seed in 0..runs.saturating_mul(10) {
        let outcome = together::run(seed);
        row.note(outcome.map(|_| None).map_err(|why| {
            format!("seed {seed}: {why}; again: SEED={seed} cargo test -p crust --lib simulation::together")
        }));
    }
    row
}

fn streams(runs: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for disturbance in moving::DISTURBANCES {
        let name = match disturbance {
            Disturbance::None => "a transfer: longest gap".to_owned(),
            Disturbance::Rebinding(side) => format!("the NAT of side {side} forgets: longest gap"),
            Disturbance::Moves(side) => format!("side {side} changes its network: longest gap"),
            Disturbance::BothMove => "both change their networks: longest gap".to_owned(),
            Disturbance::MovesUnintroduced(side) => {
                format!("side {side} does, and the introducer is back 3 s later: longest gap")
            }
            Disturbance::IntroducerRestarts => "the introducer restarts: longest gap".to_owned(),
            Disturbance::RelayRestarts(down) => format!("the relay restarts, down for {down} s: longest gap"),
            Disturbance::Outage(side, seconds) => {
                format!("side {side} is cut off for {seconds} s: longest gap")
            }
        };
        let mut row = Row::new(name);
        for (seed, pair) in (0..runs / 10).zip(moving::PAIRS.iter().cycle()) {
            let gap = moving::transfer(seed, *pair, disturbance).map(Some);
            row.note(gap.map_err(|why| {
                format!("{pair:?} seed {seed}: {why}; again: {}", moving::again(seed, *pair, disturbance))
            }));
        }
        rows.push(row);
    }
    let mut row = Row::new("a relay is left: after");
    for (seed, pair) in
        (0..runs / 20).zip([("hard", "easy"), ("easy", "hard"), ("hardad", "cgnat")].iter().cycle())
    {
        let left = moving::leave(seed, *pair, Duration::from_secs(120));
        row.note(match left {
            Ok(Some(took)) => Ok(Some(took)),
            other => Err(format!("{pair:?} seed {seed}: {other:?}")),
        });
    }
    rows.push(row);
    rows
}

fn faulty(runs: u64) -> Row {
    let mut row = Row::new("introducers that die or lie, ends in every phase: nothing left");
    let pairs = [("easy", "easy"), ("hard", "hard"), ("easyrand", "open")];
    let faults = faults::all(7);
    for ((seed, fault), pair) in (0..runs).zip(faults.iter().cycle()).zip(pairs.iter().cycle()) {
        let outcome = faults::run(seed, *pair, *fault).map(|()| None);
        row.note(outcome.map_err(|why| format!("{pair:?} {fault:?} seed {seed}: {why}")));
    }
    row
}
