//! A node of a broadcast group, for the Maelstrom harness: a message a line on standard input and output. Without
//! arguments that is its only network; else nodes talk over streams, and only clients over the two pipes.

use std::{
    io::{self, BufReader, stdin, stdout},
    process::ExitCode,
};

use crust_examples::broadcast::{Meeting, maelstrom, over_streams};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (input, output) = (BufReader::new(stdin()), stdout());
    let result = match words[..] {
        [] => maelstrom(input, output),
        ["--beacon", port] => beacon(port).and_then(|meeting| over_streams(input, output, &meeting)),
        ["--contacts", ref contacts @ ..] => {
            contact(contacts).and_then(|meeting| over_streams(input, output, &meeting))
        }
        _ => Err(io::Error::other("usage: broadcast [--beacon PORT | --contacts [CONTACT]...]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn beacon(port: &str) -> io::Result<Meeting> {
    port.parse().map(Meeting::Beacons).map_err(|_| io::Error::other(format!("{port:?} is no UDP port")))
}

fn contact(contacts: &[&str]) -> io::Result<Meeting> {
    let contacts = contacts.iter().map(|contact| contact.parse()).collect::<Result<_, _>>();
    contacts.map(Meeting::Contacts).map_err(io::Error::other)
}
