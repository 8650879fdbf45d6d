//! Holes punched through the kernel's own NATs (Linux, root; see the crate nat-lab), and how long it takes.
//!
//! ```text
//! cargo test -p nat-traversal --test kernel                       a few pairs of NATs
//! cargo test -p nat-traversal --test kernel -- --runs 5           all, five runs each
//! cargo test -p nat-traversal --test kernel -- --runs 20 hard     all with `hard` in their name
//! ```
//!
//! `--trace` prints what the peers do. Where no laboratory can be built it prints `NOT RUN: …` and ends well; the gate does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(target_os = "linux")]
mod cells;
#[cfg(target_os = "linux")]
mod meet;
#[cfg(target_os = "linux")]
mod silent;
#[cfg(target_os = "linux")]
mod table;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: holes through kernel NATs: network namespaces are Linux's");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let options = Options::read();
    if let Err(reason) = nat_lab::Lab::check() {
        println!("NOT RUN: holes through kernel NATs: {reason}");
        return std::process::ExitCode::SUCCESS;
    }
    if options.trace {
        let level = tracing::level_filters::LevelFilter::TRACE;
        tracing_subscriber::fmt().with_max_level(level).init();
    }
    let mut cells: Vec<cells::Cell> = cells::all().into_iter().filter(|cell| options.wants(cell)).collect();
    let Some(runs) = options.runs else {
        cells.iter_mut().for_each(|cell| cell.weight = 1);
        return table::measure(&cells, QUICK_RUNS, false);
    };
    let whole = options.words.is_empty();
    table::measure(&cells, runs, whole)
}

/// What the command line asks for.
#[cfg(target_os = "linux")]
#[derive(Default)]
struct Options {
    runs: Option<usize>,
    trace: bool,
    /// All of them are in the name of a wanted cell.
    words: Vec<String>,
}

#[cfg(target_os = "linux")]
impl Options {
    fn read() -> Self {
        let mut options = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(word) = arguments.next() {
            match word.as_str() {
                "--runs" => {
                    let runs = arguments.next().and_then(|runs| runs.parse().ok());
                    options.runs = Some(runs.expect("--runs takes a number"));
                }
                "--trace" => options.trace = true,
                option if option.starts_with('-') => {} // of cargo's own harness
                _ => options.words.push(word),
            }
        }
        options
    }

    fn wants(&self, cell: &cells::Cell) -> bool {
        let name = cell.name();
        self.words.iter().all(|word| name.contains(word)) && (self.runs.is_some() || cell.is_quick())
    }
}

/// Runs of each cell that show that it works at all.
#[cfg(target_os = "linux")]
const QUICK_RUNS: usize = 2;
