use std::fmt::Display;
use std::panic;
use std::process::ExitCode;
use std::time::Instant;

/// Runs the tests of a binary that has `harness = false`, one after the other, and prints a line for each and one for all, as
/// the usual harness does. Where `ready` says what is missing it prints `NOT RUN: what: why` and ends well.
///
/// Words on the command line choose those tests with all of them in their names; options are for the usual harness and ignored.
///
/// ```no_run
/// # #[cfg(target_os = "linux")] {
/// fn main() -> std::process::ExitCode {
///     nat_lab::run_cases("two homes", nat_lab::Lab::check(), &[("they_meet", they_meet)])
/// }
///
/// fn they_meet() {
///     // builds a laboratory, and panics if something is not as it should be
/// }
/// # }
/// ```
pub fn run_cases<E: Display>(what: &str, ready: Result<(), E>, cases: &[(&str, fn())]) -> ExitCode {
    if let Err(reason) = ready {
        println!("NOT RUN: {what}: {reason}");
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = cases.iter().filter(|(name, _)| words.iter().all(|word| name.contains(word.as_str())));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in wanted {
        let begun = Instant::now();
        let ended = panic::catch_unwind(case);
        let outcome = if ended.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {outcome} ({:.1} s)", begun.elapsed().as_secs_f64());
        *(if ended.is_ok() { &mut passed } else { &mut failed }) += 1;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
