//! What the system tells about this process and the machine.

use std::fs::read_to_string;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads of this process, those that have ended too.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Memory that this process holds, exact (`status` lags behind by up to a few pages a thread).
pub(crate) fn resident_kibibytes() -> Result<u64> {
    field("/proc/self/smaps_rollup", "Rss:")
}

pub(crate) fn threads() -> Result<u64> {
    field("/proc/self/status", "Threads:")
}

/// Keeps this process, and what threads it starts, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).context("cannot pin to a core")
}

/// The last core: interrupts tend to be served by the first.
pub(crate) fn quiet_core() -> usize {
    cores() - 1
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Allows as many open streams as the system permits.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

/// The congestion control that TCP sockets get here.
pub(crate) fn tcp_congestion_control() -> String {
    read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or("unknown".into(), |name| name.trim().into())
}

pub(crate) fn kernel() -> String {
    read_to_string("/proc/sys/kernel/osrelease").map_or("unknown".into(), |name| name.trim().into())
}

/// Processor time that the whole machine has spent, idling apart.
pub(crate) fn busy_time() -> Result<Duration> {
    let stat = read_to_string("/proc/stat")?;
    let first = stat.lines().next().context("/proc/stat has lines")?;
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal: all but the two idle ones; a tick is 10 ms on Linux.
    let busy: u64 =
        ticks.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, t)| t).sum();
    Ok(Duration::from_millis(busy * 10))
}

fn field(file: &str, name: &str) -> Result<u64> {
    let text = read_to_string(file)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{file} has no {name}"))
}
