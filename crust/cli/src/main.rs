//! The command `crust`.

use std::process::ExitCode;

fn main() -> ExitCode {
    crust_cli::run(std::env::args_os())
}
