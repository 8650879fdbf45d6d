//! Runs the `console` blocks of a document and compares what is printed with what stands there.
//!
//! `…` stands for any text in a line, and as a line of its own for any lines. `crust1…` in a command is the last contact
//! that was printed. `&` at the end leaves a command running; `wait` is the end of the one last started, `interrupt`
//! sends it Ctrl-C first; what it printed meanwhile follows. `status N` is the exit status if it is not 0.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use crust::{Config, Lan, Service};

use crate::support::Home;

/// Each block in a folder of its own.
pub(crate) fn check(document: &str, name: &str) {
    let blocks = blocks(document);
    assert!(!blocks.is_empty(), "{name} has no transcripts");
    for block in blocks {
        let home = Home::new();
        // Holds a port for beacons that no other test uses, and is not seen there.
        let config = Config::new().listen([]).lan(Lan::Loopback).lan_port(0);
        let service = Service::new_from_config(config).unwrap();
        service.beacon_receiver.receiver().unwrap();
        let config = format!(
            "listen = [\"quic://127.0.0.1:0\", \"tcp://127.0.0.1:0\"]\nport_map = false\nlan = \"loopback\"\nlan_port = {}\n",
            service.controller.lan_port().unwrap()
        );
        home.file("config/crust/config.toml", config.as_bytes());
        Session { home: &home, running: Vec::new(), contact: None, block: &block }.run();
    }
}

fn blocks(document: &str) -> Vec<String> {
    document.split("```console\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect()
}

struct Session<'a> {
    home: &'a Home,
    running: Vec<Background>,
    contact: Option<String>,
    block: &'a str,
}

/// A command left running, and what it has printed that was not compared yet.
struct Background {
    child: Child,
    output: Receiver<Vec<u8>>,
}

impl Session<'_> {
    fn run(mut self) {
        for step in self.block.split("$ ").skip(1) {
            let (command, expected) = step.split_once('\n').unwrap_or((step, ""));
            let printed = self.step(command.trim(), expected.trim_end());
            for word in printed.split_whitespace() {
                if word.starts_with("crust1") {
                    self.contact = Some(word.to_owned());
                }
            }
            assert!(
                matches(expected.trim_end(), printed.trim_end()),
                "in the transcript\n{}\n`{command}` printed\n{printed}",
                self.block
            );
        }
        assert!(self.running.is_empty(), "something is left running in\n{}", self.block);
    }

    fn step(&mut self, command: &str, expected: &str) -> String {
        match command {
            "wait" => self.running.pop().unwrap().end(),
            "interrupt" => {
                let background = self.running.pop().unwrap();
                let id = background.child.id().to_string();
                assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
                background.end()
            }
            _ => match command.strip_suffix('&') {
                Some(command) => {
                    let background = self.start(&format!("exec {}", command.trim()));
                    let printed = background.lines(expected.lines().count());
                    self.running.push(background);
                    printed
                }
                None => self.start(command).end(),
            },
        }
    }

    fn start(&self, command: &str) -> Background {
        let command = command.replace("cargo run --release -- ", "crust ");
        let command = match &self.contact {
            Some(contact) => command.replace("crust1…", contact),
            None => command,
        };
        assert!(!command.contains('…'), "nothing to put into `{command}`");
        let program = self.home.command();
        let folder = std::path::Path::new(program.get_program()).parent().unwrap();
        let path = std::env::join_paths(
            std::iter::once(folder.to_owned())
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        );
        let mut shell = Command::new("sh");
        for (key, value) in program.get_envs() {
            shell.env(key, value.unwrap());
        }
        let mut child = shell
            // Standard error first into what is read here; a redirection in the command itself comes later.
            .args(["-c", &format!("exec 2>&1; {command}")])
            .env("PATH", path.unwrap())
            .current_dir(self.home.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (tell, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                let _ = tell.send(buffer[..length].to_vec());
            }
        });
        Background { child, output }
    }
}

impl Background {
    /// Waits for so many lines.
    fn lines(&self, count: usize) -> String {
        let mut all = Vec::new();
        while all.iter().filter(|&&byte| byte == b'\n').count() < count {
            all.extend(self.output.recv_timeout(PATIENCE).unwrap());
        }
        String::from_utf8(all).unwrap()
    }

    /// Waits for its end.
    fn end(mut self) -> String {
        let mut all = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while let Ok(more) = self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            all.extend(more);
        }
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                None => panic!("it does not end; so far {}", String::from_utf8_lossy(&all)),
            }
        };
        let mut text = String::from_utf8(all).unwrap();
        if !status.success() {
            text.push_str(
                &status.code().map_or_else(|| "killed".to_owned(), |code| format!("status {code}")),
            );
        }
        text
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn matches(expected: &str, printed: &str) -> bool {
    let expected: Vec<&str> = expected.lines().collect();
    let printed: Vec<&str> = printed.lines().collect();
    lines_match(&expected, &printed)
}

fn lines_match(expected: &[&str], printed: &[&str]) -> bool {
    match (expected, printed) {
        ([], []) => true,
        (["…"], _) => true,
        (["…", rest @ ..], _) => (0..=printed.len()).any(|skip| lines_match(rest, &printed[skip..])),
        ([first, rest @ ..], [line, more @ ..]) => line_matches(first, line) && lines_match(rest, more),
        _ => false,
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    let mut pieces = expected.split('…');
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Far more than any step takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_transcripts_of_docs_cli_are_what_happens() {
    check(include_str!("../../../../docs/cli.md"), "docs/cli.md");
}

#[test]
fn the_shell_blocks_of_the_readme_are_what_happens() {
    let readme = include_str!("../../../../README.md");
    // The gate runs this one by taking it from there; here it would run itself.
    let tests = "$ cargo test --workspace --all-features";
    assert!(readme.contains(tests));
    check(&readme.replace(tests, ""), "README.md");
}

#[test]
fn a_placeholder_takes_what_differs_and_nothing_else() {
    assert!(matches("a … c", "a b c") && matches("…", "x\ny\nz") && matches("a\n…\nd", "a\nb\nc\nd"));
    assert!(!matches("a … c", "a b d") && !matches("a", "a b") && !matches("a\n…\nd", "a\nb"));
    assert!(matches("…, …", "1, 2") && !matches("…, …", "1; 2"));
}
