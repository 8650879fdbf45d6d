//! The two processes of a measurement, seen from inside.

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Context, Result, bail};

use crate::control::{Measured, Usage};
use crate::machine;
use crate::plan::{Plan, System, Workload};
use crate::systems::{self, Load};

/// Runs as `SYSTEM WORKLOAD CORE PLAN... [ADDRESS]`, and ends with standard input.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let [system, workload, core, plan @ ..] = words else {
        bail!("a peer takes more arguments than {words:?}")
    };
    let (plan, address) = plan.split_at_checked(4).context("a peer takes a plan")?;
    let system: System = system.parse()?;
    let workload: Workload = workload.parse()?;
    let plan = Plan::from_words(plan)?;
    if core != "-" {
        machine::pin(core.parse()?)?;
    }
    machine::raise_descriptor_limit()?;
    match address {
        [] => serve(system, workload),
        [address] => load(systems::load(system, workload, &plan, address)?),
        _ => bail!("too many arguments"),
    }
}

/// The server's side for a service of ours, in a program that holds nothing else.
///
/// # Errors
///
/// When the service does not start, or the harness says something unknown.
pub fn service(words: &[String]) -> Result<()> {
    let Some(system) = words.get(1) else { bail!("a service takes more arguments than {words:?}") };
    let (address, _service) = systems::service::serve(system.parse()?)?;
    attend(&address)
}

fn serve(system: System, workload: Workload) -> Result<()> {
    // Whatever must stay alive for the server is held here; it works on threads of its own.
    let (address, _server) = systems::serve(system, workload)?;
    attend(&address)
}

/// Answers the harness until it is done.
fn attend(address: &str) -> Result<()> {
    say(&format!("ready {address}"))?;
    for line in stdin().lock().lines() {
        match line?.as_str() {
            "usage" => say(&Usage::now()?.to_line())?,
            other => bail!("no such command: {other:?}"),
        }
    }
    Ok(())
}

fn load(mut load: Load) -> Result<()> {
    say("ready")?;
    for line in stdin().lock().lines() {
        match line?.as_str() {
            "go" => {
                let before = machine::cpu_time();
                let mut times = load()?;
                let cpu = machine::cpu_time() - before;
                say(&Measured { cpu, ..times.measured() }.to_line())?;
            }
            other => bail!("no such command: {other:?}"),
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
