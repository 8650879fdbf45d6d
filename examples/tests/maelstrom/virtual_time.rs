//! Runs nodes that are state machines, as fast as the processor does it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crust_examples::protocol::{Node, maelstrom::Message};

use crate::judge::{Judge, Options, Report};

/// What the judge can judge: a node, or somebody who pretends to be one.
pub(crate) trait Participant {
    fn handle_message(&mut self, now: Instant, message: Message);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_transmit(&mut self) -> Option<Message>;
    fn poll_timeout(&self) -> Option<Instant>;
}

impl Participant for Node {
    fn handle_message(&mut self, now: Instant, message: Message) {
        self.handle_message(now, message);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Message> {
        self.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }
}

/// Runs the project's own nodes.
pub(crate) fn run(options: Options) -> Report {
    let seed = u32::try_from(options.seed).unwrap();
    let nodes = (0..options.nodes).map(|_| Node::new(seed)).collect();
    run_nodes(options, nodes)
}

pub(crate) fn run_nodes<P: Participant>(options: Options, mut nodes: Vec<P>) -> Report {
    let begin = Instant::now();
    let mut now = Duration::ZERO;
    let mut judge = Judge::new(options);
    // Who wants to be called when; asked again only after a call.
    let mut timeouts: BTreeSet<(Instant, usize)> = BTreeSet::new();
    let mut called: BTreeSet<usize> = BTreeSet::new();
    loop {
        judge.handle_timeout(now);
        while let Some((at, place)) = timeouts.first().copied().filter(|(at, _)| *at <= begin + now) {
            timeouts.remove(&(at, place));
            nodes[place].handle_timeout(begin + now);
            called.insert(place);
        }
        while let Some((to, message)) = judge.poll_delivery() {
            nodes[to].handle_message(begin + now, message);
            called.insert(to);
        }
        let mut quiet = true;
        timeouts.retain(|(_, place)| !called.contains(place));
        for place in std::mem::take(&mut called) {
            while let Some(message) = nodes[place].poll_transmit() {
                judge.handle_output(now, place, message);
                quiet = false;
            }
            timeouts.extend(nodes[place].poll_timeout().map(|at| (at, place)));
        }
        if !quiet {
            continue;
        }
        let Some(next) = judge.poll_timeout() else { break };
        let first = timeouts.first().map_or(next, |(at, _)| at.saturating_duration_since(begin));
        now = next.min(first).max(now);
    }
    judge.report()
}
