//! Services behind kernel NATs that meet by an introducer on the public host (Linux, root; see `nat-lab`).
//!
//! Without arguments a short list of cases runs; `figures [TRIALS] [relayed] [trace] [PAIR…]` prints the table of how many pairs of
//! NATs meet, how fast, by which road, and whether they are direct in the end: with a relay on the public host, with the log, and only pairs such
//! as `easy:hard`; `again [TRIALS]` how much sooner a pair that knows each other meets; `leaves [TRIALS] [PAIR…]` how soon streams leave
//! the relay that they had to begin on, and what it carried until then; `moves [RUNS] [trace] [WORD…]` how long transfers stand still when hosts
//! move, routers forget and relays die: only what the words name, and with `trace` one after the other, with the log of those that took long;
//! `stopped [SECONDS]` how soon streams go on of a process that was stopped for as long; `idle [SECONDS]` what a service costs that waits to be called.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod again;
#[cfg(target_os = "linux")]
mod cases;
#[cfg(target_os = "linux")]
mod drops;
#[cfg(target_os = "linux")]
mod figures;
#[cfg(target_os = "linux")]
mod forwarding;
#[cfg(target_os = "linux")]
#[path = "../drops/held.rs"]
mod held;
#[cfg(target_os = "linux")]
mod idle;
#[cfg(target_os = "linux")]
mod leaving;
#[cfg(target_os = "linux")]
mod moving;
#[cfg(target_os = "linux")]
mod outage;
#[cfg(target_os = "linux")]
#[path = "../drops/play.rs"]
#[expect(dead_code, reason = "some of it is for the other program")]
mod play;
#[cfg(target_os = "linux")]
#[path = "../drops/recorder.rs"]
mod recorder;
#[cfg(target_os = "linux")]
mod relaying;
#[cfg(target_os = "linux")]
mod single;
#[cfg(target_os = "linux")]
mod stopping;
#[cfg(target_os = "linux")]
mod transfers;
#[cfg(target_os = "linux")]
mod world;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    cases::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("NOT RUN: services behind NATs: network namespaces are Linux's");
    ExitCode::SUCCESS
}

/// Far beyond what anything takes that drops are about, on a machine whose cores are all busy.
#[cfg(target_os = "linux")]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
