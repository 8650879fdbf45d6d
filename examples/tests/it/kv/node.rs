use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use crate::support::PATIENCE;

pub(super) const KV: &str = env!("CARGO_BIN_EXE_kv");

/// A node under way. It does not outlive the test.
pub(super) struct Node {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    errors: Receiver<String>,
    pub(super) endpoint: String,
}

impl Node {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(KV);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let (output, errors) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        let endpoint = output.recv_timeout(PATIENCE).unwrap();
        Self { child, input, output, errors, endpoint }
    }

    /// Nodes each of which is a neighbour of the one before.
    pub(super) fn line(length: usize, arguments: &[&str]) -> Vec<Self> {
        let mut nodes: Vec<Self> = Vec::new();
        for _ in 0..length {
            let before = nodes.last().map(|node| node.endpoint.clone());
            let all = [arguments, &before.as_deref().into_iter().collect::<Vec<_>>()].concat();
            nodes.push(Self::start(&all));
        }
        for (place, node) in nodes.iter_mut().enumerate() {
            node.wait_for_peers(usize::from(place > 0) + usize::from(place + 1 < length));
        }
        nodes
    }

    /// Nodes each of which is a neighbour of all others.
    pub(super) fn clique(size: usize, arguments: &[&str]) -> Vec<Self> {
        let mut nodes: Vec<Self> = Vec::new();
        for _ in 0..size {
            let others: Vec<&str> = nodes.iter().map(|node| node.endpoint.as_str()).collect();
            let node = Self::start(&[arguments, &others].concat());
            nodes.push(node);
        }
        nodes.iter_mut().for_each(|node| node.wait_for_peers(size - 1));
        nodes
    }

    /// Says a line and reads one.
    pub(super) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.read()
    }

    pub(super) fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(super) fn read(&self) -> String {
        self.output.recv_timeout(PATIENCE).unwrap()
    }

    /// What it has said meanwhile.
    pub(super) fn read_waiting(&self) -> Vec<String> {
        self.output.try_iter().collect()
    }

    /// The next line that it has complained in and that says this.
    pub(super) fn complaint(&self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// What it has complained of meanwhile.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.errors.try_iter().collect()
    }

    pub(super) fn count(&mut self, name: &str) -> u64 {
        let line = self.ask("counters");
        let counts = line.strip_prefix("counters ").unwrap_or_else(|| panic!("{line}")).split(' ');
        let count = counts.filter_map(|word| word.split_once('=')).find(|(one, _)| *one == name);
        count.unwrap().1.parse().unwrap()
    }

    /// Waits until that is counted; a node does not tell of it unasked.
    pub(super) fn wait_for_count(&mut self, name: &str, wanted: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let count = self.count(name);
            if count == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {count}, not {wanted}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn peers(&mut self) -> Vec<String> {
        self.say("peers");
        let lines = std::iter::from_fn(|| Some(self.read()).filter(|line| line != "end of peers"));
        lines.collect()
    }

    /// How many neighbours each node says to have that it has heard of.
    pub(super) fn nodes(&mut self) -> BTreeMap<String, usize> {
        self.say("nodes");
        let lines = std::iter::from_fn(|| Some(self.read()).filter(|line| line != "end of nodes"));
        let nodes = lines.map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!([words[0], words[2], words[4]], ["node", "has", "neighbours"], "{line}");
            (words[1].to_owned(), words[3].parse().unwrap())
        });
        nodes.collect()
    }

    pub(super) fn wait_for_nodes(&mut self, wanted: &BTreeMap<String, usize>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let nodes = self.nodes();
            if nodes == *wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{nodes:?}, and not {wanted:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn key(&self) -> String {
        self.endpoint.parse::<crust::Endpoint>().unwrap().public_key().to_string()
    }

    pub(super) fn wait_for_peers(&mut self, number: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let peers = self.peers();
            if peers.len() >= number {
                return;
            }
            assert!(Instant::now() < deadline, "only {} peers came", peers.len());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn signal(&self, signal: &str) {
        let process = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// A number of `/proc/PID/status`, which Linux has.
    pub(super) fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Ends its input and waits for its end, which must be a success; gives what it said at last.
    pub(super) fn end(mut self) -> Vec<String> {
        self.input = None;
        let deadline = Instant::now() + PATIENCE;
        let mut rest = Vec::new();
        while let Ok(line) = self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            rest.push(line);
        }
        assert!(Instant::now() < deadline, "it does not end");
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    lines
}
