//! One table: measuring system after system, round after round, and printing what came of it.

use std::fmt::{self, Write as _};

use anyhow::{Context, Result};

use crate::machine;
use crate::measure::{Sample, Task, sample};
use crate::path::Path;
use crate::plan::{Plan, System, Workload};
use crate::statistics::Spread;

/// A question with one figure for an answer, asked of several systems.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) workload: Workload,
    /// Both processes on one core: what is left is the cost of the software.
    pub(crate) pinned: bool,
    /// What lies between them, if anything.
    pub(crate) path: Option<Path>,
    /// Fits how much is done to the question.
    pub(crate) plan: fn(Plan) -> Plan,
    pub(crate) systems: &'static [System],
    pub(crate) figure: fn(&Sample) -> f64,
    pub(crate) beside: &'static [Beside],
    /// What ours should come to.
    pub(crate) goals: &'static [(System, Goal)],
}

/// A bound for our figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// As a ratio to the reference.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// As it is.
    AtMost(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtMost(most) => write!(formatter, "<= {most:.2} x"),
            Self::RatioAtLeast(least) => write!(formatter, ">= {least:.2} x"),
            Self::AtMost(most) => write!(formatter, "<= {most}"),
        }
    }
}

/// A second figure, shown without a ratio.
#[derive(Clone, Copy)]
pub(crate) struct Beside {
    pub(crate) title: &'static str,
    pub(crate) figure: fn(&Sample) -> f64,
}

impl Table {
    /// Measures system after system in each round, so that whatever the machine does meets all alike, and prints.
    pub(crate) fn run(&self, plan: &Plan, rounds: usize, only: &[System]) -> Result<()> {
        let systems: Vec<System> =
            self.systems.iter().copied().filter(|system| only.is_empty() || only.contains(system)).collect();
        let plan = (self.plan)(*plan);
        let core = self.pinned.then(machine::quiet_core);
        let mut samples = vec![Vec::with_capacity(rounds); systems.len()];
        for round in 0..rounds {
            // Each round begins with another system: none always follows the same one.
            for index in (0..systems.len()).map(|index| (index + round) % systems.len()) {
                let system = systems[index];
                let sample = sample(&Task { system, workload: self.workload, plan, core, path: self.path })
                    .with_context(|| format!("{} with {}", self.name, system.name()))?;
                samples[index].push(sample);
            }
        }
        print!("{}", self.text(&systems, &samples));
        Ok(())
    }

    fn text(&self, systems: &[System], samples: &[Vec<Sample>]) -> String {
        let mut text = format!("\n{}: {}\n", self.name, self.title);
        let beside: String = self.beside.iter().map(|beside| format!("  {:>9}", beside.title)).collect();
        let _ = writeln!(
            text,
            "{:20} {:>9} {:>19}  {:>8} {:>15}{beside}  to reach",
            "system", "median", "least..greatest", "x ref", "least..greatest"
        );
        for (&system, own) in systems.iter().zip(samples) {
            let reference =
                systems.iter().position(|&each| each == system.reference()).map(|at| &samples[at]);
            let _ = writeln!(text, "{}", self.row(system, own, reference));
        }
        let others = Spread::of(samples.iter().flatten().map(|sample| sample.others * 100.0));
        if let (Some(others), Some(rounds)) = (others, samples.first().map(Vec::len)) {
            let _ = writeln!(
                text,
                "{rounds} rounds; x ref: rustls for TCP, quinn for QUIC, in the same round; others had {:.0} % of the \
                 machine, {:.0} % at worst",
                others.median, others.greatest
            );
        }
        text
    }

    fn row(&self, system: System, own: &[Sample], reference: Option<&Vec<Sample>>) -> String {
        let figures = own.iter().map(self.figure);
        let ratios = reference.into_iter().flat_map(|reference| {
            own.iter().zip(reference).map(|(ours, theirs)| (self.figure)(ours) / (self.figure)(theirs))
        });
        let (Some(figures), ratios) = (Spread::of(figures), Spread::of(ratios)) else { return String::new() };
        let ratio = ratios.map_or((String::new(), String::new()), |ratios| {
            (format!("{:.2}", ratios.median), format!("{:.2}..{:.2}", ratios.least, ratios.greatest))
        });
        let goal = self.goals.iter().find(|(ours, _)| *ours == system).map(|(_, goal)| goal.to_string());
        let beside: String = self
            .beside
            .iter()
            .filter_map(|beside| Spread::of(own.iter().map(beside.figure)))
            .map(|beside| format!("  {:>9.2}", beside.median))
            .collect();
        format!(
            "{:14} {:>9.2} {:>19}  {:>8} {:>15}{}  {}",
            system.name(),
            figures.median,
            format!("{:.2}..{:.2}", figures.least, figures.greatest),
            ratio.0,
            ratio.1,
            beside,
            goal.unwrap_or_default(),
        )
    }
}
