//! A node of a network that keeps signed values. Arguments are endpoints of other nodes and options; commands come on standard input.

use std::{
    io::{self, BufReader, stdin, stdout},
    process::ExitCode,
};

use crust_examples::kv::{self, Options};

fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1)).map_err(io::Error::other);
    match options.and_then(|options| kv::run(BufReader::new(stdin()), stdout(), options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
