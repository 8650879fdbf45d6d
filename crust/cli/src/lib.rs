#![doc = include_str!("../README.md")]

mod arguments;
mod command;
mod events;
mod failure;
mod interrupt;
mod pipe;
mod progress;
mod setup;
mod splice;
pub mod transfer;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use self::{arguments::Arguments, events::Output, failure::Failure};

/// Runs the command with these arguments, the program's own name first. Blocks until it is done.
///
/// The exit status is 0 when it did what it was asked, 1 when it could not connect or was cut off, 2 when the arguments
/// make no sense.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error, &arguments),
    };
    let output =
        Output::new(parsed.common.json, parsed.command.is_piped()).verbose(parsed.common.verbose > 0);
    log(&parsed);
    match command::run(parsed.command, &parsed.common, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.report(output)),
    }
}

/// Prints the help that was asked for, or what is wrong with the arguments.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.use_stderr() && arguments.iter().any(|argument| argument == "--json") {
        let piped = arguments.iter().any(|argument| argument == "listen" || argument == "connect");
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        return ExitCode::from(Failure::usage(message).report(Output::new(true, piped)));
    }
    // Nobody reads what cannot be printed.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Our own crates tell what an operator can mend, or more if asked; the engines below only with them at their loudest.
fn log(parsed: &Arguments) {
    let (ours, others) = match parsed.common.verbose {
        0 if parsed.common.json => return,
        0 => (LevelFilter::WARN, LevelFilter::OFF),
        1 => (LevelFilter::DEBUG, LevelFilter::WARN),
        _ => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    let levels =
        OURS.iter().fold(Targets::new().with_default(others), |levels, name| levels.with_target(*name, ours));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // The one call of this in the process.
    let _ = tracing_subscriber::registry().with(lines.with_filter(levels)).try_init();
}

const OURS: [&str; 5] = ["beacon", "crust", "crust_cli", "nat_traversal", "transport"];
