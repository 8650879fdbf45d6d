use std::fmt::Display;
use std::io;
use std::panic;
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::thread;
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
    run_each(what, ready, cases, |wanted| {
        let outcomes = wanted.iter().map(|(name, case)| run_case(name, *case));
        outcomes.filter(|passed| !passed).count()
    })
}

/// The same for tests that mostly wait: each in a process of its own, twice as many at a time as there are cores. What a test
/// prints is printed when it has ended.
pub fn run_cases_side_by_side<E: Display>(
    what: &str,
    ready: Result<(), E>,
    cases: &[(&str, fn())],
) -> ExitCode {
    if let Ok(only) = std::env::var(ONLY) {
        let passed =
            cases.iter().find(|(name, _)| *name == only).is_some_and(|(name, case)| run_case(name, *case));
        return if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    run_each(what, ready, cases, |wanted| {
        let (next, failed) = (Mutex::new(wanted.iter()), Mutex::new(0));
        let take = || next.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) * 2 {
                scope.spawn(|| {
                    while let Some((name, _)) = take() {
                        let passed = print_ended(name, in_own_process(name));
                        *failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) +=
                            usize::from(!passed);
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    })
}

/// Has those that are wanted run by `run`, which tells how many failed.
fn run_each<E: Display>(
    what: &str,
    ready: Result<(), E>,
    cases: &[(&str, fn())],
    run: impl FnOnce(&[(&str, fn())]) -> usize,
) -> ExitCode {
    if let Err(reason) = ready {
        println!("NOT RUN: {what}: {reason}");
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |(name, _): &&(&str, fn())| words.iter().all(|word| name.contains(word.as_str()));
    let wanted: Vec<_> = cases.iter().filter(wanted).copied().collect();
    let failed = run(&wanted);
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {failed} failed; 0 ignored", wanted.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tells whether it passed.
fn run_case(name: &str, case: fn()) -> bool {
    let begun = Instant::now();
    let passed = panic::catch_unwind(case).is_ok();
    let outcome = if passed { "ok" } else { "FAILED" };
    println!("test {name} ... {outcome} ({:.1} s)", begun.elapsed().as_secs_f64());
    passed
}

fn in_own_process(name: &str) -> io::Result<Output> {
    Command::new(std::env::current_exe()?).env(ONLY, name).output()
}

/// Prints what a test has printed, and tells whether it passed.
fn print_ended(name: &str, ended: io::Result<Output>) -> bool {
    match ended {
        Ok(Output { status, stdout, stderr }) => {
            print!("{}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
            // A process that was killed says nothing of its test.
            if status.code().is_none() {
                println!("test {name} ... FAILED ({status})");
            }
            status.success()
        }
        Err(error) => {
            println!("test {name} ... FAILED (no process for it: {error})");
            false
        }
    }
}

/// Names the one test that a process is to run.
const ONLY: &str = "NAT_LAB_ONLY_CASE";
