//! Clients, network and faults, as a state machine: what nodes say goes in, what they are told comes out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    time::Duration,
};

use crust_examples::protocol::maelstrom::{Body, Message, Payload, Read};

use crate::{
    history::{self, Asked, Operation, Outcome},
    nemesis,
    random::Random,
};

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) workload: Workload,
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    /// How long clients work, and how long it is quiet before the last reads.
    pub(crate) time: Duration,
    pub(crate) recovery: Duration,
    /// Operations a second.
    pub(crate) rate: f64,
    pub(crate) latency: Duration,
    pub(crate) exponential: bool,
    pub(crate) loss: f64,
    /// Mean time from fault to repair to fault.
    pub(crate) partitions: Option<Duration>,
    /// Mean time from stopping some processes to waking them to stopping others.
    pub(crate) pauses: Option<Duration>,
    /// A node that is cut off until the last reads; latencies are those of the others.
    pub(crate) cut: Option<usize>,
    /// Nodes may talk on roads of their own.
    pub(crate) side_channel: bool,
    pub(crate) limits: Limits,
}

/// Reaching one of these is a failure.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub(crate) messages: Option<f64>,
    pub(crate) median: Option<u128>,
    pub(crate) max: Option<u128>,
    /// For how long clients may wait for an answer, in milliseconds.
    pub(crate) wait: Option<u128>,
    /// The share of operations that must be answered; this one may be reached.
    pub(crate) available: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Workload {
    Broadcast,
    /// Adds what may be negative.
    Counter,
    /// Adds what is not.
    GrowingCounter,
    UniqueIds,
    Echo,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workload: Workload::Broadcast,
            nodes: 5,
            seed: 1,
            time: Duration::from_secs(20),
            recovery: Duration::from_secs(10),
            rate: 100.0,
            latency: Duration::ZERO,
            exponential: false,
            loss: 0.0,
            partitions: None,
            pauses: None,
            cut: None,
            side_channel: false,
            limits: Limits::default(),
        }
    }
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) failures: Vec<String>,
    pub(crate) operations: usize,
    pub(crate) messages: f64,
    pub(crate) median: u128,
    pub(crate) max: u128,
    pub(crate) wait: u128,
    /// The share of operations that were answered.
    pub(crate) available: f64,
    /// How late the judge itself delivered messages, on the mean, in milliseconds: latencies mean little when it is more
    /// than a few.
    pub(crate) lag: f64,
}

#[derive(Debug)]
pub(crate) struct Judge {
    options: Options,
    random: Random,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    /// What happens, by its number.
    happenings: BTreeMap<u64, Event>,
    next_event: u64,
    deliveries: VecDeque<(usize, Message)>,
    /// Requests under way, by client, which stands at one node; with the place of the operation.
    waiting: BTreeMap<usize, (u64, Option<usize>)>,
    next_request: u64,
    operations: Vec<Operation>,
    cut: BTreeSet<(usize, usize)>,
    paused: BTreeSet<usize>,
    signals: VecDeque<(usize, Signal)>,
    /// How many messages were delivered, and how late all together.
    delivered: (u32, Duration),
    problems: Vec<String>,
    between_nodes: u64,
    last_delivery: Vec<Option<Duration>>,
    phase: Phase,
    next_value: i64,
}

#[derive(Debug)]
enum Event {
    Deliver { from: usize, to: usize, message: Box<Message> },
    GiveUp { node: usize, request: u64 },
    Operate,
    Fault { harm: bool },
    Pause { harm: bool },
    Next,
}

/// What a process is told by its system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Stop,
    Continue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Init,
    Topology,
    Work,
    Settle,
    Recover,
    LastReads,
    Over,
}

impl Judge {
    pub(crate) fn new(options: Options) -> Self {
        let mut judge = Self {
            random: Random(options.seed),
            events: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next_event: 0,
            deliveries: VecDeque::new(),
            waiting: BTreeMap::new(),
            next_request: 0,
            operations: Vec::new(),
            cut: BTreeSet::new(),
            paused: BTreeSet::new(),
            signals: VecDeque::new(),
            delivered: (0, Duration::ZERO),
            problems: Vec::new(),
            between_nodes: 0,
            last_delivery: vec![None; options.nodes],
            phase: Phase::Init,
            next_value: 0,
            options,
        };
        let node_ids: Vec<String> = (0..judge.options.nodes).map(name).collect();
        for node in 0..judge.options.nodes {
            let init = Payload::Init { node_id: name(node), node_ids: node_ids.clone() };
            judge.ask(Duration::ZERO, node, init, None);
        }
        judge
    }

    /// What a node has said.
    pub(crate) fn handle_output(&mut self, now: Duration, node: usize, message: Message) {
        if message.src != name(node) {
            return self.problem(format!("node {node} spoke as {}", message.src));
        }
        if message.dest == client(node) {
            return self.finish(now, node, message.body.in_reply_to, Some(message.body.payload));
        }
        let Some(to) = (0..self.options.nodes).find(|to| name(*to) == message.dest) else {
            return self.problem(format!("node {node} spoke to {}, whom nobody knows", message.dest));
        };
        self.between_nodes += 1;
        if self.random.share() < self.options.loss {
            return;
        }
        let latency = self.options.latency;
        let latency = if self.options.exponential { self.random.exponential(latency) } else { latency };
        self.schedule(now + latency, Event::Deliver { from: node, to, message: Box::new(message) });
    }

    /// What a node did beside speaking: ended, or printed nonsense.
    pub(crate) fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        while let Some(Reverse((at, number))) = self.events.peek().copied() {
            if at > now || self.phase == Phase::Over {
                return;
            }
            self.events.pop();
            if let Some(event) = self.happenings.remove(&number) {
                if let Event::Deliver { .. } = event {
                    self.delivered = (self.delivered.0 + 1, self.delivered.1 + (now - at));
                }
                self.happen(now, event);
            }
        }
    }

    /// The next message that reaches a node.
    pub(crate) fn poll_delivery(&mut self) -> Option<(usize, Message)> {
        self.deliveries.pop_front()
    }

    /// The next process to stop or to wake.
    pub(crate) fn poll_signal(&mut self) -> Option<(usize, Signal)> {
        self.signals.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        (self.phase != Phase::Over).then(|| self.events.peek().map(|Reverse((at, _))| *at))?
    }

    pub(crate) fn report(self) -> Report {
        let findings = history::check(&self.operations, &self.options);
        let mut failures = self.problems;
        failures.extend(findings.failures);
        let latency = |share: f64| {
            let place = (findings.latencies.len() as f64 * share) as usize;
            findings.latencies.get(place).or_else(|| findings.latencies.last()).copied().unwrap_or(0)
        };
        let waits = self
            .operations
            .iter()
            .filter_map(|operation| Some((operation.end? - operation.start).as_millis()));
        let answered = self
            .operations
            .iter()
            .filter(|operation| !matches!(operation.outcome, Outcome::Unknown | Outcome::Failed));
        let report = Report {
            available: answered.count() as f64 / self.operations.len().max(1) as f64,
            lag: 1e3 * self.delivered.1.as_secs_f64() / f64::from(self.delivered.0.max(1)),
            operations: self.operations.len(),
            messages: self.between_nodes as f64 / self.operations.len().max(1) as f64,
            median: latency(0.5),
            max: latency(1.0),
            wait: waits.max().unwrap_or(0),
            failures,
        };
        report.judged(self.options.limits)
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((at, self.next_event)));
        self.happenings.insert(self.next_event, event);
    }

    fn happen(&mut self, now: Duration, event: Event) {
        match event {
            Event::Deliver { from, to, .. } if self.cut.contains(&(from, to)) => {}
            Event::Deliver { from, to, message } => {
                if from != to {
                    self.last_delivery[to] = Some(now);
                }
                self.deliveries.push_back((to, *message));
            }
            Event::GiveUp { node, request } => self.finish(now, node, Some(request), None),
            Event::Operate => self.operate(now),
            Event::Fault { harm } => self.fault(now, harm),
            Event::Pause { harm } => self.pause(now, harm),
            Event::Next => self.next_phase(now),
        }
    }

    fn fault(&mut self, now: Duration, harm: bool) {
        let Some(mean) = self.options.partitions.filter(|_| self.phase == Phase::Work) else { return };
        self.cut =
            if harm { nemesis::partition(&mut self.random, self.options.nodes) } else { BTreeSet::new() };
        let wait = mean.mul_f64(0.5 + self.random.share());
        self.schedule(now + wait, Event::Fault { harm: !harm });
    }

    /// Wakes all, or stops some, at least one and not all.
    fn pause(&mut self, now: Duration, harm: bool) {
        let Some(mean) = self.options.pauses.filter(|_| self.phase == Phase::Work) else { return };
        self.wake_all();
        if harm {
            let mut order: Vec<usize> = (0..self.options.nodes).collect();
            self.random.shuffle(&mut order);
            order.truncate(1 + self.random.below(self.options.nodes - 1));
            self.paused = order.into_iter().collect();
            self.signals.extend(self.paused.iter().map(|node| (*node, Signal::Stop)));
        }
        let wait = mean.mul_f64(0.5 + self.random.share());
        self.schedule(now + wait, Event::Pause { harm: !harm });
    }

    fn wake_all(&mut self) {
        let paused = std::mem::take(&mut self.paused);
        self.signals.extend(paused.into_iter().map(|node| (node, Signal::Continue)));
    }

    fn next_phase(&mut self, now: Duration) {
        self.phase = match self.phase {
            Phase::Init if self.options.workload == Workload::Broadcast => {
                let all: BTreeMap<String, Vec<String>> = (0..self.options.nodes)
                    .map(|node| (name(node), neighbours(node, self.options.nodes)))
                    .collect();
                for node in 0..self.options.nodes {
                    self.ask(now, node, Payload::Topology { topology: all.clone() }, None);
                }
                Phase::Topology
            }
            Phase::Init | Phase::Topology => {
                let nodes = self.options.nodes;
                self.cut = self
                    .options
                    .cut
                    .map(|one| (0..nodes).flat_map(|other| [(one, other), (other, one)]).collect())
                    .unwrap_or_default();
                self.schedule(now, Event::Operate);
                self.fault(now, false);
                if let Some(mean) = self.options.partitions {
                    self.schedule(now + mean, Event::Fault { harm: true });
                }
                if let Some(mean) = self.options.pauses {
                    self.schedule(now + mean, Event::Pause { harm: true });
                }
                self.schedule(now + self.options.time, Event::Next);
                Phase::Work
            }
            Phase::Work => {
                self.cut.clear();
                self.wake_all();
                self.schedule(now, Event::Next);
                Phase::Settle
            }
            Phase::Settle if !self.waiting.is_empty() => return,
            Phase::Settle if matches!(self.options.workload, Workload::Echo | Workload::UniqueIds) => {
                Phase::Over
            }
            Phase::Settle => {
                self.schedule(now + self.options.recovery, Event::Next);
                Phase::Recover
            }
            Phase::Recover => {
                for node in 0..self.options.nodes {
                    self.start(now, node, Asked::Read, true);
                }
                Phase::LastReads
            }
            Phase::LastReads | Phase::Over => Phase::Over,
        };
    }

    /// Starts an operation at a node that has none, then comes back after a random pause.
    fn operate(&mut self, now: Duration) {
        if self.phase != Phase::Work {
            return;
        }
        let free: Vec<usize> =
            (0..self.options.nodes).filter(|node| !self.waiting.contains_key(node)).collect();
        if !free.is_empty() {
            let node = free[self.random.below(free.len())];
            let asked = self.invent();
            self.start(now, node, asked, false);
        }
        let pause = Duration::from_secs_f64(2.0 * self.random.share() / self.options.rate);
        self.schedule(now + pause, Event::Operate);
    }

    fn invent(&mut self) -> Asked {
        let writes = self.random.share() < 0.5;
        match self.options.workload {
            Workload::Echo => Asked::Echo(format!("please echo {}", self.random.below(128))),
            Workload::UniqueIds => Asked::Generate,
            _ if !writes => Asked::Read,
            Workload::Counter => Asked::Add(i64::try_from(self.random.below(10)).unwrap() - 5),
            Workload::GrowingCounter => Asked::Add(i64::try_from(self.random.below(10)).unwrap()),
            Workload::Broadcast => {
                self.next_value += 1;
                Asked::Broadcast(self.next_value)
            }
        }
    }

    fn start(&mut self, now: Duration, node: usize, asked: Asked, last: bool) {
        let payload = match asked.clone() {
            Asked::Broadcast(message) => Payload::Broadcast { message },
            Asked::Add(delta) => Payload::Add { delta },
            Asked::Read => Payload::Read,
            Asked::Echo(text) => Payload::Echo { echo: text.into() },
            Asked::Generate => Payload::Generate,
        };
        let place = self.operations.len();
        self.operations.push(Operation {
            asked,
            node,
            start: now,
            end: None,
            outcome: Outcome::Unknown,
            last_delivery: None,
            last,
        });
        self.ask(now, node, payload, Some(place));
    }

    fn ask(&mut self, now: Duration, node: usize, payload: Payload, operation: Option<usize>) {
        self.next_request += 1;
        let request = self.next_request;
        self.waiting.insert(node, (request, operation));
        self.schedule(now + PATIENCE, Event::GiveUp { node, request });
        let body = Body { msg_id: Some(request), in_reply_to: None, payload };
        self.deliveries.push_back((node, Message { src: client(node), dest: name(node), body }));
    }

    /// An answer, or none in time. What answers nothing that is waited for is ignored.
    fn finish(&mut self, now: Duration, node: usize, request: Option<u64>, answer: Option<Payload>) {
        if request.is_none() || self.waiting.get(&node).map(|(request, _)| *request) != request {
            return;
        }
        let (_, place) = self.waiting.remove(&node).unwrap();
        match place {
            Some(place) => {
                let last_delivery = self.last_delivery[node];
                let operation = &mut self.operations[place];
                operation.end = Some(now);
                operation.last_delivery = last_delivery;
                match outcome(&operation.asked, answer) {
                    Ok(outcome) => operation.outcome = outcome,
                    Err(answer) => self.problem(format!("node {node} gave a wrong answer: {answer:?}")),
                }
            }
            None if matches!(answer, Some(Payload::InitOk | Payload::TopologyOk)) => {}
            None => self.problem(format!("node {node} did not start: {answer:?}")),
        }
        if self.waiting.is_empty() && self.phase != Phase::Work && self.phase != Phase::Recover {
            self.schedule(now, Event::Next);
        }
    }
}

impl Report {
    fn judged(mut self, limits: Limits) -> Self {
        let mut over = |what: &str, value: f64, limit: Option<f64>| {
            if let Some(limit) = limit.filter(|limit| value >= *limit) {
                self.failures.push(format!("{what}: {value:.2} is not below {limit}"));
            }
        };
        over("messages per operation", self.messages, limits.messages);
        over("median latency", self.median as f64, limits.median.map(|limit| limit as f64));
        over("maximum latency", self.max as f64, limits.max.map(|limit| limit as f64));
        over("wait for an answer", self.wait as f64, limits.wait.map(|limit| limit as f64));
        if let Some(limit) = limits.available.filter(|limit| self.available < *limit) {
            self.failures.push(format!("answered: {:.4} of all is below {limit}", self.available));
        }
        self
    }
}

fn outcome(asked: &Asked, answer: Option<Payload>) -> Result<Outcome, Payload> {
    Ok(match (asked, answer) {
        (Asked::Read, None) => Outcome::Failed,
        (_, None) => Outcome::Unknown,
        (Asked::Read, Some(Payload::Error { .. })) => Outcome::Failed,
        (_, Some(Payload::Error { code, .. })) if DEFINITE.contains(&code) => Outcome::Failed,
        (_, Some(Payload::Error { .. })) => Outcome::Unknown,
        (Asked::Broadcast(_), Some(Payload::BroadcastOk)) | (Asked::Add(_), Some(Payload::AddOk)) => {
            Outcome::Done
        }
        (Asked::Read, Some(Payload::ReadOk(Read::Messages(list)))) => Outcome::Messages(list),
        (Asked::Read, Some(Payload::ReadOk(Read::Value(value)))) => Outcome::Value(value),
        (Asked::Echo(_), Some(Payload::EchoOk { echo })) => {
            Outcome::Echo(echo.as_str().unwrap_or_default().to_owned())
        }
        (Asked::Generate, Some(Payload::GenerateOk { id })) => Outcome::Id(id),
        (_, Some(other)) => return Err(other),
    })
}

pub(crate) fn name(node: usize) -> String {
    format!("n{node}")
}

fn client(node: usize) -> String {
    format!("c{node}")
}

/// A line; nodes are free to ignore it.
fn neighbours(node: usize, nodes: usize) -> Vec<String> {
    [node.checked_sub(1), Some(node + 1).filter(|next| *next < nodes)]
        .into_iter()
        .flatten()
        .map(name)
        .collect()
}

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Codes that say: it did not happen.
const DEFINITE: [u32; 9] = [1, 10, 11, 12, 14, 20, 21, 22, 30];
const MAX_PROBLEMS: usize = 20;
