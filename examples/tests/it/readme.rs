//! What the README shows of the three large programs is what they print. In its sessions `ada$` starts a program in a terminal that is
//! called so, `ada>` is typed there, and what follows is printed there; `…` stands for anything, and one number for any other.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, Program};

#[test]
fn broadcast_prints_what_the_readme_shows() {
    let mut session = Session::of("broadcast", env!("CARGO_BIN_EXE_broadcast"));
    session.play();
    assert_eq!(session.end(), Vec::<String>::new());
}

#[test]
fn mesh_prints_what_the_readme_shows() {
    let mut session = Session::of("mesh", env!("CARGO_BIN_EXE_mesh"));
    session.play();
    let rest = session.end();
    let reports = rest.iter().filter(|line| line.starts_with(r#"{"event":"report","name":""#)).count();
    assert_eq!(reports, 2, "{rest:?}");
}

#[test]
fn onion_messages_look_as_the_readme_shows() {
    let mut session = Session::numbered("kv", 1, env!("CARGO_BIN_EXE_kv"));
    session.play_until("cyd> nodes");
    // As above: they tell each other of themselves in a moment.
    let (deadline, cyd) = (Instant::now() + PATIENCE, session.terminals.get_mut("cyd").unwrap());
    loop {
        cyd.say("nodes");
        let lines: Vec<String> =
            std::iter::from_fn(|| Some(cyd.line()).filter(|line| line != "end of nodes")).collect();
        let told = |words: &str| lines.iter().any(|line| line.ends_with(words));
        if told("has 1 neighbours") && told("has 2 neighbours") {
            break;
        }
        assert!(Instant::now() < deadline, "{lines:?}");
        thread::sleep(Duration::from_millis(20));
    }
    session.play();
    let rest = session.end();
    assert!(rest.len() == 4 && rest.iter().all(|line| line.starts_with("traffic ")), "{rest:?}");
}

#[test]
fn kv_prints_what_the_readme_shows() {
    let mut session = Session::of("kv", env!("CARGO_BIN_EXE_kv"));
    session.play_until("bob> put");
    // To prove who they are takes the two a moment, which a person does not notice.
    let deadline = Instant::now() + PATIENCE;
    let bob = session.terminals.get_mut("bob").unwrap();
    bob.say("counters");
    while !bob.line().contains(" online=1 ") {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20)); // a node does not tell of it unasked
        bob.say("counters");
    }
    session.play();
    let rest = session.end();
    assert!(rest.len() == 2 && rest.iter().all(|line| line.starts_with("traffic ")), "{rest:?}");
}

/// A session of a section: in it something is typed. `ada>` alone looks at what was printed meanwhile.
struct Session {
    program: &'static str,
    lines: Vec<&'static str>,
    next: usize,
    terminals: BTreeMap<&'static str, Program>,
    /// The terminal that was used last.
    current: &'static str,
    /// Endpoints as the README has them, and as they are.
    endpoints: BTreeMap<String, String>,
}

impl Session {
    fn of(section: &str, program: &'static str) -> Self {
        Self::numbered(section, 0, program)
    }

    /// The session of this number, from 0.
    fn numbered(section: &str, number: usize, program: &'static str) -> Self {
        let (_, rest) = README.split_once(&format!("\n## {section}\n")).unwrap();
        let text = rest.split("\n## ").next().unwrap();
        let blocks = text.split("```console\n").skip(1).filter_map(|block| block.split("\n```").next());
        let mut sessions = blocks.filter(|block| block.lines().any(|line| typed(line).is_some()));
        let block = sessions.nth(number).unwrap();
        let (lines, terminals) = (block.lines().collect(), BTreeMap::new());
        Self { program, lines, next: 0, terminals, current: "", endpoints: BTreeMap::new() }
    }

    fn play(&mut self) {
        while self.next < self.lines.len() {
            self.step();
        }
    }

    fn play_until(&mut self, begin: &str) {
        while !self.lines[self.next].starts_with(begin) {
            self.step();
        }
    }

    fn step(&mut self) {
        let line = self.lines[self.next];
        self.next += 1;
        if let Some((terminal, command)) = started(line) {
            let command = self.with_endpoints(command);
            let mut words = command.split_whitespace().skip_while(|word| *word != "--bin").skip(2).peekable();
            words.next_if_eq(&"--");
            self.terminals.insert(terminal, Program::start(self.program, &words.collect::<Vec<_>>()));
            self.current = terminal;
        } else if let Some((terminal, text)) = typed(line) {
            let text = self.with_endpoints(text);
            self.terminals.get_mut(terminal).unwrap().say(&text);
            self.current = terminal;
        } else {
            let printed = self.terminals[self.current].line();
            assert!(is_like(&printed, line), "it says {printed}\nand in the README is {line}");
            self.endpoints.extend(endpoint(line).zip(endpoint(&printed)));
        }
    }

    fn with_endpoints(&self, text: &str) -> String {
        self.endpoints.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(shown, real))
    }

    /// Ends the input of all; gives what they still print.
    fn end(self) -> Vec<String> {
        let mut rest = Vec::new();
        for mut program in self.terminals.into_values() {
            program.hang_up();
            rest.extend(program.end());
        }
        rest
    }
}

fn started(line: &'static str) -> Option<(&'static str, &'static str)> {
    line.split_once("$ ").filter(|(terminal, _)| is_name(terminal))
}

fn typed(line: &'static str) -> Option<(&'static str, &'static str)> {
    let text = line.split_once("> ").or_else(|| Some((line.strip_suffix('>')?, "")));
    text.filter(|(terminal, _)| is_name(terminal))
}

fn is_name(terminal: &str) -> bool {
    terminal.chars().all(|letter| letter.is_ascii_lowercase())
}

/// The first endpoint of a line.
fn endpoint(line: &str) -> Option<String> {
    let rest = &line[line.find("tcp://")?..];
    rest.split(|end: char| end == '"' || end.is_whitespace()).next().map(str::to_owned)
}

fn is_like(printed: &str, shown: &str) -> bool {
    let (printed, shown) = (without_numbers(printed), without_numbers(shown));
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn without_numbers(text: &str) -> String {
    let mut short = String::new();
    for letter in text.chars() {
        let letter = if letter.is_ascii_digit() { '0' } else { letter };
        if letter != '0' || !short.ends_with('0') {
            short.push(letter);
        }
    }
    short
}

const README: &str = include_str!("../../README.md");
