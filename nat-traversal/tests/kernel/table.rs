//! Runs cells side by side and prints what came of them.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nat_lab::Lab;
use nat_traversal::HolePunchServer;

use crate::cells::{Cell, Row, Wanted};
use crate::meet::{Ended, meet};
use crate::silent;

/// Runs all cells and prints their table, each line when all before it are known, then the rows of it beside what is asked; if it is
/// the `whole` table, also what an address gets that never answers. Fails if one is not as wanted.
pub(crate) fn measure(cells: &[Cell], runs: usize, whole: bool) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    // Cells with many runs first, so that the last does not stand alone.
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(cells[*index].weight));
    let shares =
        order.iter().flat_map(|index| split(*index, cells[*index].weight * runs)).collect::<Vec<_>>();
    let table = Mutex::new(Table::new(cells, runs));
    println!(
        "{:<46}{:>5} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "", "runs", "direct", "95% ≥", "p50", "p95", "worst"
    );
    thread::scope(|scope| {
        for _ in 0..at_a_time() {
            scope.spawn(|| {
                while let Some((index, runs)) = shares.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ends = run(&cells[*index], *runs);
                    table.lock().unwrap().take(*index, ends);
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    let mut failed = table.failed + table.print_rows();
    failed += usize::from(whole && !silent::measure());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "times in ms after both have the info; 20 ms of delay each way at each site; {} cells side by side on {} cores, \
         load {} at the end",
        at_a_time(),
        thread::available_parallelism().map_or(1, usize::from),
        load.split(' ').next().unwrap_or_default(),
    );
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let (passed, seconds) =
        ((cells.len() + rows(cells).len() + usize::from(whole)) - failed, begun.elapsed().as_secs());
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored ({seconds} s)");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is known of all cells so far.
struct Table<'a> {
    cells: &'a [Cell],
    lines: Vec<Line>,
    runs: usize,
    printed: usize,
    failed: usize,
}

impl<'a> Table<'a> {
    fn new(cells: &'a [Cell], runs: usize) -> Self {
        let lines = cells.iter().map(|_| Line::default()).collect();
        Self { cells, lines, runs, printed: 0, failed: 0 }
    }

    fn take(&mut self, index: usize, ends: Vec<Ended>) {
        self.lines[index].ends.extend(ends);
        while let (Some(cell), Some(line)) = (self.cells.get(self.printed), self.lines.get(self.printed))
            && line.ends.len() == cell.weight * self.runs
        {
            let faults = line.faults(cell.wanted, if self.runs < FIGURE_RUNS { LENIENCE } else { 1 });
            print!("{:<46}{}", cell.name(), line.pool().figures());
            faults.iter().for_each(|fault| print!("  !! {fault}"));
            println!();
            self.failed += usize::from(!faults.is_empty());
            self.printed += 1;
        }
    }

    /// Prints what the cells of each row came to together; counts the rows that do not prove the share asked for.
    fn print_rows(&self) -> usize {
        let mut failed = 0;
        println!(
            "\n{:<46}{:>5} {:>7} {:>7} {:>7} {:>7} {:>7}",
            "together", "runs", "direct", "95% ≥", "p50", "p95", "worst"
        );
        for row in rows(self.cells) {
            let of_row: Vec<(&Cell, &Line)> =
                self.cells.iter().zip(&self.lines).filter(|(cell, _)| cell.row == row).collect();
            let line = Pool { ends: of_row.iter().flat_map(|(_, line)| &line.ends).collect() };
            print!("{:<46}{}", row.name(), line.figures());
            let wanted: Vec<Wanted> = of_row.iter().map(|(cell, _)| cell.wanted).collect();
            let (asked, mut faults) = line.judge(&wanted, if self.runs < FIGURE_RUNS { LENIENCE } else { 1 });
            let share = wanted.iter().copied().filter_map(Wanted::share).reduce(f64::min);
            if let Some(share) = share.filter(|_| line.ends.len() >= PROVING_RUNS)
                && line.lower_end() < share.min(PROVABLE)
            {
                faults.push(format!("not shown to be {:.0} %", share.min(PROVABLE) * 100.0));
            }
            failed += usize::from(!faults.is_empty());
            let mark = if faults.is_empty() { "ok".to_owned() } else { format!("!! {}", faults.join(", ")) };
            print!("   asked: {asked}  {mark}");
            println!();
        }
        failed
    }
}

/// All rows, in the order of their first cells.
fn rows(cells: &[Cell]) -> Vec<Row> {
    let mut rows = Vec::new();
    for cell in cells {
        if !rows.contains(&cell.row) {
            rows.push(cell.row);
        }
    }
    rows
}

/// Many runs of one cell are work for several laboratories.
fn split(index: usize, runs: usize) -> Vec<(usize, usize)> {
    let parts = runs.div_ceil(RUNS_A_LAB);
    (0..parts).map(|part| (index, (runs + part) / parts)).collect()
}

/// Meetings wait most of their time; what they need of a core is a few milliseconds each.
fn at_a_time() -> usize {
    thread::available_parallelism().map_or(1, usize::from) * 3
}

fn run(cell: &Cell, runs: usize) -> Vec<Ended> {
    let lab = cell.topology().build().unwrap();
    let [first, second] = Lab::SERVER;
    let _server = lab
        .node("server")
        .enter(|| HolePunchServer::bind_two((first, 3_478).into(), (second, 3_479).into()).unwrap());
    let routers: Vec<_> = lab
        .nodes()
        .filter(|(name, _)| name.len() == 2 && matches!(name.as_bytes()[0], b'r' | b'c'))
        .filter(|(name, _)| !is_open(cell, name))
        .collect();
    let mut ends = Vec::new();
    for _ in 0..runs {
        ends.push(meet(&lab, cell));
        routers.iter().for_each(|(_, router)| router.forget().unwrap());
    }
    ends
}

/// A router without a NAT has nothing to forget.
fn is_open(cell: &Cell, router: &str) -> bool {
    (router == "ra" && cell.a == "open") || (router == "rb" && cell.b == "open")
}

/// What came of a cell.
#[derive(Default)]
struct Line {
    ends: Vec<Ended>,
}

impl Line {
    fn pool(&self) -> Pool<'_> {
        Pool { ends: self.ends.iter().collect() }
    }

    /// What is not as wanted, beyond what chance explains in so few runs. Times may be so many times as long.
    fn faults(&self, wanted: Wanted, lenience: u32) -> Vec<String> {
        let mut faults = Vec::new();
        let mut failures =
            self.ends.iter().filter_map(|end| if let Ended::Failed(why) = end { Some(why) } else { None });
        match wanted {
            Wanted::Hopeless => {
                let other = self.ends.iter().find(|end| !matches!(end, Ended::Hopeless));
                faults.extend(other.map(|end| format!("not given up: {end:?}")));
            }
            Wanted::Never(why) => {
                let told =
                    |end: &&Ended| matches!(end, Ended::Failed(text) if text.matches(why).count() == 2);
                let other = self.ends.iter().find(|end| !told(end));
                faults.extend(other.map(|end| format!("not what both should say: {end:?}")));
            }
            Wanted::Direct { share, p50, p95, worst } => {
                let pool = self.pool();
                let times = pool.times();
                let missed = self.ends.len() - times.len();
                // What is to be shown is shown by rows.
                let enough = missed <= by_chance(self.ends.len(), 1.0 - share);
                if !enough {
                    faults.push(format!("{missed} missed, e.g. {:?}", failures.next()));
                }
                for (name, limit, share) in [("p50", p50, 0.5), ("p95", p95, 0.95), ("worst", worst, 1.0)] {
                    let Some(limit) = limit.map(|limit| limit * lenience) else { continue };
                    let over = times.iter().filter(|time| **time > limit).count();
                    if over > by_chance(times.len(), 1.0 - share) {
                        faults.push(format!("{name} over {} ms", limit.as_millis()));
                    }
                }
            }
        }
        faults
    }
}

/// Ends of one cell or of several.
struct Pool<'a> {
    ends: Vec<&'a Ended>,
}

impl Pool<'_> {
    /// How long those took that were direct, the shortest first.
    fn times(&self) -> Vec<Duration> {
        let direct = |end: &Ended| if let Ended::Direct(took) = end { Some(*took) } else { None };
        let mut times: Vec<Duration> = self.ends.iter().copied().filter_map(direct).collect();
        times.sort_unstable();
        times
    }

    /// The lower end of the 95 % interval (Wilson) of the share that was direct.
    fn lower_end(&self) -> f64 {
        const Z: f64 = 1.96;
        let n = self.ends.len() as f64;
        let share = self.times().len() as f64 / n;
        let middle = share + Z * Z / (2.0 * n);
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        ((middle - half) / (1.0 + Z * Z / n)).max(0.0)
    }

    /// What is asked of cells together, and what is not so: times by the most lenient of them, beyond what chance explains.
    fn judge(&self, wanted: &[Wanted], lenience: u32) -> (String, Vec<String>) {
        let mut asked = Vec::new();
        let mut faults = Vec::new();
        let times = self.times();
        let shares = wanted.iter().copied().filter_map(Wanted::share);
        match shares.reduce(f64::min) {
            Some(share) => asked.push(format!("≥ {:.0} %", share * 100.0)),
            None => asked.push("none".into()),
        }
        for (index, (name, share)) in [("p50", 0.5), ("p95", 0.95), ("worst", 1.0)].into_iter().enumerate() {
            let limits = wanted.iter().map(|wanted| match wanted {
                Wanted::Direct { p50, p95, worst, .. } => [*p50, *p95, *worst][index],
                Wanted::Hopeless | Wanted::Never(_) => None,
            });
            // None of them may be without a limit.
            let Some(limit) = limits.collect::<Option<Vec<_>>>().and_then(|limits| limits.into_iter().max())
            else {
                continue;
            };
            asked.push(format!("{name} ≤ {}", limit.as_millis()));
            let over = times.iter().filter(|time| **time > limit * lenience).count();
            if over > by_chance(times.len(), 1.0 - share) {
                faults.push(format!("{name} over {} ms", limit.as_millis()));
            }
        }
        (asked.join(", "), faults)
    }

    fn figures(&self) -> String {
        let times = self.times();
        let at = |share: f64| match quantile(&times, share) {
            Some(time) => time.as_millis().to_string(),
            None => "–".to_owned(),
        };
        format!(
            "{:>5} {:>6.1}% {:>6.1}% {:>7} {:>7} {:>7}",
            self.ends.len(),
            times.len() as f64 / self.ends.len() as f64 * 100.0,
            self.lower_end() * 100.0,
            at(0.5),
            at(0.95),
            at(1.0),
        )
    }
}

/// How often something may happen in so many runs, if its share is this one: two deviations more than on average.
fn by_chance(runs: usize, share: f64) -> usize {
    let mean = runs as f64 * share;
    (mean + 2.0 * (mean * (1.0 - share)).sqrt()).floor() as usize
}

/// The smallest time that so large a share does not exceed.
fn quantile(times: &[Duration], share: f64) -> Option<Duration> {
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.clamp(1, times.len().max(1)) - 1).copied()
}

/// Runs with which an interval says something about 98 %.
const PROVING_RUNS: usize = 200;

/// What is to be direct always can be shown to be so only as far as the runs go; this far in each row that has enough.
const PROVABLE: f64 = 0.98;

/// Meetings that one laboratory sees, so that a cell with many is done by several.
const RUNS_A_LAB: usize = 20;

/// From so many runs on, times are figures, made on a machine that does nothing else; below, they show that nothing is
/// badly wrong, on any machine.
const FIGURE_RUNS: usize = 20;
const LENIENCE: u32 = 5;
