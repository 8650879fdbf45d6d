//! System calls of an echo, counted by strace: of the client for what it writes, of the server for what it answers.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::control::Process;
use crate::plan::{Plan, System, Workload};

const SYSTEMS: [System; 5] =
    [System::Std, System::Rustls, System::CrustTcp, System::Quinn, System::CrustQuic];

/// Echoes of the shorter and of the longer run; what they differ in is the steady state's.
const ECHOES: [usize; 2] = [500, 2500];

/// Calls rarer than this are no part of an echo: memory, timers, a thread that woke by chance.
const RARE: f64 = 0.05;

/// Prints the table.
pub(crate) fn run(only: &[System]) -> Result<()> {
    println!("\ncalls: system calls of each end an echo of 64 B on one stream");
    for system in SYSTEMS.into_iter().filter(|system| only.is_empty() || only.contains(system)) {
        let [shorter, longer] = ECHOES.map(|echoes| traced(system, echoes));
        let (shorter, longer) = (shorter?, longer?);
        for (end, shorter, longer) in [("client", &shorter.0, &longer.0), ("server", &shorter.1, &longer.1)] {
            println!("{:14} {end}: {}", system.name(), each(shorter, longer).join(", "));
        }
    }
    Ok(())
}

/// Calls by name.
type Calls = BTreeMap<String, u64>;

/// What client and server call in a run with so many echoes.
fn traced(system: System, echoes: usize) -> Result<(Calls, Calls)> {
    let plan = Plan { dials: echoes, ..Plan::default() };
    let files = ["client", "server"].map(|end| trace_file(system, end));
    let mut server = Process::start_traced(system, Workload::Count, &plan, None, &files[1])?;
    let address = server.ready()?;
    let mut client = Process::start_traced(system, Workload::Count, &plan, Some(&address), &files[0])?;
    client.ready()?;
    client.ask("go")?;
    client.finish()?;
    server.finish()?;
    let [client, server] = files.map(|file| counted(&file));
    Ok((client?, server?))
}

fn trace_file(system: System, end: &str) -> PathBuf {
    std::env::temp_dir().join(format!("calls-{}-{}-{end}", std::process::id(), system.name()))
}

/// Reads strace's summary: lines of a name and a number, after two of a heading.
fn counted(file: &Path) -> Result<Calls> {
    let text = read_to_string(file).with_context(|| format!("strace wrote no {}", file.display()))?;
    std::fs::remove_file(file)?;
    let rows = text.lines().filter_map(|line| {
        let (name, calls) = line.trim().split_once(char::is_whitespace)?;
        Some((name.to_owned(), calls.trim().parse().ok()?))
    });
    Ok(rows.filter(|(name, _)| name != "total").collect())
}

fn each(shorter: &Calls, longer: &Calls) -> Vec<String> {
    let echoes = (ECHOES[1] - ECHOES[0]) as f64;
    let mut rows: Vec<(f64, &str)> = longer
        .iter()
        .map(|(name, calls)| (calls.saturating_sub(shorter.get(name).copied().unwrap_or(0)), name.as_str()))
        .map(|(calls, name)| (calls as f64 / echoes, name))
        .filter(|(calls, _)| *calls >= RARE)
        .collect();
    rows.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    rows.into_iter().map(|(calls, name)| format!("{calls:.2} {name}")).collect()
}
