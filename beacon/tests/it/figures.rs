//! The figures that are wanted of a beacon, over real sockets: a short look with the other tests, and the whole table by
//! `.ci/figures/40-beacon`, which sets `RUNS`.
//!
//! With `RUNS` each figure must reach what is wanted; without it the bounds are wide, as other tests run beside it.
#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use beacon::protocol::{Kind, Packet};

use crate::agent::{Agent, Settings};
use crate::lab::{Lab, not_run};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const BOTH: &[&str] = &["10.{net}.0.{}/24", "fe80::{}/64"];
const IPV6_ONLY: &[&str] = &["fe80::{}/64"];

#[test]
fn a_newcomer_finds_who_is_there() {
    newcomers("a newcomer finds a peer that is there", 0, [20 * MS, 300 * MS]);
}

#[test]
fn a_newcomer_finds_who_is_there_with_30_percent_loss_each_way() {
    newcomers("the same, 30 % lost each way", 30, [2 * SECOND, 2 * SECOND]);
}

#[test]
fn thirty_processes_on_three_machines_with_three_networks_all_see_all() {
    crowd("processes on 3 hosts, 3 interfaces", BOTH);
}

#[test]
fn thirty_processes_without_ipv4_all_see_all() {
    crowd("the same, IPv6 only", IPV6_ONLY);
}

#[test]
fn changes_of_interfaces_are_noticed() {
    let what = "changes of interfaces";
    let (mut up, mut address, mut plugged) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs().div_ceil(20) {
        let Some(lab) = hosts(what, 2, 1, BOTH) else { return };
        lab.add_bridge("late");
        lab.plug("h2", "late0", "late", &["10.9.0.2/24"]);
        let [mut one, mut two] = ["h1", "h2"].map(|host| lab.start(host, &settings(host)));
        one.wait_for("appeared h2 eth1 ");
        two.wait_for("appeared h1 eth1 ");

        lab.ip("h1", "link set eth1 down");
        one.wait_for("linkdown h2 eth1 ");
        let skip = one.request("stats");
        let begun = Instant::now();
        lab.ip("h1", "link set eth1 up");
        up.push(one.wait_after(skip, "appeared h2 eth1 ").0.saturating_duration_since(begun));

        let (begun, skip) = (Instant::now(), two.request("stats"));
        lab.ip("h1", "-4 addr flush dev eth1");
        lab.add_address("h1", "eth1", "10.1.0.101/24");
        address.push(two.wait_after(skip, "eth1 10.1.0.101:").0.saturating_duration_since(begun));

        let begun = Instant::now();
        lab.plug("h1", "late0", "late", &["10.9.0.1/24"]);
        plugged.push(one.wait_for("appeared h2 late0 ").0.saturating_duration_since(begun));
    }
    for (what, times) in [
        ("found again after an interface was down", up),
        ("found at a new address", address),
        ("found on a new interface", plugged),
    ] {
        let part = format!("longest of {}", times.len());
        judge(what, &part, *times.iter().max().expect("one run at least"), 2 * SECOND);
    }
}

#[test]
fn an_idle_beacon_costs_little_and_does_not_grow() {
    // The shortest period there is: an hour of periods in 72 seconds.
    let period = 20 * MS;
    let periods = if is_full() { 3600 } else { 100 };
    let local = |name: &str, port| Settings { port, period, is_local: true, ..Settings::new(name) };
    let mut watched = Agent::start(&[], &local("watched", 0));
    let mut other = Agent::start(&[], &local("other", watched.port()));
    other.wait_for("appeared watched ");
    let (mut samples, mut skip) = (Vec::new(), watched.line_after(0, "appeared other "));
    let before = number(&watched.ask("cpu "));
    for count in 0..periods {
        skip = watched.line_after(skip, "repeated other ") + 1;
        // The first tenth warms up.
        if count % 20 == 0 && count >= periods / 10 {
            samples.push((f64::from(count), number(&watched.ask("rss ")) as f64));
        }
    }
    let took = Duration::from_nanos(number(&watched.ask("cpu ")) - before) / periods;

    let part = took.as_secs_f64() * 100.0;
    println!("FIGURE idle, one peer, period 1 s | {part:.3} % of a core, one thread | at most 0.2 %");
    // In a short run the allocator's first steps are all there is.
    if is_full() {
        let growth = slope(&samples) * 3600.0 / 1024.0;
        println!(
            "FIGURE idle, growth in an hour of periods, {periods} measured | {growth:.1} KiB | at most 64 KiB"
        );
        assert!(part <= 0.2, "{part} % of a core");
        assert!(growth <= 64.0, "{growth} KiB an hour");
    }
}

#[test]
fn five_thousand_garbage_and_forged_beacons_a_second_do_little() {
    let local = |name: &str, port| Settings { port, is_local: true, ..Settings::new(name) };
    let mut watched = Agent::start(&[], &local("watched", 0));
    let vandals: Vec<_> = (0..50).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port")).collect();
    let time = if is_full() { 10 * SECOND } else { SECOND };
    let (port, cpu) = (watched.port(), number(&watched.ask("cpu ")));
    let memory = number(&watched.ask("rss "));
    let (begun, mut sent) = (Instant::now(), 0_u32);
    let mut honest = None;
    while begun.elapsed() < time {
        // In step with the clock, five thousand a second.
        let due = u32::try_from(begun.elapsed().as_micros() / 200).expect("a short time");
        while sent < due {
            let vandal = &vandals[sent as usize % vandals.len()];
            let datagram = if sent % 2 == 0 { vec![b'b'; 100] } else { forged(sent) };
            vandal.send_to(&datagram, ("127.0.0.1", port)).expect("loopback takes it");
            sent += 1;
        }
        if honest.is_none() && begun.elapsed() > time / 2 {
            honest = Some(Agent::start(&[], &local("honest", port)));
        }
        std::thread::sleep(MS);
    }
    let mut honest = honest.expect("it was started half way");
    let started = honest.wait_for("starting").0;
    let found = watched.wait_for("appeared honest ").0.saturating_duration_since(started);
    let cpu = number(&watched.ask("cpu ")) - cpu;
    let part = cpu as f64 / begun.elapsed().as_nanos() as f64 * 100.0;
    let grown = number(&watched.ask("rss ")).saturating_sub(memory) / 1024;

    let rate = f64::from(sent) / time.as_secs_f64();
    println!("FIGURE {rate:.0} garbage and forged a second | {part:.1} % of a core | at most 15 %");
    println!("FIGURE the same, memory grown | {grown} KiB | at most 8192 KiB");
    judge("the same, an honest peer", "found", found, 2 * SECOND);
    assert!(grown <= 8192, "{grown} KiB");
    assert!(!is_full() || part <= 15.0, "{part} % of a core");
}

/// Two hosts; one beacon is there, others come one after the other.
fn newcomers(what: &str, loss_percent: u32, [median, p99]: [Duration; 2]) {
    let Some(lab) = hosts(what, 2, 1, BOTH) else { return };
    if loss_percent > 0 {
        let rules = format!(
            "table inet loss {{ chain input {{ type filter hook input priority 0; \
             meta l4proto udp numgen random mod 100 < {loss_percent} drop; }}; }}"
        );
        for host in ["h1", "h2"] {
            if let Err(reason) = lab.run(host, &["nft", &rules]) {
                return not_run(what, &reason);
            }
        }
    }
    let mut there = lab.start("h1", &settings("there"));
    there.wait_for("started");
    let mut times = Vec::new();
    for number in 0..runs() {
        if is_full() {
            // The figure is that of an idle network: by then answers to the one before do not count any more.
            std::thread::sleep(200 * MS);
        }
        let mut newcomer = lab.start("h2", &settings(&format!("new{number}.")));
        let (starting, _) = newcomer.wait_for("starting");
        times.push(newcomer.wait_for("appeared there ").0.saturating_duration_since(starting));
    }
    times.sort();
    let count = times.len();
    judge(what, &format!("p50 of {count}"), times[times.len() / 2], median);
    judge(what, &format!("p99 of {count}"), times[(times.len() * 99).div_ceil(100) - 1], p99);
}

/// Ten processes on each of three hosts, each joined by three networks, started one after the other.
fn crowd(what: &str, addresses: &[&str]) {
    let Some(lab) = hosts(what, 3, 3, addresses) else { return };
    let each = if is_full() { 10 } else { 2 };
    let mut agents = Vec::new();
    for host in ["h1", "h2", "h3"] {
        for number in 0..each {
            agents.push(lab.start(host, &settings(&format!("{host}-{number}."))));
        }
    }
    let last = agents.iter_mut().map(|agent| agent.wait_for("starting").0).max().expect("some were started");
    let names: Vec<_> = agents.iter().map(|agent| agent.name.clone()).collect();
    let mut seen = last;
    for agent in &mut agents {
        for name in names.clone() {
            if name == agent.name {
                continue;
            }
            for interface in ["eth1", "eth2", "eth3"] {
                seen = seen.max(agent.wait_for(&format!("appeared {name} {interface} ")).0);
            }
        }
    }
    judge(what, &format!("all {} see all", agents.len()), seen.saturating_duration_since(last), SECOND);
}

/// Hosts h1, h2, … with interfaces eth1, eth2, …, one for each network; in the addresses, `{net}` becomes the network's number and
/// `{}` the host's.
fn hosts(what: &str, hosts: usize, networks: usize, addresses: &[&str]) -> Option<Lab> {
    let mut lab = Lab::new(what)?;
    for network in 1..=networks {
        lab.add_bridge(&format!("bridge{network}"));
    }
    for host in 1..=hosts {
        let name = format!("h{host}");
        lab.add_host(&name);
        for network in 1..=networks {
            let addresses = addresses.iter();
            let of_network = addresses.map(|it| it.replace("{net}", &network.to_string()));
            let own: Vec<_> = of_network.map(|it| it.replace("{}", &host.to_string())).collect();
            let own: Vec<_> = own.iter().map(String::as_str).collect();
            lab.plug(&name, &format!("eth{network}"), &format!("bridge{network}"), &own);
        }
    }
    Some(lab)
}

fn settings(name: &str) -> Settings {
    Settings { period: SECOND, ..Settings::new(name) }
}

/// Prints a figure; in a full run it must reach what is wanted.
fn judge(what: &str, part: &str, found: Duration, wanted: Duration) {
    println!("FIGURE {what}, {part} | {:.1} ms | at most {} ms", millis(found), wanted.as_millis());
    assert!(!is_full() || found <= wanted, "{what}, {part}: {found:?}");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The slope of the line through points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let across: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    across / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

/// Twenty for each round that is asked for.
fn runs() -> usize {
    std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).map_or(3, |rounds: usize| rounds * 20)
}

fn is_full() -> bool {
    std::env::var_os("RUNS").is_some()
}

fn number(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number ends the line")
}

fn forged(number: u32) -> Vec<u8> {
    let id = number.to_be_bytes();
    let interval = Duration::from_secs(1);
    let packet = Packet { kind: Kind::Ask, sequence: 1, interval, id: &id, data: b"forged", known: &[] };
    packet.encode().expect("it is small")
}
