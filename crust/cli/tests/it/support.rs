//! Runs the command with a home of its own, reads its events, and ends it whatever happens.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, unbounded};
use serde_json::Value;

/// What every command that moves bytes is tried over.
pub(crate) const SCHEMES: [&str; 2] = ["tcp", "quic"];

/// A user's folders.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and the folders it is in; gives its path.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crust"));
        command
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"));
        command
    }

    /// Starts a command with `--json`, which leaves the router of this machine alone.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command();
        command.args(arguments).args(["--json", "--no-port-map"]);
        Running::start(command, matches!(arguments[0], "listen" | "connect"))
    }

    /// Starts a command that listens, on loopback by one scheme; gives its contact as well.
    pub(crate) fn serve(&self, scheme: &str, arguments: &[&str]) -> (Running, String) {
        let place = format!("{scheme}://127.0.0.1:0");
        let mut running = self.start(&[arguments, &["--listen", &place]].concat());
        let contact = running.event("listening")["contact"].as_str().unwrap().to_owned();
        (running, contact)
    }

    /// Runs a command with `--json` to its end, without any input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end()
    }
}

/// A command under way. It does not outlive the test.
pub(crate) struct Running {
    child: Child,
    events: Receiver<Value>,
    seen: Vec<Value>,
    data: Option<JoinHandle<Vec<u8>>>,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    /// What came on the channel that has no events.
    pub(crate) data: Vec<u8>,
    pub(crate) events: Vec<Value>,
}

impl Running {
    pub(crate) fn start(mut command: Command, piped: bool) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (tell, events) = unbounded();
        let parse = move |from: Box<dyn Read + Send>| {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                let _ = tell.send(event);
            }
        };
        let collect = |mut from: Box<dyn Read + Send>| {
            thread::spawn(move || {
                let mut all = Vec::new();
                from.read_to_end(&mut all).unwrap();
                all
            })
        };
        let (lines, data): (Box<dyn Read + Send>, Box<dyn Read + Send>) =
            if piped { (Box::new(stderr), Box::new(stdout)) } else { (Box::new(stdout), Box::new(stderr)) };
        thread::spawn(move || parse(lines));
        Self { child, events, seen: Vec::new(), data: Some(collect(data)) }
    }

    /// Waits for the next event of a kind.
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = self
                .events
                .recv_deadline(deadline)
                .unwrap_or_else(|error| panic!("no event {kind}: {error}; so far {:#?}", self.seen));
            self.seen.push(event.clone());
            if event["event"] == kind {
                return event;
            }
        }
    }

    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().unwrap()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin().write_all(bytes).unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Closes its input and waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        self.close_stdin();
        self.wait()
    }

    /// Waits for its end, its input left open.
    pub(crate) fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                None => {
                    self.seen.extend(self.events.try_iter());
                    panic!("it does not end; so far {:#?}", self.seen)
                }
            }
        };
        let mut events = std::mem::take(&mut self.seen);
        events.extend(self.events.iter());
        let data = self.data.take().unwrap().join().unwrap();
        Ended { status: status.code(), data, events }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(crate) fn event(&self, kind: &str) -> &Value {
        let found = self.events.iter().find(|event| event["event"] == kind);
        found.unwrap_or_else(|| panic!("no event {kind}: {self:#?}"))
    }

    #[track_caller]
    pub(crate) fn assert_done(&self) -> &Self {
        assert_eq!(self.status, Some(0), "{self:#?}");
        self
    }

    /// Exit status, and the kind of the error that must be the last line.
    #[track_caller]
    pub(crate) fn assert_failed(&self, status: i32, kind: &str) -> String {
        assert_eq!(self.status, Some(status), "{self:#?}");
        let last = self.events.last().unwrap_or_else(|| panic!("no event at all: {self:#?}"));
        assert_eq!(last["event"], "error", "{self:#?}");
        assert_eq!(last["kind"], kind, "{self:#?}");
        last["message"].as_str().unwrap().to_owned()
    }
}

/// Bytes that differ everywhere, the same in every run.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8 ^ (at >> 10) as u8).collect()
}

/// Far more than anything here takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
