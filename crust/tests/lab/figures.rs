//! The table of which pairs of NATs meet, how fast, by which road, and whether they are direct in the end.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crust::ConnectOptions;
use nat_lab::{Link, Topology};

use crate::{
    cases::millis,
    world::{Met, World},
};

/// What the punching table of `nat-traversal` asks of each pair of NATs.
#[path = "../../../nat-traversal/tests/kernel/cells.rs"]
#[allow(dead_code, reason = "only the names of the cells count here, and what is asked of them")]
mod cells;

/// What is to be measured.
pub(crate) struct Order<'w> {
    pub(crate) trials: usize,
    /// With a relay on the public host.
    pub(crate) relayed: bool,
    /// One after the other, for who reads the log.
    pub(crate) in_order: bool,
    /// Only these, such as `easy:hard`; all if there are none.
    pub(crate) pairs: Vec<&'w str>,
}

/// One pair, and what came of it.
struct Pair {
    a: &'static str,
    b: &'static str,
    /// The punching table says that it can be direct.
    punchable: bool,
    trials: usize,
    met: Vec<Met>,
}

/// Prints the table. What misses its bar is marked.
pub(crate) fn print(order: &Order<'_>) {
    let cells: Vec<String> =
        cells::all().iter().filter(|cell| cell.wanted.share().is_some()).map(cells::Cell::name).collect();
    let mut pairs = Vec::new();
    for (index, a) in PROFILES.into_iter().enumerate() {
        for b in &PROFILES[index..] {
            if order.pairs.is_empty() || order.pairs.contains(&&*format!("{a}:{b}")) {
                let punchable = can_be_punched(&cells, a, b);
                // Who cannot meet is told so, which a few show.
                let trials = if order.relayed || punchable { order.trials } else { order.trials.min(FEW) };
                pairs.push(Pair { a, b, punchable, trials, met: Vec::new() });
            }
        }
    }
    let at_a_time =
        if order.in_order { 1 } else { thread::available_parallelism().map_or(1, usize::from) * 3 };
    println!(
        "{trials} runs a pair, {at_a_time} pairs at a time; to reach: all meet{among}, a stream within {up} ms (p95), direct after {after} s \
         wherever the punching table says so",
        trials = order.trials,
        among = if order.relayed { "" } else { " that can be direct" },
        up = UP.as_millis(),
        after = DIRECT_AFTER.as_secs(),
    );
    println!(
        "pair | met | to the stream p50, p95 | to the echo p50 | roads | direct after {} s, p95 | missed",
        DIRECT_AFTER.as_secs()
    );
    println!("--- | --- | --- | --- | --- | --- | ---");
    measure(&mut pairs, order.relayed, at_a_time);
}

/// Whether the table has a cell by which the two meet: over UDP, or over TCP, which is all that is left where UDP is blocked.
fn can_be_punched(cells: &[String], a: &str, b: &str) -> bool {
    let blocked = [a, b].contains(&"udpblock");
    let schemes = if blocked { &["tcp"][..] } else { &["udp", "tcp"] };
    let [a, b] = [a, b].map(|nat| if nat == "udpblock" { "easy" } else { nat });
    let both_ways = [format!("{a}:{b}"), format!("{b}:{a}")];
    schemes.iter().any(|scheme| both_ways.iter().any(|pair| cells.contains(&format!("{scheme} {pair}"))))
}

/// Several laboratories at a time; each line is printed when those before it are.
fn measure(pairs: &mut [Pair], relayed: bool, at_a_time: usize) {
    // Those that take longest first, so that none of them is left alone in the end.
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_key(|index| (![pairs[*index].a, pairs[*index].b].contains(&"hard"), *index));
    let shares: Vec<(usize, usize)> = order
        .into_iter()
        .flat_map(|index| {
            let parts = pairs[index].trials.div_ceil(RUNS_A_LAB);
            (0..parts).map(move |part| (index, part, parts))
        })
        .map(|(index, part, parts)| (index, (pairs[index].trials + part) / parts))
        .collect();
    let pairs_of: Vec<_> = pairs.iter().map(|pair| (pair.a, pair.b, pair.punchable)).collect();
    let next = AtomicUsize::new(0);
    let table = Mutex::new(Table { left: pairs.iter().map(|pair| pair.trials).collect(), pairs, printed: 0 });
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(&(index, trials)) = shares.get(next.fetch_add(1, Relaxed)) {
                    let (a, b, punchable) = pairs_of[index];
                    let met = meet(a, b, trials, relayed, punchable);
                    table.lock().unwrap().take(index, trials, met, relayed);
                }
            });
        }
    });
}

struct Table<'p> {
    pairs: &'p mut [Pair],
    left: Vec<usize>,
    printed: usize,
}

impl Table<'_> {
    fn take(&mut self, index: usize, trials: usize, met: Vec<Met>, relayed: bool) {
        self.pairs[index].met.extend(met);
        self.left[index] -= trials;
        while let Some(pair) = self.pairs.get(self.printed).filter(|_| self.left[self.printed] == 0) {
            println!("{}", pair.row(relayed));
            self.printed += 1;
        }
    }
}

/// So many meetings of one pair, in a laboratory of their own.
fn meet(a: &str, b: &str, trials: usize, relayed: bool, punchable: bool) -> Vec<Met> {
    let mut world = World::of(&Topology::pair(a, b).unwrap().links(Link::delay(Duration::from_millis(20))));
    if relayed {
        world.start_relay();
    }
    let patience = if relayed || punchable { DIRECT_AFTER } else { TOLD_WITHIN };
    let options = ConnectOptions::new().deadline(patience);
    let mut met = Vec::new();
    for _ in 0..trials {
        // New ones each time, so that no connection or budget is left from the last.
        let (server, client) = (world.listening("b1"), world.dialling("a1"));
        let wait = if punchable { DIRECT_AFTER } else { Duration::ZERO };
        match world.meet_until_direct(("a1", &client), ("b1", &server), &options, wait) {
            Ok(one) => met.push(one),
            Err(_) if !relayed && !punchable => {}
            Err(error) => {
                eprintln!("{a}:{b}: {error}\n{}", error.trace());
                for (name, service) in [("b", &server), ("a", &client)] {
                    service.controller.events().try_iter().for_each(|event| eprintln!("{name} {event:?}"));
                }
            }
        }
    }
    met
}

impl Pair {
    fn row(&self, relayed: bool) -> String {
        let Self { a, b, trials, met, .. } = self;
        let quantile =
            |of: fn(&Met) -> Option<Duration>, share: f64| quantile(met.iter().filter_map(of), share);
        let [p50, p95] = [0.5, 0.95].map(|share| quantile(|met| Some(met.up), share));
        let echo = quantile(|met| Some(met.echo), 0.5);
        let mut roads: Vec<String> = met.iter().map(|met| format!("{} {}", met.road, met.scheme)).collect();
        roads.sort();
        roads.dedup();
        let direct = met.iter().filter(|met| met.direct.is_some()).count();
        let after = quantile(|met| met.direct, 0.95);
        let echo_bar = ECHO.iter().find(|(pair, _)| *pair == format!("{a}:{b}")).map(|(_, bar)| *bar);

        let mut missed = Vec::new();
        if met.len() < *trials && (relayed || self.punchable) {
            missed.push("met".to_owned());
        }
        if p95.is_some_and(|p95| p95 > UP) && relayed {
            missed.push(format!("p95 {} ms", UP.as_millis()));
        }
        if let Some(bar) = echo_bar
            && echo.is_some_and(|echo| echo > bar)
        {
            missed.push(format!("echo {} ms", bar.as_millis()));
        }
        if self.punchable && direct < *trials {
            missed.push(format!("direct after {} s", DIRECT_AFTER.as_secs()));
        }
        let missed = if missed.is_empty() { String::new() } else { format!("!! {}", missed.join(", ")) };
        let bar = echo_bar.map_or_else(String::new, |bar| format!(" of {}", bar.as_millis()));
        let direct =
            if self.punchable { format!("{direct}/{trials}, {}", shown(after)) } else { "not asked".into() };
        format!(
            "{a}:{b} | {}/{trials} | {}, {} | {}{bar} | {} | {direct} | {missed}",
            met.len(),
            shown(p50),
            shown(p95),
            shown(echo),
            roads.join(", "),
        )
    }
}

/// The smallest that so large a share does not exceed.
pub(crate) fn quantile(all: impl Iterator<Item = Duration>, share: f64) -> Option<Duration> {
    let mut all: Vec<Duration> = all.collect();
    all.sort();
    let rank = (all.len() as f64 * share).ceil() as usize;
    all.get(rank.clamp(1, all.len().max(1)) - 1).copied()
}

fn shown(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "–".to_owned(), |duration| format!("{:.0} ms", millis(duration)))
}

const PROFILES: [&str; 7] = ["open", "easy", "easyrand", "cgnat", "hard", "udpblock", "tcp443"];
/// By then a stream is there in 95 of 100.
const UP: Duration = Duration::from_millis(1_500);
/// By then it goes straight wherever holes can be punched.
const DIRECT_AFTER: Duration = Duration::from_secs(15);
/// Pairs whose first echo has a bar.
const ECHO: [(&str, Duration); 1] = [("easy:easy", Duration::from_millis(450))];
/// Who cannot meet hears so before.
const TOLD_WITHIN: Duration = Duration::from_secs(4);
const FEW: usize = 2;
/// Meetings that one laboratory sees.
const RUNS_A_LAB: usize = 10;
