//! A group in which every pair of nodes shares a stream. Without arguments: a table of what two threadings cost. As `mesh node`
//! it is one member, which is told by lines on its input whom to meet.

use std::{
    io::{self, BufReader, stdin, stdout},
    process::ExitCode,
    time::Duration,
};

use crust_examples::mesh::{self, MemberSettings};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [] => mesh::table(Duration::from_secs(10)),
        ["--seconds", seconds] => time(seconds).and_then(mesh::table),
        ["node", ref settings @ ..] => MemberSettings::from_words(settings)
            .and_then(|settings| mesh::member(&settings, BufReader::new(stdin()), stdout())),
        _ => Err(io::Error::other("usage: mesh [--seconds N] | mesh node [OPTION]...")),
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
    let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| io::Error::other("a number of seconds is wanted"))
}
