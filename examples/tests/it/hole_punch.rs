use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

const HOLE_PUNCH: &str = env!("CARGO_BIN_EXE_hole_punch");

/// Runs a peer without servers, gives it what `answer` makes of its line, and returns the rest of what it prints.
fn peer(arguments: &[&str], answer: impl Fn(&str) -> String) -> (String, bool) {
    let mut command = Command::new(HOLE_PUNCH);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", answer(line.trim_end())).unwrap();
    let rest = output.lines().map(Result::unwrap).collect::<Vec<_>>().join("\n");
    (rest, child.wait().unwrap().success())
}

#[test]
fn a_line_that_was_damaged_on_its_way_is_told_from_none_at_all() {
    let damaged = peer(&[], |line| {
        let (head, tail) = line.split_at(20);
        let other = if tail.starts_with('a') { "b" } else { "a" };
        format!("{head}{other}{}", &tail[1..])
    });
    assert_eq!(damaged.0, "not punched: the text was damaged or cut off on its way: the checksum is wrong");
    let other = peer(&["--tcp"], |_| "crust1abc".into());
    assert_eq!(other.0, "not punched: rendezvous information begins with nat1");
    assert_eq!((damaged.1, other.1), (false, false));
}

#[test]
fn ones_own_line_is_no_peers() {
    let (said, success) = peer(&[], str::to_owned);
    assert_eq!(said, "not punched: the peer's information is our own or was tampered with");
    assert!(!success);
}

#[test]
fn a_wrong_option_shows_the_right_ones() {
    let output = Command::new(HOLE_PUNCH).arg("--stunn").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("usage: hole_punch [--tcp] --stun HOST:PORT"));
}

#[test]
fn it_is_the_short_program_that_it_is_meant_to_be() {
    let source = include_str!("../../src/bin/hole_punch.rs");
    assert!(source.lines().count() < 120);
    let main = source.split("\nfn main").nth(1).unwrap().split("\n}\n").next().unwrap();
    assert!(main.lines().count() < 40);
}
