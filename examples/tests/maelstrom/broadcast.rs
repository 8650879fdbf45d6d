//! The broadcast example under the judge: first its state machine in virtual time, then the program itself.

use std::time::Duration;

use crate::{
    judge::{Limits, Options, Report, Workload},
    processes, virtual_time,
};

pub(crate) const BROADCAST: &str = env!("CARGO_BIN_EXE_broadcast");

/// Reached at once by one program without arguments.
pub(crate) const AMBITIOUS: Limits = limits(6.0, 300, 450);
/// With one node cut off.
pub(crate) const EFFICIENT: Limits = limits(20.0, 1_000, 2_000);
/// Where messages overtake each other.
pub(crate) const OVERTAKEN: Limits = limits(30.0, 800, 1_200);
/// Where they are lost.
pub(crate) const VALID: Limits =
    Limits { messages: Some(30.0), median: None, max: None, wait: Some(100), available: None };

const fn limits(messages: f64, median: u128, max: u128) -> Limits {
    Limits {
        messages: Some(messages),
        median: Some(median),
        max: Some(max),
        wait: Some(100),
        available: None,
    }
}

/// 25 nodes, 100 ms from each to each, 100 operations a second.
pub(crate) fn large(seed: u64, seconds: u64, limits: Limits) -> Options {
    let (time, recovery) = (Duration::from_secs(seconds), Duration::from_secs(seconds / 2));
    Options {
        nodes: 25,
        latency: Duration::from_millis(100),
        seed,
        time,
        recovery,
        limits,
        ..Options::default()
    }
}

fn passes(what: &str, report: &Report) {
    println!(
        "{what:28} {:5} operations  {:5.2} messages each  median {:4} ms  max {:4} ms  lag {:.1} ms",
        report.operations, report.messages, report.median, report.max, report.lag
    );
    assert!(report.failures.is_empty(), "{what}: {:?}", report.failures);
}

const WORKLOADS: [Workload; 5] =
    [Workload::Broadcast, Workload::Counter, Workload::GrowingCounter, Workload::UniqueIds, Workload::Echo];

#[test]
fn the_ambitious_limits_hold_at_once() {
    for seed in 1..3 {
        passes("constant", &virtual_time::run(large(seed, 8, AMBITIOUS)));
    }
}

#[test]
fn any_node_may_be_cut_off() {
    for cut in [0, 2, 24] {
        let report = virtual_time::run(Options { cut: Some(cut), ..large(7, 8, EFFICIENT) });
        passes(&format!("without node {cut}"), &report);
    }
}

#[test]
fn messages_may_overtake_each_other() {
    passes("overtaking", &virtual_time::run(Options { exponential: true, ..large(3, 8, OVERTAKEN) }));
}

#[test]
fn nothing_is_lost_with_the_messages() {
    passes("10 % lost", &virtual_time::run(Options { loss: 0.1, ..large(4, 8, VALID) }));
}

#[test]
fn nothing_is_lost_in_partitions() {
    let partitions = Some(Duration::from_secs(2));
    passes("partitions", &virtual_time::run(Options { partitions, ..large(5, 8, VALID) }));
}

/// `SEEDS=5000` tries that many.
#[test]
fn small_groups_in_all_weathers() {
    let last = std::env::var("SEEDS").map_or(150, |seeds| seeds.parse().unwrap());
    for seed in 1..last {
        let options = Options {
            nodes: usize::try_from(2 + seed % 5).unwrap(),
            seed,
            time: Duration::from_secs(3),
            recovery: Duration::from_secs(8),
            rate: 20.0,
            latency: Duration::from_millis(40),
            exponential: seed % 2 == 0,
            loss: if seed % 3 == 0 { 0.2 } else { 0.0 },
            partitions: (seed % 4 == 0).then_some(Duration::from_secs(1)),
            ..Options::default()
        };
        let report = virtual_time::run(options.clone());
        assert!(report.failures.is_empty(), "{options:?}: {:?}", report.failures);
    }
}

#[test]
fn every_workload_is_served() {
    for workload in WORKLOADS {
        for nodes in [1, 3] {
            let partitions = Some(Duration::from_secs(1));
            let (time, latency) = (Duration::from_secs(5), Duration::from_millis(10));
            let options = Options { workload, nodes, time, partitions, latency, ..Options::default() };
            let report = virtual_time::run(options);
            assert!(report.failures.is_empty(), "{workload:?} {nodes}: {:?}", report.failures);
        }
    }
}

#[test]
fn the_program_serves_every_workload() {
    for workload in WORKLOADS {
        let (time, recovery) = (Duration::from_secs(1), Duration::from_secs(2));
        let latency = Duration::from_millis(20);
        let report = processes::run(
            Options { workload, time, recovery, latency, ..Options::default() },
            BROADCAST,
            &[],
        );
        assert!(report.failures.is_empty(), "{workload:?}: {:?}", report.failures);
    }
}

/// Over streams the judge carries nothing between nodes, so it knows neither messages nor what may be smuggled.
pub(crate) fn streams(seconds: u64) -> Options {
    let (time, recovery) = (Duration::from_secs(seconds), Duration::from_secs(4));
    Options { time, recovery, side_channel: true, ..Options::default() }
}

/// A port at which nobody else meets.
pub(crate) fn meeting_place() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port().to_string()
}

#[test]
fn nodes_that_meet_by_beacons_talk_over_streams() {
    let report = processes::run(streams(4), BROADCAST, &["--beacon", &meeting_place()]);
    passes("streams, met by beacons", &report);
}

#[test]
fn unique_ids_and_echoes_are_always_available() {
    let limits = Limits { available: Some(1.0), ..Limits::default() };
    let time = Duration::from_secs(5);
    let ids = Options {
        workload: Workload::UniqueIds,
        nodes: 3,
        rate: 1_000.0,
        time,
        limits,
        ..Options::default()
    };
    let partitions = Some(Duration::from_secs(1));
    let echo = Options { workload: Workload::Echo, nodes: 1, rate: 50.0, time, limits, ..Options::default() };
    for options in [Options { partitions, ..ids }, echo] {
        let report = virtual_time::run(options);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
    }
}

/// Values reach nodes that slept once they wake; those that sleep longer than the mesh waits come back over new streams.
#[test]
fn nodes_that_pause_learn_over_streams_what_they_missed() {
    let (pauses, recovery) = (Some(Duration::from_secs(2)), Duration::from_secs(10));
    let options = Options { pauses, recovery, rate: 20.0, ..streams(8) };
    let report = processes::run(options, BROADCAST, &["--beacon", &meeting_place()]);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}
