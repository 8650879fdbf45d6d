//! The tables: which systems do what, which figure counts, and what it should be.

use std::fmt::{self, Write as _};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine;
use crate::measure::{Sample, Task, sample};
use crate::path::Path;
use crate::plan::{Plan, System, Workload};
use crate::statistics::Spread;

/// A question with one figure for an answer, asked of several systems.
pub(crate) struct Table {
    name: &'static str,
    title: &'static str,
    workload: Workload,
    /// Both processes on one core: what is left is the cost of the software.
    pinned: bool,
    /// What lies between them, if anything.
    path: Option<Path>,
    /// Fits how much is done to the question.
    plan: fn(Plan) -> Plan,
    systems: &'static [System],
    figure: fn(&Sample) -> f64,
    beside: Beside,
    /// What ours should come to.
    goals: &'static [(System, Goal)],
}

/// A bound for our figure.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// As a ratio to the reference.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// As it is.
    AtMost(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtMost(most) => write!(formatter, "<= {most:.2} x"),
            Self::RatioAtLeast(least) => write!(formatter, ">= {least:.2} x"),
            Self::AtMost(most) => write!(formatter, "<= {most}"),
        }
    }
}

/// A second figure, shown without a ratio.
#[derive(Clone, Copy)]
struct Beside {
    title: &'static str,
    figure: fn(&Sample) -> f64,
}

const TABLES: &[Table] = &[
    Table {
        name: "echo",
        title: "64 B there and back on one stream, both ends on one core: us a round trip",
        figure: |sample| sample.client.elapsed.as_secs_f64() * 1e6 / sample.client.operations as f64,
        goals: &[(System::CrustTcp, Goal::RatioAtMost(0.98))],
        ..ECHO
    },
    Table {
        name: "streams",
        title: "64 B there and back on 64 connections at a time, both ends on one core: us CPU of both a request",
        plan: |plan| Plan { streams: 64, ..plan },
        systems: &[
            System::Std,
            System::Mio,
            System::Rustls,
            System::CrustTcp,
            System::CrustTcpSet,
            System::Quinn,
        ],
        figure: cpu_micros_each,
        goals: &[(System::CrustTcp, Goal::RatioAtMost(1.0)), (System::CrustTcpSet, Goal::RatioAtMost(0.62))],
        ..ECHO
    },
    Table {
        name: "shared",
        title: "64 B there and back on 64 streams of one connection, both ends on one core: us CPU of both a request",
        workload: Workload::Shared,
        plan: |plan| Plan { streams: 64, ..plan },
        systems: &[System::Quinn],
        figure: cpu_micros_each,
        ..ECHO
    },
    Table {
        name: "bulk",
        title: "one way, 64 KiB a write, both ends on one core: s CPU of both a GiB",
        pinned: true,
        systems: &[System::Std, System::Rustls, System::CrustTcp, System::Quinn],
        figure: cpu_seconds_a_gibibyte,
        beside: Beside { title: "MB/s", figure: megabytes_a_second },
        goals: &[(System::CrustTcp, Goal::RatioAtMost(1.0))],
        ..BULK
    },
    Table {
        name: "bulk-free",
        title: "one way, 64 KiB a write, ends where the scheduler puts them: MB/s",
        systems: &[System::Std, System::Rustls, System::CrustTcp, System::Quinn, System::QuinnThreads],
        goals: &[(System::CrustTcp, Goal::RatioAtLeast(1.0))],
        ..BULK
    },
    Table {
        name: "far",
        title: "one way over 25 ms each way: MB/s",
        path: Some(Path { delay: Duration::from_millis(25), one_lost_in: 0 }),
        plan: |plan| Plan { bulk_mebibytes: plan.bulk_mebibytes / 8, ..plan },
        ..BULK
    },
    Table {
        name: "lossy",
        title: "one way over 5 ms each way, where one datagram of 100 is lost: MB/s",
        path: Some(Path { delay: Duration::from_millis(5), one_lost_in: 100 }),
        plan: |plan| Plan { bulk_mebibytes: plan.bulk_mebibytes / 64, ..plan },
        ..BULK
    },
    Table {
        name: "connect",
        title: "dial a stranger, authenticate both ways, 64 B there and back, both ends on one core: us",
        workload: Workload::Connect,
        figure: |sample| sample.client.median.as_secs_f64() * 1e6,
        goals: &[(System::CrustTcp, Goal::RatioAtMost(1.1))],
        ..ECHO
    },
    Table {
        name: "again",
        title: "dial a peer again, 64 B there and back, both ends on one core: us; the references resume nothing",
        workload: Workload::Again,
        figure: |sample| sample.client.median.as_secs_f64() * 1e6,
        ..ECHO
    },
    Table {
        name: "service",
        title: "a listener that nobody has dialled: MiB RSS of its process",
        plan: |plan| Plan { streams: 0, ..plan },
        systems: &[System::Std, System::CrustTcp, System::Quinn],
        figure: |sample| sample.server_after.resident_kibibytes as f64 / 1024.0,
        goals: &[(System::CrustTcp, Goal::AtMost(5.0))],
        ..IDLE
    },
    Table {
        name: "idle",
        title: "1,000 idle streams: KiB RSS of the server a stream",
        goals: IDLE_GOALS,
        plan: |plan| Plan { streams: 1_000, ..plan },
        ..IDLE
    },
    Table {
        name: "idle-many",
        title: "10,000 idle streams: KiB RSS of the server a stream",
        goals: IDLE_GOALS,
        plan: |plan| Plan { streams: 10_000, ..plan },
        ..IDLE
    },
];

const ECHO: Table = Table {
    name: "",
    title: "",
    workload: Workload::Echo,
    pinned: true,
    path: None,
    plan: |plan| plan,
    systems: &[System::Std, System::Rustls, System::CrustTcp, System::Quinn],
    figure: cpu_micros_each,
    beside: Beside { title: "p99 us", figure: |sample| sample.client.p99.as_secs_f64() * 1e6 },
    goals: &[],
};

const BULK: Table = Table {
    workload: Workload::Bulk,
    pinned: false,
    systems: &[System::Quinn],
    figure: megabytes_a_second,
    beside: Beside { title: "s CPU/GiB", figure: cpu_seconds_a_gibibyte },
    ..ECHO
};

/// KiB a stream: what a thread for each costs besides is its stack.
const IDLE_GOALS: &[(System, Goal)] =
    &[(System::CrustTcp, Goal::AtMost(22.0)), (System::CrustTcpSet, Goal::AtMost(6.0))];

const IDLE: Table = Table {
    workload: Workload::Idle,
    pinned: false,
    systems: &[
        System::Std,
        System::Mio,
        System::Rustls,
        System::CrustTcp,
        System::CrustTcpSet,
        System::Quinn,
    ],
    figure: |sample| {
        let grown =
            sample.server_after.resident_kibibytes as f64 - sample.server_before.resident_kibibytes as f64;
        grown / sample.client.operations as f64
    },
    beside: Beside { title: "threads", figure: |sample| sample.server_after.threads as f64 },
    ..ECHO
};

/// The tables by name, one a line.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for table in TABLES {
        let _ = writeln!(text, "{:10} {}", table.name, table.title);
    }
    text + "calls      system calls of a 64 B echo at each end, by strace\n"
}

pub(crate) fn find(name: &str) -> Result<&'static Table> {
    TABLES
        .iter()
        .find(|table| table.name == name)
        .with_context(|| format!("no table {name:?}; there are\n{}", list()))
}

impl Table {
    /// Measures system after system in each round, so that whatever the machine does meets all alike, and prints.
    pub(crate) fn run(&self, plan: &Plan, rounds: usize, only: &[System]) -> Result<()> {
        let systems: Vec<System> =
            self.systems.iter().copied().filter(|system| only.is_empty() || only.contains(system)).collect();
        let plan = (self.plan)(*plan);
        let core = self.pinned.then(machine::quiet_core);
        let mut samples = vec![Vec::with_capacity(rounds); systems.len()];
        for round in 0..rounds {
            // Each round begins with another system: none always follows the same one.
            for index in (0..systems.len()).map(|index| (index + round) % systems.len()) {
                let system = systems[index];
                let sample = sample(&Task { system, workload: self.workload, plan, core, path: self.path })
                    .with_context(|| format!("{} with {}", self.name, system.name()))?;
                samples[index].push(sample);
            }
        }
        print!("{}", self.text(&systems, &samples));
        Ok(())
    }

    fn text(&self, systems: &[System], samples: &[Vec<Sample>]) -> String {
        let mut text = format!("\n{}: {}\n", self.name, self.title);
        let beside = self.beside.title;
        let _ = writeln!(
            text,
            "{:14} {:>9} {:>19}  {:>8} {:>15}  {beside:>9}  to reach",
            "system", "median", "least..greatest", "x ref", "least..greatest"
        );
        for (&system, own) in systems.iter().zip(samples) {
            let reference =
                systems.iter().position(|&each| each == system.reference()).map(|at| &samples[at]);
            let _ = writeln!(text, "{}", self.row(system, own, reference));
        }
        let others = Spread::of(samples.iter().flatten().map(|sample| sample.others * 100.0));
        if let (Some(others), Some(rounds)) = (others, samples.first().map(Vec::len)) {
            let _ = writeln!(
                text,
                "{rounds} rounds; x ref: rustls for TCP, quinn for QUIC, in the same round; others had {:.0} % of the \
                 machine, {:.0} % at worst",
                others.median, others.greatest
            );
        }
        text
    }

    fn row(&self, system: System, own: &[Sample], reference: Option<&Vec<Sample>>) -> String {
        let figures = own.iter().map(self.figure);
        let ratios = reference.into_iter().flat_map(|reference| {
            own.iter().zip(reference).map(|(ours, theirs)| (self.figure)(ours) / (self.figure)(theirs))
        });
        let (Some(figures), ratios) = (Spread::of(figures), Spread::of(ratios)) else { return String::new() };
        let ratio = ratios.map_or((String::new(), String::new()), |ratios| {
            (format!("{:.2}", ratios.median), format!("{:.2}..{:.2}", ratios.least, ratios.greatest))
        });
        let goal = self.goals.iter().find(|(ours, _)| *ours == system).map(|(_, goal)| goal.to_string());
        let beside = Spread::of(own.iter().map(self.beside.figure));
        format!(
            "{:14} {:>9.2} {:>19}  {:>8} {:>15}  {:>9}  {}",
            system.name(),
            figures.median,
            format!("{:.2}..{:.2}", figures.least, figures.greatest),
            ratio.0,
            ratio.1,
            beside.map_or(String::new(), |beside| format!("{:.2}", beside.median)),
            goal.unwrap_or_default(),
        )
    }
}

fn cpu_micros_each(sample: &Sample) -> f64 {
    sample.cpu().as_secs_f64() * 1e6 / sample.client.operations as f64
}

fn cpu_seconds_a_gibibyte(sample: &Sample) -> f64 {
    sample.cpu().as_secs_f64() * (1u64 << 30) as f64 / sample.bytes as f64
}

fn megabytes_a_second(sample: &Sample) -> f64 {
    sample.bytes as f64 / 1e6 / sample.client.elapsed.as_secs_f64()
}
