//! The table of the README: the program as processes in real time.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crust_examples::mesh::Costs;

use crate::{
    broadcast::{AMBITIOUS, BROADCAST, EFFICIENT, OVERTAKEN, VALID, large, meeting_place, streams},
    judge::{Limits, Options, Report, Workload},
    processes, virtual_time,
};

/// `cargo test --release -p crust-examples --test maelstrom -- --ignored --nocapture figures`, with `RUNS` rounds of the first row.
#[test]
#[ignore = "takes six minutes of real time, and means something on an idle machine only"]
fn figures() {
    let rounds: u64 = std::env::var("RUNS").map_or(3, |runs| runs.parse().unwrap());
    let mut table = Table::default();
    // One after the other, where latencies count.
    for seed in 1..=rounds {
        table.run("25 nodes, 100 ms", large(seed, 20, AMBITIOUS));
    }
    table.run("without node 3", Options { cut: Some(3), ..large(1, 20, EFFICIENT) });
    table.run("overtaking", Options { exponential: true, ..large(1, 20, OVERTAKEN) });
    let limits = Limits { max: Some(300), ..Limits::default() };
    table.run_over_streams("streams, met by beacons", Options { limits, ..streams(20) });
    let (pauses, recovery) = (Some(Duration::from_secs(3)), Duration::from_secs(10));
    table.run_over_streams("streams, nodes pause", Options { pauses, recovery, ..streams(30) });
    table.run("10 % lost", Options { loss: 0.1, ..large(1, 20, VALID) });
    // At the same time, where they do not.
    let partitions = Some(Duration::from_secs(4));
    let small = |workload, nodes, rate, partitions| {
        let limits = Limits { available: Some(1.0), ..Limits::default() };
        let limits =
            if matches!(workload, Workload::Echo | Workload::UniqueIds) { limits } else { Limits::default() };
        Options { workload, nodes, rate, partitions, limits, ..Options::default() }
    };
    table.run_together([
        ("partitions", Options { partitions, ..large(1, 20, Limits { wait: None, ..VALID }) }),
        ("echo, 1 node", small(Workload::Echo, 1, 50.0, None)),
        ("unique ids, 3, partitions", small(Workload::UniqueIds, 3, 1_000.0, partitions)),
        ("broadcast, 1 node", small(Workload::Broadcast, 1, 10.0, None)),
        ("broadcast, 5 nodes", small(Workload::Broadcast, 5, 10.0, None)),
        ("counter, 3, partitions", small(Workload::Counter, 3, 100.0, partitions)),
        ("growing counter, 3, partitions", small(Workload::GrowingCounter, 3, 100.0, partitions)),
    ]);
    anyone_cut_off(&mut table);
    let threads = threads_on_two_pipes();
    table.line("threads of a node on two pipes", &threads.to_string(), "3", threads == 3);
    let missed = std::mem::take(&mut table.missed);
    drop(table);
    assert!(missed.is_empty(), "missed: {missed:#?}");
}

/// Printed when it is dropped: nodes over streams say things in between.
#[derive(Default)]
struct Table {
    lines: Vec<String>,
    missed: Vec<String>,
}

impl Table {
    fn run(&mut self, what: &str, options: Options) {
        let limits = options.limits;
        self.row(what, &processes::run(options, BROADCAST, &[]), limits);
    }

    fn run_over_streams(&mut self, what: &str, options: Options) {
        let limits = options.limits;
        self.row(what, &processes::run(options, BROADCAST, &["--beacon", &meeting_place()]), limits);
    }

    fn run_together<const N: usize>(&mut self, runs: [(&str, Options); N]) {
        let runs = runs.map(|(what, options)| {
            let limits = options.limits;
            (what, limits, thread::spawn(move || processes::run(options, BROADCAST, &[])))
        });
        for (what, limits, run) in runs {
            self.row(what, &run.join().unwrap(), limits);
        }
    }

    fn row(&mut self, what: &str, report: &Report, limits: Limits) {
        let figure = format!(
            "{:5} operations  {:5.2} messages each  median {:4} ms  max {:4} ms  lag {:.1} ms",
            report.operations, report.messages, report.median, report.max, report.lag
        );
        self.line(what, &figure, &limits.to_string(), report.failures.is_empty());
        self.missed.extend(report.failures.iter().map(|failure| format!("{what}: {failure}")));
    }

    fn line(&mut self, what: &str, figure: &str, bar: &str, holds: bool) {
        let verdict = if holds { "" } else { "  MISSED" };
        self.lines.push(format!("{what:30}  {figure:74}  {bar}{verdict}"));
        if !holds {
            self.missed.push(format!("{what}: {figure}"));
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        println!("\n{}", self.lines.join("\n"));
    }
}

/// What must hold beside that nothing is lost and nothing invented.
impl fmt::Display for Limits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("valid")?;
        if let Some(limit) = self.messages {
            write!(formatter, ", < {limit} messages")?;
        }
        for (what, limit) in [("median", self.median), ("max", self.max), ("wait", self.wait)] {
            if let Some(limit) = limit {
                write!(formatter, ", {what} < {limit} ms")?;
            }
        }
        if self.available == Some(1.0) {
            formatter.write_str(", all answered")?;
        }
        Ok(())
    }
}

/// Each of the 25 in turn, in virtual time.
fn anyone_cut_off(table: &mut Table) {
    let reports = (0..25).map(|cut| virtual_time::run(Options { cut: Some(cut), ..large(1, 20, EFFICIENT) }));
    let reports: Vec<Report> = reports.collect();
    let messages = reports.iter().map(|report| report.messages).fold(0.0, f64::max);
    let worst = |of: fn(&Report) -> u128| reports.iter().map(of).max().unwrap_or(0);
    let figure = format!(
        "at worst {messages:18.2} messages each  median {:4} ms  max {:4} ms  in virtual time",
        worst(|report| report.median),
        worst(|report| report.max)
    );
    let holds = reports.iter().all(|report| report.failures.is_empty());
    table.line("without any of the 25", &figure, &EFFICIENT.to_string(), holds);
}

fn threads_on_two_pipes() -> usize {
    let mut child = Command::new(BROADCAST).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let init =
        r#"{"src":"c1","dest":"n1","body":{"msg_id":1,"type":"init","node_id":"n1","node_ids":["n1"]}}"#;
    writeln!(input, "{init}").unwrap();
    let mut answer = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    let threads = Costs::of(child.id()).threads;
    drop(input);
    assert!(child.wait().unwrap().success());
    threads
}
