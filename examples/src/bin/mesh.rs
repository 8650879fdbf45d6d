//! A group in which every pair of nodes shares a stream. Without arguments: a table of what two threadings cost.

use std::{io, process::ExitCode, time::Duration};

use crust_examples::mesh;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [] => mesh::table(Duration::from_secs(10)),
        ["--seconds", seconds] => time(seconds).and_then(mesh::table),
        ["node", threading, seconds] => time(seconds).and_then(|time| mesh::member(threading, time)),
        _ => Err(io::Error::other("usage: mesh [--seconds N]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn time(seconds: &str) -> io::Result<Duration> {
    let wrong = |_| io::Error::other(format!("a number of seconds is wanted, not {seconds:?}"));
    seconds.parse().map(Duration::from_secs).map_err(wrong)
}
