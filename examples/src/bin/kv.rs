//! A node of a network that keeps signed values. Arguments are endpoints of other nodes, after the file for its own values if they
//! are to outlive it; commands come on standard input.

use std::{
    io::{self, BufReader, stdin, stdout},
    path::Path,
    process::ExitCode,
};

use crust_examples::kv;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (file, others) = match &arguments[..] {
        [flag, file, others @ ..] if flag == "--store" => (Some(Path::new(file)), others),
        others => (None, others),
    };
    let others = others.iter().map(|text| text.parse()).collect::<Result<_, _>>();
    let others =
        others.map_err(|error| io::Error::other(format!("usage: kv [--store FILE] [ENDPOINT]...: {error}")));
    match others.and_then(|others| kv::run(BufReader::new(stdin()), stdout(), others, file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
