//! Starts groups of processes, and prints what each threading costs.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use crust::Endpoint;

use super::{Group, Load, Report, load::LoadSettings, one_thread, two_threads};
use crate::protocol::mesh::{Mesh, Settings};

/// One node of a group, as a process: prints its endpoint, reads those of all from its input, sends messages of 1 KiB for a
/// time, prints a [`Report`] as a line of JSON, and waits for the end of its input.
///
/// # Errors
///
/// When the system refuses, or the input is no list of endpoints.
pub fn member(threading: &str, time: Duration) -> io::Result<()> {
    let group = Arc::new(Group::new()?);
    println!("{}", group.endpoint()?);
    let mut line = String::new();
    io::stdin().lock().take(1 << 20).read_line(&mut line)?;
    let now = Instant::now();
    let me = group.transport().public_key();
    let mut mesh = Mesh::new(me, &me.to_string()[..8], Settings::default());
    let mut peers = 0;
    for word in line.split_whitespace() {
        let endpoint: Endpoint = word.parse().map_err(io::Error::other)?;
        group.add(endpoint);
        mesh.add_peer(now, endpoint.public_key());
        peers += usize::from(endpoint.public_key() != me);
    }
    let every = Duration::from_millis(5);
    let mut load = Load::new(now, LoadSettings { peers, time, every, size: 1 << 10 });
    let traffic = match threading {
        TWO_THREADS => two_threads::run(&mut mesh, &mut load, group)?,
        ONE_THREAD => one_thread::run(&mut mesh, &mut load, Arc::<Group>::clone(&group), group.transport())?,
        other => {
            return Err(io::Error::other(format!("threading is {TWO_THREADS} or {ONE_THREAD}, not {other}")));
        }
    };
    let report = load.report(mesh.counters(), traffic);
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Runs groups of 4, 8 and 16 processes of this program in both threadings for `time` each, and prints a table.
///
/// # Errors
///
/// When a process cannot be started, or ends without a report.
pub fn table(time: Duration) -> io::Result<()> {
    println!(
        "200 messages of 1 KiB a second to each peer, for {} s; costs are those of one node",
        time.as_secs()
    );
    println!("nodes  threading    full mesh  threads     memory    CPU      p50      p99  lost  reordered");
    for nodes in [4, 8, 16] {
        for threading in [TWO_THREADS, ONE_THREAD] {
            let (reports, costs) = run(nodes, threading, time)?;
            let most = |of: fn(&Report) -> u64| reports.iter().map(of).max().unwrap_or(0);
            let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
            println!(
                "{nodes:5}  {threading:11}  {:6} ms  {:7}  {:5.1} MiB  {:4.1} %  {:4.1} ms  {:4.1} ms  {:4}  {:9}",
                most(|report| report.full_after),
                costs.threads,
                costs.kibibytes as f64 / 1024.0,
                costs.cpu_percent,
                most(|report| report.p50.into()) as f64 / 1e3,
                most(|report| report.p99.into()) as f64 / 1e3,
                sum(|report| report.lost),
                sum(|report| report.reordered),
            );
        }
    }
    Ok(())
}

/// Runs one group, and takes the measure of its first node while it works.
fn run(nodes: usize, threading: &str, time: Duration) -> io::Result<(Vec<Report>, Costs)> {
    let program = std::env::current_exe()?;
    let seconds = time.as_secs().to_string();
    let mut members = Vec::new();
    for _ in 0..nodes {
        members.push(Member::start(Command::new(&program).args(["node", threading, &seconds]))?);
    }
    let mut endpoints = Vec::new();
    for member in &mut members {
        endpoints.push(member.line()?);
    }
    for member in &mut members {
        member.tell(&endpoints.join(" "))?;
    }
    let first = members[0].child.id();
    // In the midst of the load: after the start, before the end.
    std::thread::sleep(time / 2 + Duration::from_millis(500));
    let before = (Instant::now(), cpu_ticks(first)?);
    std::thread::sleep(time / 4);
    let costs = Costs::of(first, before)?;
    let mut reports = Vec::new();
    for member in &mut members {
        reports.push(serde_json::from_str(&member.line()?)?);
    }
    Ok((reports, costs))
}

/// A process of the group; it does not outlive this.
struct Member {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Member {
    fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a process without pipes"));
        };
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(io::Error::other("a node has ended without a report"));
        }
        Ok(line.trim().to_owned())
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.input, "{line}")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process takes of the machine, as `/proc` tells; zeros where there is none.
struct Costs {
    threads: u64,
    kibibytes: u64,
    cpu_percent: f64,
}

impl Costs {
    fn of(process: u32, (at, ticks): (Instant, u64)) -> io::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let used = cpu_ticks(process)?.saturating_sub(ticks) as f64 * TICK.as_secs_f64();
        let cpu_percent = 100.0 * used / at.elapsed().as_secs_f64();
        Ok(Self { threads: field("Threads:"), kibibytes: field("VmRSS:"), cpu_percent })
    }
}

/// User and system time so far.
fn cpu_ticks(process: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; behind it the 12th and 13th fields are meant.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    Ok(rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

const TWO_THREADS: &str = "two-threads";
const ONE_THREAD: &str = "one-thread";
/// The unit of `/proc/PID/stat` on Linux.
const TICK: Duration = Duration::from_millis(10);
