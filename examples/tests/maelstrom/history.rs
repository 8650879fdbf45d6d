//! What clients did and saw, and what is wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::judge::Options;

/// One operation of a client.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) asked: Asked,
    pub(crate) node: usize,
    pub(crate) start: Duration,
    pub(crate) end: Option<Duration>,
    pub(crate) outcome: Outcome,
    /// When a message of another node had last reached the node, at the end.
    pub(crate) last_delivery: Option<Duration>,
    /// After the recovery.
    pub(crate) last: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Broadcast(i64),
    Add(i64),
    Read,
    Echo(String),
    Generate,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Nobody knows whether it happened.
    Unknown,
    /// It did not happen.
    Failed,
    Done,
    Messages(Vec<i64>),
    Value(i64),
    Echo(String),
    Id(String),
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) failures: Vec<String>,
    /// From when a value was known to exist to the start of the last read that missed it, sorted, in milliseconds.
    pub(crate) latencies: Vec<u128>,
}

/// A read of a broadcast workload.
struct Seen<'a> {
    operation: &'a Operation,
    end: Duration,
    values: BTreeSet<i64>,
}

pub(crate) fn check(operations: &[Operation], options: &Options) -> Findings {
    let mut findings = Findings::default();
    let asked = |f: fn(&Asked) -> bool| operations.iter().any(|operation| f(&operation.asked));
    if asked(|asked| matches!(asked, Asked::Broadcast(_))) {
        broadcasts(operations, options, &mut findings);
    }
    if asked(|asked| matches!(asked, Asked::Add(_))) {
        counters(operations, options, &mut findings);
    }
    let mut ids = BTreeSet::new();
    for operation in operations {
        match (&operation.asked, &operation.outcome) {
            (Asked::Echo(said), Outcome::Echo(heard)) if said == heard => {}
            (Asked::Echo(said), other) => findings.failures.push(format!("wrong echo of {said}: {other:?}")),
            (Asked::Generate, Outcome::Id(id)) if !ids.insert(id) => {
                findings.failures.push(format!("repeated id {id}"));
            }
            _ => {}
        }
    }
    if !operations.iter().any(|operation| !matches!(operation.outcome, Outcome::Unknown | Outcome::Failed)) {
        findings.failures.push("nothing was acknowledged".to_owned());
    }
    findings
}

fn broadcasts(operations: &[Operation], options: &Options, findings: &mut Findings) {
    let sent: BTreeMap<i64, &Operation> = operations
        .iter()
        .filter_map(|operation| match operation.asked {
            Asked::Broadcast(value) => Some((value, operation)),
            _ => None,
        })
        .collect();
    let mut reads: Vec<Seen<'_>> = operations
        .iter()
        .filter(|operation| operation.last || Some(operation.node) != options.cut)
        .filter_map(|operation| match &operation.outcome {
            Outcome::Messages(list) => {
                Some(Seen { operation, end: operation.end?, values: list.iter().copied().collect() })
            }
            _ => None,
        })
        .collect();
    reads.sort_by_key(|read| read.end);
    let mut known = falsehoods(&sent, &reads, options, findings);
    for (value, operation) in &sent {
        if let (Outcome::Done, Some(end)) = (&operation.outcome, operation.end) {
            let since = known.entry(*value).or_insert(end);
            *since = end.min(*since);
        }
    }
    reads.sort_by_key(|read| read.operation.start);
    let lost = losses(&known, &reads, options, findings);
    for (value, since) in &known {
        let from = sent[value];
        if lost.contains(value) || Some(from.node) == options.cut {
            continue;
        }
        let missed = reads.iter().rev().find(|read| !read.values.contains(value) && read.end > from.start);
        let until = missed.map_or(Duration::ZERO, |read| read.operation.start);
        findings.latencies.push(until.saturating_sub(*since).as_millis());
    }
    findings.latencies.sort_unstable();
}

/// Values that nobody sent, and such as no message can have brought. Gives since when each true one is known to exist.
fn falsehoods(
    sent: &BTreeMap<i64, &Operation>,
    reads: &[Seen<'_>],
    options: &Options,
    findings: &mut Findings,
) -> BTreeMap<i64, Duration> {
    let mut first = BTreeMap::new();
    let mut known_at: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
    for read in reads {
        let at = read.operation.node;
        for value in read.values.difference(known_at.entry(at).or_default()) {
            match sent.get(value) {
                None => findings.failures.push(format!("invented: node {at} read {value}")),
                Some(from) if from.start > read.end => {
                    findings.failures.push(format!("invented: node {at} read {value} before it was sent"));
                }
                Some(from) => {
                    let reached = read.operation.last_delivery.is_some_and(|last| last >= from.start);
                    if from.node != at && !reached && !options.side_channel {
                        findings
                            .failures
                            .push(format!("smuggled: no message can have brought {value} to node {at}"));
                    }
                    first.entry(*value).or_insert(read.end);
                }
            }
        }
        known_at.entry(at).or_default().extend(&read.values);
    }
    first
}

/// Values that exist and are missing from a last read, and nodes without one.
fn losses(
    known: &BTreeMap<i64, Duration>,
    reads: &[Seen<'_>],
    options: &Options,
    findings: &mut Findings,
) -> BTreeSet<i64> {
    let mut lost = BTreeSet::new();
    for node in 0..options.nodes {
        let Some(read) = reads.iter().find(|read| read.operation.last && read.operation.node == node) else {
            findings.failures.push(format!("silent: node {node} did not answer its last read"));
            continue;
        };
        let missing: Vec<i64> = known.keys().filter(|value| !read.values.contains(value)).copied().collect();
        if let Some(value) = missing.first() {
            findings.failures.push(format!("lost: {} values at node {node}, such as {value}", missing.len()));
        }
        lost.extend(missing);
    }
    lost
}

fn counters(operations: &[Operation], options: &Options, findings: &mut Findings) {
    let mut sums = BTreeSet::from([0]);
    for operation in operations {
        let Asked::Add(delta) = operation.asked else { continue };
        match operation.outcome {
            Outcome::Done => sums = sums.into_iter().map(|sum| sum + delta).collect(),
            // It may or may not count.
            Outcome::Unknown => sums.extend(sums.clone().into_iter().map(|sum| sum + delta)),
            _ => {}
        }
    }
    for node in 0..options.nodes {
        let last = operations.iter().find(|operation| operation.last && operation.node == node);
        match last.map(|operation| &operation.outcome) {
            Some(Outcome::Value(value)) if sums.contains(value) => {}
            Some(Outcome::Value(value)) => {
                findings.failures.push(format!("wrong sum: node {node} read {value}, not one of {sums:?}"));
            }
            _ => findings.failures.push(format!("silent: node {node} did not answer its last read")),
        }
    }
}
