//! A node of a broadcast group. Without arguments its network is its standard input and output, as the Maelstrom harness
//! wants it.

use std::{
    io::{BufReader, stdin, stdout},
    process::ExitCode,
};

fn main() -> ExitCode {
    match crust_examples::broadcast::maelstrom(BufReader::new(stdin()), stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}
