//! The tables: which systems do what, which figure counts, and what it should be.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::measure::Sample;
use crate::path::Path;
use crate::plan::{Plan, System, Workload};
use crate::table::{Beside, Goal, Table};

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

const TABLES: &[Table] = &[
    Table {
        name: "echo",
        title: "64 B there and back on one stream, both ends on one core: us a round trip",
        figure: |sample| sample.client.elapsed.as_secs_f64() * 1e6 / sample.client.operations as f64,
        beside: &[P99, Beside { title: "CPU us", figure: cpu_micros_each }],
        goals: &[(System::CrustTcp, Goal::RatioAtMost(0.98)), (System::CrustQuic, Goal::RatioAtMost(0.8))],
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
            System::CrustQuic,
            System::CrustQuicSet,
        ],
        figure: cpu_micros_each,
        goals: &[
            (System::CrustTcp, Goal::RatioAtMost(1.0)),
            (System::CrustTcpSet, Goal::RatioAtMost(0.62)),
            (System::CrustQuic, Goal::RatioAtMost(1.6)),
            (System::CrustQuicSet, Goal::RatioAtMost(0.9)),
        ],
        ..ECHO
    },
    Table {
        name: "shared",
        title: "64 B there and back on 64 streams of one connection, both ends on one core: us CPU of both a request",
        workload: Workload::Shared,
        plan: |plan| Plan { streams: 64, ..plan },
        systems: &[System::Quinn, System::CrustQuic, System::CrustQuicSet],
        figure: cpu_micros_each,
        ..ECHO
    },
    Table {
        name: "bulk",
        title: "one way, 64 KiB a write, both ends on one core: s CPU of both a GiB",
        pinned: true,
        figure: cpu_seconds_a_gibibyte,
        beside: &[Beside { title: "MB/s", figure: megabytes_a_second }],
        goals: &[
            (System::CrustTcp, Goal::RatioAtMost(1.0)),
            (System::CrustQuicCapped, Goal::RatioAtMost(0.75)),
            (System::CrustQuic, Goal::RatioAtMost(0.4)),
        ],
        ..BULK
    },
    Table {
        name: "bulk-free",
        title: "one way, 64 KiB a write, ends where the scheduler puts them: MB/s",
        goals: &[
            (System::CrustTcp, Goal::RatioAtLeast(1.0)),
            (System::CrustQuicCapped, Goal::RatioAtLeast(1.6)),
        ],
        ..BULK
    },
    Table {
        name: "duplex",
        title: "both ways at a time on one stream, a reader and a writer at each end, on one core: s CPU a GiB of each way",
        workload: Workload::Duplex,
        pinned: true,
        systems: &[System::Std, System::CrustTcp, System::Quinn, System::CrustQuicCapped, System::CrustQuic],
        figure: cpu_seconds_a_gibibyte,
        beside: &[Beside { title: "MB/s", figure: megabytes_a_second }],
        ..BULK
    },
    Table {
        name: "far",
        title: "one way over 25 ms each way: MB/s",
        systems: &[System::Quinn, System::QuinnWide, System::CrustQuicCapped, System::CrustQuic],
        path: Some(Path { delay: Duration::from_millis(25), one_lost_in: 0 }),
        plan: |plan| Plan { bulk_mebibytes: plan.bulk_mebibytes / 8, ..plan },
        ..BULK
    },
    Table {
        name: "lossy",
        title: "one way over 5 ms each way, where one datagram of 100 is lost: MB/s",
        systems: &[System::Quinn, System::QuinnWide, System::CrustQuicCapped, System::CrustQuic],
        path: Some(Path { delay: Duration::from_millis(5), one_lost_in: 100 }),
        plan: |plan| Plan { bulk_mebibytes: plan.bulk_mebibytes / 64, ..plan },
        ..BULK
    },
    Table {
        name: "connect",
        title: "dial a stranger, authenticate both ways, 64 B there and back, both ends on one core: us",
        workload: Workload::Connect,
        figure: |sample| sample.client.median.as_secs_f64() * 1e6,
        goals: &[(System::CrustTcp, Goal::RatioAtMost(1.1)), (System::CrustQuic, Goal::RatioAtMost(0.95))],
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
        title: "a service on both schemes that nobody has dialled: MiB RSS of its process",
        plan: |plan| Plan { streams: 0, ..plan },
        systems: &[System::CrustService, System::CrustServiceCaller],
        figure: |sample| sample.server_after.resident_kibibytes as f64 / 1024.0,
        goals: &[(System::CrustService, Goal::AtMost(5.0)), (System::CrustServiceCaller, Goal::AtMost(5.0))],
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

const P99: Beside = Beside { title: "p99 us", figure: |sample| sample.client.p99.as_secs_f64() * 1e6 };

const ECHO: Table = Table {
    name: "",
    title: "",
    workload: Workload::Echo,
    pinned: true,
    path: None,
    plan: |plan| plan,
    systems: &[System::Std, System::Rustls, System::CrustTcp, System::Quinn, System::CrustQuic],
    figure: cpu_micros_each,
    beside: &[P99],
    goals: &[],
};

const BULK: Table = Table {
    workload: Workload::Bulk,
    pinned: false,
    systems: &[
        System::Std,
        System::Rustls,
        System::CrustTcp,
        System::Quinn,
        System::QuinnWide,
        System::QuinnThreads,
        System::CrustQuicCapped,
        System::CrustQuic,
    ],
    figure: megabytes_a_second,
    beside: &[Beside { title: "s CPU/GiB", figure: cpu_seconds_a_gibibyte }],
    ..ECHO
};

/// KiB a stream: what a thread for each costs besides is its stack.
const IDLE_GOALS: &[(System, Goal)] = &[
    (System::CrustTcp, Goal::AtMost(22.0)),
    (System::CrustTcpSet, Goal::AtMost(6.0)),
    (System::CrustQuic, Goal::AtMost(38.0)),
    (System::CrustQuicSet, Goal::AtMost(22.0)),
];

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
        System::CrustQuic,
        System::CrustQuicSet,
    ],
    figure: |sample| {
        let grown =
            sample.server_after.resident_kibibytes as f64 - sample.server_before.resident_kibibytes as f64;
        grown / sample.client.operations as f64
    },
    beside: &[Beside { title: "threads", figure: |sample| sample.server_after.threads as f64 }],
    ..ECHO
};

fn cpu_micros_each(sample: &Sample) -> f64 {
    sample.cpu().as_secs_f64() * 1e6 / sample.client.operations as f64
}

fn cpu_seconds_a_gibibyte(sample: &Sample) -> f64 {
    sample.cpu().as_secs_f64() * (1u64 << 30) as f64 / sample.bytes as f64
}

fn megabytes_a_second(sample: &Sample) -> f64 {
    sample.bytes as f64 / 1e6 / sample.client.elapsed.as_secs_f64()
}
