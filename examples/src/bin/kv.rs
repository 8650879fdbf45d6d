//! A node of a network that keeps signed values. Arguments are endpoints of other nodes; commands come on standard input.

use std::{
    io::{self, BufReader, stdin, stdout},
    process::ExitCode,
};

use crust_examples::{kv, protocol::kv::Settings};

fn main() -> ExitCode {
    let others = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>();
    let result = others.map_err(io::Error::other);
    match result.and_then(|others| kv::run(BufReader::new(stdin()), stdout(), others, Settings::default())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
