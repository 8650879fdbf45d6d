use std::{io, process::Command, thread, time::Duration};

use super::{Costs, Histogram, PeerReport, Processes, Report};

/// Runs groups of 4, 8 and 16 processes of this program in both threadings under load for `time` each, and prints a table.
///
/// # Errors
///
/// When a process cannot be started, or ends without a report.
pub fn table(time: Duration) -> io::Result<()> {
    println!(
        "200 messages of 1 KiB a second to each peer, for {} s; costs are those of one node",
        time.as_secs()
    );
    println!("nodes  threading    full mesh  threads     memory    CPU      p50      p99  lost  misplaced");
    for nodes in [4, 8, 16] {
        for threading in ["two-threads", "one-thread"] {
            println!("{nodes:5}  {threading:11}  {}", row(nodes, threading, time)?);
        }
    }
    Ok(())
}

/// Runs one group, and takes the measure of its first node while it works.
fn row(nodes: usize, threading: &str, time: Duration) -> io::Result<String> {
    let program = std::env::current_exe()?;
    let commands = (0..nodes).map(|number| {
        let mut command = Command::new(&program);
        command.args(["node", threading, "--name", &format!("n{number}")]);
        command
    });
    let mut group = Processes::start(commands)?;
    let full_after = group.full_after.as_millis();
    group.tell(&format!("load {}", time.as_secs()))?;
    let first = group.nodes[0].id();
    let (part, begin) = (time / 4, Costs::of(first));
    thread::sleep(part);
    let end = Costs::of(first);
    group.wait_for_load(0..nodes, time)?;
    let reports = group.end()?;
    let pairs: Vec<&PeerReport> = reports.iter().flat_map(|Report { peers, .. }| peers.values()).collect();
    let latencies: Histogram = pairs.iter().map(|pair| pair.latencies.clone()).sum();
    let sum = |of: fn(&PeerReport) -> u64| pairs.iter().map(|pair| of(pair)).sum::<u64>();
    Ok(format!(
        "{full_after:6} ms  {:7}  {:5.1} MiB  {:4.1} %  {:4.1} ms  {:4.1} ms  {:4}  {:9}",
        end.threads,
        end.resident_bytes as f64 / f64::from(1 << 20),
        100.0 * (end.processor_time - begin.processor_time).as_secs_f64() / part.as_secs_f64(),
        latencies.quantile(0.5) as f64 / 1e3,
        latencies.quantile(0.99) as f64 / 1e3,
        sum(|pair| pair.lost),
        sum(|pair| pair.misplaced),
    ))
}
