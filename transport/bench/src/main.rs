//! Measures `transport` beside plain sockets, rustls and quinn, all in the same run. See README.md for the tables.

mod control;
mod machine;
mod measure;
mod peer;
mod plan;
mod statistics;
mod systems;
mod tables;

use anyhow::{Result, bail};

use crate::plan::{Plan, System};

fn main() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "peer") {
        return peer::run(&words[1..]);
    }
    let plan = Plan::default();
    let mut rounds = 5;
    if let Some(at) = words.iter().position(|word| word == "--rounds") {
        rounds = words.get(at + 1).map_or("", String::as_str).parse()?;
        words.drain(at..at + 2);
    }
    let plan = match words.iter().position(|word| word == "--short") {
        Some(at) => {
            words.remove(at);
            plan.shortened()
        }
        None => plan,
    };
    let only = match words.iter().position(|word| word == "--systems") {
        Some(at) => {
            let names = words.get(at + 1).cloned().unwrap_or_default();
            words.drain(at..at + 2);
            names.split(',').map(str::parse).collect::<Result<Vec<System>>>()?
        }
        None => Vec::new(),
    };
    if words.is_empty() {
        bail!("usage: transport-bench TABLE... [--rounds N] [--short] [--systems A,B]\n\n{}", tables::list());
    }
    measure::machine_line();
    for name in &words {
        tables::find(name)?.run(&plan, rounds, &only)?;
    }
    Ok(())
}
