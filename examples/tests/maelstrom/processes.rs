//! Runs nodes that are processes, in real time.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

use crust_examples::protocol::maelstrom::Message;

use crate::judge::{Judge, Options, Report, Signal};

/// Starts as many copies as there are nodes and judges them. They must end with status 0 when their input ends.
pub(crate) fn run(options: Options, program: &str, arguments: &[&str]) -> Report {
    let (tell, said) = channel();
    let count = options.nodes;
    let mut judge = Judge::new(options);
    let mut nodes: Vec<Process> = (0..count)
        .map(|place| Process::start(program, arguments, move |line| (place, line), &tell))
        .collect();
    let begin = Instant::now();
    loop {
        let now = begin.elapsed();
        judge.handle_timeout(now);
        while let Some((to, message)) = judge.poll_delivery() {
            if nodes[to].tell(message.to_line()).is_err() {
                judge.problem(format!("node {to} takes nothing in any more"));
            }
        }
        while let Some((node, signal)) = judge.poll_signal() {
            nodes[node].signal(signal);
        }
        let Some(next) = judge.poll_timeout() else { break };
        match said.recv_timeout(next.saturating_sub(begin.elapsed())) {
            Ok((place, line)) => hear(&mut judge, begin.elapsed(), place, line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
        }
    }
    for (place, node) in nodes.iter_mut().enumerate() {
        if !node.end() {
            judge.problem(format!("node {place} did not end with status 0 when its input ended"));
        }
    }
    judge.report()
}

fn hear(judge: &mut Judge, now: Duration, place: usize, line: Option<String>) {
    match line.as_deref().map(|line| Message::from_line(line.as_bytes())) {
        Some(Ok(message)) => judge.handle_output(now, place, message),
        Some(Err(error)) => judge.problem(format!("node {place} printed nonsense: {error}")),
        None => judge.problem(format!("node {place} has closed its output")),
    }
}

/// A node under way. It does not outlive the test.
struct Process {
    child: Child,
    /// To the thread that writes, so that a node that reads nothing does not stop the judge.
    input: Option<SyncSender<Vec<u8>>>,
}

impl Process {
    fn start<T: Send + 'static>(
        program: &str,
        arguments: &[&str],
        wrap: impl Fn(Option<String>) -> T + Send + 'static,
        tell: &std::sync::mpsc::Sender<T>,
    ) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (output, tell) = (child.stdout.take().unwrap(), tell.clone());
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = tell.send(wrap(Some(line)));
            }
            let _ = tell.send(wrap(None));
        });
        let mut pipe = child.stdin.take().unwrap();
        let (input, lines): (SyncSender<Vec<u8>>, Receiver<Vec<u8>>) = sync_channel(10_000);
        thread::spawn(move || lines.iter().try_for_each(|line| pipe.write_all(&line)));
        Self { child, input: Some(input) }
    }

    fn tell(&self, line: Vec<u8>) -> Result<(), ()> {
        self.input.as_ref().ok_or(())?.try_send(line).map_err(drop)
    }

    fn signal(&self, signal: Signal) {
        let signal = if signal == Signal::Stop { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success(), "kill {signal}");
    }

    /// Closes its input and waits for its end.
    fn end(&mut self) -> bool {
        self.input = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            thread::sleep(Duration::from_millis(5)); // the standard library has no wait with a deadline
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Far more than an end takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
