use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use crust_examples::mesh::{Histogram, Line, PeerReport, Process, Report};

/// How large and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) nodes: usize,
    pub(crate) load: Duration,
    /// From the beginning of a load to the fault.
    pub(crate) fault_after: Duration,
    /// After which silence nodes take each other for dead.
    pub(crate) timeout: Duration,
    /// Bars in time and memory are insisted on.
    pub(crate) full: bool,
}

/// Collects rows of the table, and what is wrong.
pub(crate) struct Judge {
    pub(crate) scale: Scale,
    threading: &'static str,
    /// The p99 under load that nobody disturbs, in microseconds.
    pub(crate) undisturbed: Option<u64>,
    failures: Vec<String>,
}

impl Judge {
    pub(crate) fn new(threading: &'static str, scale: Scale) -> Self {
        if scale.full {
            println!("{threading:60}  figure                      bar");
        }
        Self { scale, threading, undisturbed: None, failures: Vec::new() }
    }

    pub(crate) fn take_failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.failures)
    }

    /// What must hold on any machine.
    pub(crate) fn fact(&mut self, what: &str, figure: &str, bar: &str, holds: bool) {
        self.row(what, figure, bar, holds);
        if !holds {
            self.failures.push(format!("{what}: {figure}, and it must be {bar}"));
        }
    }

    /// What an idle machine must reach.
    pub(crate) fn figure(&mut self, what: &str, figure: &str, bar: &str, holds: bool) {
        if self.scale.full {
            self.fact(what, figure, bar, holds);
        }
    }

    /// The same, of times from one moment to others.
    pub(crate) fn within(&mut self, what: &str, times: &[Duration], least: Duration, most: Duration) {
        let [first, last] =
            [times.iter().min(), times.iter().max()].map(|time| time.copied().unwrap_or_default());
        let bar = match least {
            Duration::ZERO => format!("<= {:.1} s", most.as_secs_f64()),
            _ => format!("{:.1} to {:.1} s", least.as_secs_f64(), most.as_secs_f64()),
        };
        let figure = format!("{:.2} to {:.2} s", first.as_secs_f64(), last.as_secs_f64());
        self.figure(what, &figure, &bar, first >= least && last <= most && !times.is_empty());
    }

    fn row(&self, what: &str, figure: &str, bar: &str, holds: bool) {
        if self.scale.full {
            let verdict = if holds { "" } else { "  MISSED" };
            println!("  {what:58}  {figure:26}  {bar}{verdict}");
        }
    }

    /// A node with this name.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        command.args(self.arguments(name));
        command
    }

    pub(crate) fn arguments(&self, name: &str) -> [String; 6] {
        ["node", self.threading, "--name", name, "--timeout", &self.scale.timeout.as_secs().to_string()]
            .map(str::to_owned)
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        (0..self.scale.nodes).map(|number| self.command(&format!("n{number}"))).collect()
    }

    /// Threads of a node in a group of so many.
    pub(crate) fn threads(&self, nodes: usize) -> usize {
        if self.threading == "one-thread" { 4 } else { 2 * (nodes - 1) + 4 }
    }

    /// Of all pairs but those with this node: nothing was lost or came twice, or out of order.
    pub(crate) fn nothing_lost(&mut self, what: &str, reports: &[Report], but: Option<&str>) {
        let pairs = pairs(reports, but);
        let sum = |of: fn(&PeerReport) -> u64| pairs.iter().map(|(_, _, pair)| of(pair)).sum::<u64>();
        let (lost, misplaced) = (sum(|pair| pair.lost), sum(|pair| pair.misplaced));
        let refused = sum(|pair| pair.counters.refused_full);
        // What one has sent the other has received, as both count.
        let unequal = pairs.iter().filter(|(from, to, pair)| {
            let back = reports.iter().find(|report| report.name == *to);
            back.is_none_or(|back| {
                back.peers[*from].counters.messages_received != pair.counters.messages_sent
            })
        });
        let (unequal, received) = (unequal.count(), sum(|pair| pair.counters.messages_received));
        self.fact(
            what,
            &format!(
                "{lost} lost, {misplaced} misplaced, {refused} refused, {unequal} pairs unequal of {received}"
            ),
            "0, 0, 0, 0",
            (lost, misplaced, refused, unequal) == (0, 0, 0, 0) && received > 0,
        );
    }
}

/// Each pair of two nodes, as one of them saw it: its name, the other's, and what it saw.
pub(crate) fn pairs<'a>(reports: &'a [Report], but: Option<&str>) -> Vec<(&'a str, &'a str, &'a PeerReport)> {
    let pairs = reports.iter().flat_map(|report| {
        report.peers.iter().map(|(peer, pair)| (report.name.as_str(), peer.as_str(), pair))
    });
    pairs.filter(|(from, to, _)| Some(*from) != but && Some(*to) != but).collect()
}

pub(crate) fn p99(reports: &[Report], but: Option<&str>) -> u64 {
    let all: Histogram = pairs(reports, but).into_iter().map(|(_, _, pair)| pair.latencies.clone()).sum();
    all.quantile(0.99)
}

/// When a node found another gone, in microseconds since 1970, and why; waits for it.
pub(crate) fn down(node: &mut Process, peer: &str) -> (u64, String) {
    let found = node.find(0, PATIENCE, |line| match line {
        Line::Down { peer: gone, reason, at } if gone == peer => Some((*at, reason.clone())),
        _ => None,
    });
    found.unwrap()
}

/// Which nodes this one has found gone so far.
pub(crate) fn downs(node: &mut Process) -> Vec<String> {
    let down = |line: &Line| match line {
        Line::Down { peer, .. } => Some(peer.clone()),
        _ => None,
    };
    node.said().iter().filter_map(down).collect()
}

/// The clock of the nodes.
pub(crate) fn now() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(time.as_micros()).unwrap()
}

pub(crate) fn since(begin: u64, at: u64) -> Duration {
    Duration::from_micros(at.saturating_sub(begin))
}

/// Far more than anything takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
