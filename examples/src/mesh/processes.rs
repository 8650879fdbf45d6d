//! Nodes of the program `mesh`, each a process of its own, and what they cost.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, bounded};
use crust::{Endpoint, PublicKey};

use super::{Line, Loaded, Report};

/// A node under way. It does not outlive this.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Line>,
    said: Vec<Line>,
    endpoint: String,
}

impl Process {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not listen.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (tell, lines) = bounded(LINES_AHEAD);
        let output = BufReader::new(output.ok_or_else(|| io::Error::other("a process without pipes"))?);
        thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            let mut lines = lines.map_while(|line| {
                let read = serde_json::from_str(&line);
                read.inspect_err(|error| eprintln!("a node said {line:?}: {error}")).ok()
            });
            lines.try_for_each(|line| tell.send(line))
        });
        let mut process = Self { child, input, lines, said: Vec::new(), endpoint: String::new() };
        process.endpoint = process.find(0, PATIENCE, |line| match line {
            Line::Listening { endpoint } => Some(endpoint.clone()),
            _ => None,
        })?;
        Ok(process)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it is reached.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn key(&self) -> io::Result<PublicKey> {
        let endpoint: Endpoint = self.endpoint.parse().map_err(io::Error::other)?;
        Ok(endpoint.public_key())
    }

    /// Gives it a command.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn tell(&mut self, command: &str) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), |input| writeln!(input, "{command}"))
    }

    /// All it has said so far.
    pub fn said(&mut self) -> &[Line] {
        self.said.extend(self.lines.try_iter());
        &self.said
    }

    /// Waits for a line, from the one with this number on.
    ///
    /// # Errors
    ///
    /// When it does not come in time, or the process ends.
    pub fn find<T>(
        &mut self,
        mut from: usize,
        patience: Duration,
        pick: impl Fn(&Line) -> Option<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = self.said.get(from..).and_then(|new| new.iter().find_map(&pick)) {
                return Ok(found);
            }
            from = from.max(self.said.len());
            let line = self.lines.recv_deadline(deadline);
            self.said.push(line.map_err(|error| io::Error::other(format!("a node says nothing: {error}")))?);
        }
    }

    /// Waits until so many peers are up; gives when the last of them came, in microseconds since 1970.
    ///
    /// # Errors
    ///
    /// As [`Process::find`].
    pub fn wait_for_peers(&mut self, from: usize, peers: usize) -> io::Result<u64> {
        self.find(from, PATIENCE, |line| match line {
            Line::Up { up, at, .. } if *up == peers => Some(*at),
            _ => None,
        })
    }

    /// Sends it a signal, such as `-STOP`.
    ///
    /// # Errors
    ///
    /// When the command `kill` fails.
    pub fn signal(&self, signal: &str) -> io::Result<()> {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status()?.success();
        if sent { Ok(()) } else { Err(io::Error::other(format!("kill {signal} failed"))) }
    }

    /// Ends its input, and waits for its report and its end, which must be a success.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn end(mut self) -> io::Result<Report> {
        self.input = None;
        let report = self.find(0, PATIENCE, |line| match line {
            Line::Report(report) => Some(report.clone()),
            _ => None,
        })?;
        let status = self.child.wait()?;
        if status.success() { Ok(report) } else { Err(io::Error::other(format!("a node ended: {status}"))) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A group under way.
#[derive(Debug)]
pub struct Processes {
    /// Its nodes, in order.
    pub nodes: Vec<Process>,
    /// From the first start until the last node saw all others.
    pub full_after: Duration,
}

impl Processes {
    /// Starts nodes, tells each of the others, and waits until each sees all.
    ///
    /// # Errors
    ///
    /// When one cannot be started, or does not see all others.
    pub fn start(commands: impl IntoIterator<Item = Command>) -> io::Result<Self> {
        let begun = super::load::micros_since_epoch();
        let mut nodes = Vec::new();
        for mut command in commands {
            let mut new = Process::start(&mut command)?;
            for node in &mut nodes {
                introduce(node, &mut new)?;
            }
            nodes.push(new);
        }
        let mut group = Self { nodes, full_after: Duration::ZERO };
        let last = group.wait_until_full()?;
        group.full_after = Duration::from_micros(last.saturating_sub(begun));
        Ok(group)
    }

    /// Waits until each node has seen all others; gives when the last did, in microseconds since 1970.
    ///
    /// # Errors
    ///
    /// As [`Process::find`].
    pub fn wait_until_full(&mut self) -> io::Result<u64> {
        let peers = self.nodes.len() - 1;
        let times = self.nodes.iter_mut().map(|node| node.wait_for_peers(0, peers));
        Ok(times.collect::<io::Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0))
    }

    /// Gives each node a command.
    ///
    /// # Errors
    ///
    /// When one has ended.
    pub fn tell(&mut self, command: &str) -> io::Result<()> {
        self.nodes.iter_mut().try_for_each(|node| node.tell(command))
    }

    /// Waits until a load is over at each of these nodes; gives how it went there.
    ///
    /// # Errors
    ///
    /// When it does not end soon after its time.
    pub fn wait_for_load(
        &mut self,
        nodes: impl IntoIterator<Item = usize>,
        time: Duration,
    ) -> io::Result<Vec<Loaded>> {
        let loaded = |line: &Line| match line {
            Line::Loaded(loaded) => Some(loaded.clone()),
            _ => None,
        };
        nodes.into_iter().map(|node| self.nodes[node].find(0, time + PATIENCE, loaded)).collect()
    }

    /// Ends all; their reports, in order.
    ///
    /// # Errors
    ///
    /// When one gives none.
    pub fn end(self) -> io::Result<Vec<Report>> {
        self.nodes.into_iter().map(Process::end).collect()
    }
}

/// Tells each of two nodes of the other. First the one that is dialled, which else would turn away whom it does not know yet.
fn introduce(one: &mut Process, other: &mut Process) -> io::Result<()> {
    let (dialled, dialler) = if one.key()? > other.key()? { (one, other) } else { (other, one) };
    let mark = dialled.said().len();
    dialled.tell(&format!("peers {}", dialler.endpoint()))?;
    dialled.find(mark, PATIENCE, |line| matches!(line, Line::Peers { .. }).then_some(()))?;
    dialler.tell(&format!("peers {}", dialled.endpoint()))
}

/// What a process takes of the machine at one moment, as `/proc` tells; zeros where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Costs {
    /// Threads.
    pub threads: usize,
    /// Memory that is its own or shared, without what is swapped out.
    pub resident_bytes: u64,
    /// Time that processors have spent on it.
    pub processor_time: Duration,
}

impl Costs {
    /// Of this process.
    #[must_use]
    pub fn of(process: u32) -> Self {
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        let (status, stat) = (read("status"), read("stat"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        // The name, in parentheses, may hold anything; behind it the 12th and 13th fields are meant.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u32 = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        Self {
            threads: usize::try_from(field("Threads:")).unwrap_or(usize::MAX),
            resident_bytes: field("VmRSS:") << 10,
            processor_time: TICK * ticks,
        }
    }
}

/// The unit of `/proc/PID/stat` on Linux.
const TICK: Duration = Duration::from_millis(10);
/// Far more than anything takes here, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines that wait to be looked at; when there are more, the node waits with its next.
const LINES_AHEAD: usize = 4_096;
