//! The command line.

use anyhow::{Context, Result, bail};

use crate::plan::{Plan, System};
use crate::{measure, peer, system_calls, tables};

/// Prints the tables that are named, or is one of the two processes that the tables start.
///
/// # Errors
///
/// What could not be measured, and what the usage is.
pub fn run(words: Vec<String>) -> Result<()> {
    if words.first().is_some_and(|word| word == "peer") {
        return peer::run(&words[1..]);
    }
    let order = Order::parse(words)?;
    measure::machine_line();
    for name in &order.tables {
        if name == "calls" {
            system_calls::run(&order.only)?;
        } else {
            tables::find(name)?.run(&order.plan, order.rounds, &order.only)?;
        }
    }
    Ok(())
}

/// What is to be measured and how thoroughly.
struct Order {
    tables: Vec<String>,
    rounds: usize,
    plan: Plan,
    /// Leaves other systems out, unless it is empty.
    only: Vec<System>,
}

impl Order {
    fn parse(words: Vec<String>) -> Result<Self> {
        let mut order = Self { tables: Vec::new(), rounds: 5, plan: Plan::default(), only: Vec::new() };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--rounds" => order.rounds = words.next().context("--rounds takes a number")?.parse()?,
                "--short" => order.plan = order.plan.shortened(),
                "--systems" => {
                    let names = words.next().context("--systems takes names with commas between")?;
                    order.only = names.split(',').map(str::parse).collect::<Result<_>>()?;
                }
                table => order.tables.push(table.to_owned()),
            }
        }
        if order.tables.is_empty() {
            bail!(
                "usage: transport-bench TABLE... [--rounds N] [--short] [--systems A,B]\n\n{}",
                tables::list()
            );
        }
        Ok(order)
    }
}
