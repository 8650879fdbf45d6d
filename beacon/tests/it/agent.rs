//! A beacon as a process of its own, started from this very binary: in another network namespace, or alone, so that
//! its thread can be watched.
//!
//! It prints a line for each message and for the answer to each request on its standard input, and ends with that.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use beacon::{Beacon, BeaconConfig, Departure, Interfaces, Message, News};

/// What an agent is told by its environment.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) period: Duration,
    /// Only this machine, instead of every interface.
    pub(crate) is_local: bool,
}

/// The agent's end: not a test, but the program that tests start.
#[test]
#[ignore = "started by other tests as a process of its own"]
fn agent() {
    let Some(settings) = Settings::from_environment() else { return };
    say("starting");
    // The call of the RFC wherever it is allowed: in a namespace it can only speak to other namespaces of the test.
    let started = if settings.is_local {
        let config =
            BeaconConfig::new(settings.port).period(settings.period).interfaces(Interfaces::Loopback);
        Beacon::with_config(config, settings.name)
    } else {
        Beacon::new(settings.port, 16, settings.name, settings.period)
    };
    let (beacon, controller) = match started {
        Ok(started) => started,
        Err(error) => return say(&format!("failed {error}")),
    };
    say(&format!("started {}", beacon.port()));
    let messages = beacon.receiver().clone();
    thread::spawn(move || messages.iter().for_each(|message| say(&describe(&message))));
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("data", data) => controller.set_data(data).expect("tests send little"),
            ("warnings", _) => say(&format!("warnings {:?}", controller.warnings())),
            ("stats", _) => say(&format!("stats {:?}", controller.stats())),
            ("rss", _) => say(&format!("rss {}", memory_bytes())),
            ("cpu", _) => say(&format!("cpu {}", cpu_nanoseconds())),
            other => panic!("unknown request {other:?}"),
        }
    }
    drop(controller);
}

impl Settings {
    pub(crate) fn new(name: &str) -> Self {
        // Far longer than any test: whatever is heard was said at once and not by the timetable.
        Self { name: name.into(), port: PORT, period: Duration::from_secs(3600), is_local: false }
    }

    fn from_environment() -> Option<Self> {
        let read = |name: &str| std::env::var(name).ok();
        Some(Self {
            name: read("AGENT_NAME")?,
            port: read("AGENT_PORT")?.parse().ok()?,
            period: Duration::from_millis(read("AGENT_PERIOD_MS")?.parse().ok()?),
            is_local: read("AGENT_LOCAL").is_some(),
        })
    }
}

/// An agent, seen from the test.
pub(crate) struct Agent {
    pub(crate) name: String,
    child: Child,
    requests: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
    pub(crate) heard: Vec<(Instant, String)>,
}

impl Agent {
    /// Starts an agent by `command`, which ends with the program to run (for instance `ip netns exec NAME`).
    pub(crate) fn start(prefix: &[&str], settings: &Settings) -> Self {
        let binary = std::env::current_exe().expect("this test runs from a file");
        let binary = binary.to_str().expect("its path is text");
        let words: Vec<_> = prefix.iter().copied().chain([binary]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["agent::agent", "--exact", "--ignored", "--nocapture"]);
        command.env("AGENT_NAME", &settings.name).env("AGENT_PORT", settings.port.to_string());
        command.env("AGENT_PERIOD_MS", settings.period.as_millis().to_string());
        if settings.is_local {
            command.env("AGENT_LOCAL", "yes");
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the agent can be started");
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test harness talks on the same stream.
                let Some((_, line)) = line.split_once(MARK) else { continue };
                if sender.send((Instant::now(), line.to_owned())).is_err() {
                    return;
                }
            }
        });
        let requests = child.stdin.take();
        let mut agent = Self { name: settings.name.clone(), child, requests, lines, heard: Vec::new() };
        agent.wait_for("started");
        agent
    }

    /// Waits until the agent says a line that contains `part`, now or earlier, and gives it.
    pub(crate) fn wait_for(&mut self, part: &str) -> (Instant, String) {
        self.wait_after(0, part)
    }

    /// As [`wait_for`](Self::wait_for), but passes over the first `skip` lines of the agent.
    pub(crate) fn wait_after(&mut self, skip: usize, part: &str) -> (Instant, String) {
        let index = self.line_after(skip, part);
        self.heard[index].clone()
    }

    /// As [`wait_after`](Self::wait_after), but gives the line's number.
    pub(crate) fn line_after(&mut self, skip: usize, part: &str) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.heard.iter().skip(skip).position(|(_, line)| line.contains(part));
            if let Some(position) = found {
                return skip + position;
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.heard.push(line),
                Err(_) => panic!("{} never says {part:?}, only {:#?}", self.name, self.heard),
            }
        }
    }

    /// The port that the agent shares.
    pub(crate) fn port(&mut self) -> u16 {
        let (_, line) = self.wait_for("started ");
        line.trim_start_matches("started ").parse().expect("a port follows")
    }

    /// Sends a request; what is said from then on begins at the returned number of lines.
    pub(crate) fn request(&mut self, line: &str) -> usize {
        self.heard.extend(self.lines.try_iter());
        let requests = self.requests.as_mut().expect("the agent runs");
        writeln!(requests, "{line}").expect("the agent reads");
        self.heard.len()
    }

    /// Sends a request and waits for the line that answers it.
    pub(crate) fn ask(&mut self, question: &str) -> String {
        let skip = self.request(question);
        self.wait_after(skip, question).1
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.requests.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn describe(message: &Message) -> String {
    let news = match message.news() {
        News::Appeared => "appeared",
        News::Changed => "changed",
        News::Repeated => "repeated",
        News::Left(Departure::Goodbye) => "goodbye",
        News::Left(Departure::LinkDown) => "linkdown",
        News::Left(Departure::Silent) => "silent",
    };
    let name = String::from_utf8_lossy(message.payload());
    format!("{news} {name} {} {}", message.interface(), message.source())
}

/// The processor time of the beacon's thread, which is the only one of its name in an agent.
fn cpu_nanoseconds() -> u64 {
    let is_ours = |folder: &std::path::Path| {
        std::fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim() == "beacon-io")
    };
    loop {
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let folders: Vec<_> = tasks.map(|task| task.path()).filter(|folder| is_ours(folder)).collect();
        assert!(folders.len() <= 1, "a beacon has one thread");
        if let [folder] = &folders[..] {
            let schedule = std::fs::read_to_string(folder.join("schedstat")).expect("the thread is alive");
            let time = schedule.split(' ').next().and_then(|time| time.parse().ok());
            return time.expect("its first number is the time it ran");
        }
        // A thread takes its name when it first runs.
        thread::yield_now();
    }
}

/// What this process holds of memory.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    // Nobody listens any more when the test has ended.
    let _ = writeln!(output, "{MARK}{line}").and_then(|()| output.flush());
}

/// Begins each line of an agent.
const MARK: &str = "agent: ";

/// All agents of a network use it; each network of a test is its own.
const PORT: u16 = 28_321;

/// Far more than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
