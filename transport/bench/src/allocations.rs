//! Allocations of a 64 B echo in the steady state, both ends in this process.

use anyhow::Result;

use crate::bare_quic;
use crate::plan::{Plan, System, Workload};
use crate::systems;

/// Prints the table; `count` tells how many allocations this process has made so far.
///
/// # Errors
///
/// When a system cannot be measured.
pub fn allocations(count: impl Fn() -> usize) -> Result<()> {
    println!("allocations of both ends an echo of 64 B on one stream, in the steady state");
    for system in [System::Std, System::Rustls, System::CrustTcp, System::Quinn, System::CrustQuic] {
        let (address, _server) = systems::serve(system, Workload::Echo)?;
        let mut load = systems::load(system, Workload::Echo, &Plan::default(), &address)?;
        let before = count();
        let echoes = load()?.measured().operations;
        // Those of the measurement itself are a handful among ten thousands.
        print_row(system.name(), count() - before, echoes);
    }

    let mut pair = bare_quic::Pair::connect()?;
    pair.echo(ECHOES)?;
    let before = count();
    pair.echo(ECHOES)?;
    print_row("quinn-proto", count() - before, ECHOES);
    Ok(())
}

const ECHOES: u64 = 20_000;

fn print_row(name: &str, allocations: usize, echoes: u64) {
    println!("{name:14} {:6.2}", allocations as f64 / echoes as f64);
}
