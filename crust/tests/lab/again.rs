//! How much sooner two who have met before meet again: in the same process, and in a new one that knows what the last wrote.

use std::time::Duration;

use crust::ConnectOptions;

use crate::{
    cases::{millis, side_by_side},
    figures::quantile,
    world::{Met, World},
};

/// Prints the table, so many runs of each pair, each in a world of its own.
pub(crate) fn print(trials: usize) {
    println!(
        "pair | second dial by | runs | first, to the echo p50 | again, to the echo p50 | again / first, to reach 0.50 | missed"
    );
    println!("--- | --- | --- | --- | --- | --- | ---");
    let rows = PAIRS.iter().flat_map(|pair| [(pair, false), (pair, true)]);
    for ((a, b), anew) in rows {
        let times = side_by_side(trials, || meet_twice(a, b, anew));
        let by = if anew { "a new process" } else { "the same" };
        let p50 = |of: fn(&(Met, Met)) -> Duration| quantile(times.iter().map(of), 0.5).unwrap_or_default();
        let (first, again) = (p50(|(first, _)| first.up), p50(|(_, again)| again.up));
        let echoes = [p50(|(first, _)| first.echo), p50(|(_, again)| again.echo)].map(millis);
        let share = again.as_secs_f64() / first.as_secs_f64();
        let missed = if share > 0.5 { "!! half" } else { "" };
        println!(
            "{a}:{b} | {by} | {trials} | {:.0} ms, {:.0} ms | {:.0} ms, {:.0} ms | {share:.2} | {missed}",
            millis(first),
            echoes[0],
            millis(again),
            echoes[1],
        );
    }
}

/// Dials, ends the stream, and dials again; `anew`: by another service, which has the first one's memory on disk.
fn meet_twice(a: &str, b: &str, anew: bool) -> (Met, Met) {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(a, b);
    world.start_relay();
    let options = ConnectOptions::new().deadline(Duration::from_secs(15));
    let server = world.listening("b1");
    let start = || world.remembering("a1", &folder.path().join("endpoints"));
    let client = start();
    let first = world.meet(("a1", &client), ("b1", &server), &options).unwrap();
    // The old process ends before the new one begins.
    let client = if anew {
        drop(client);
        start()
    } else {
        client
    };
    let again = world.meet(("a1", &client), ("b1", &server), &options).unwrap();
    (first, again)
}

/// Met through a hole, over a relay, and through a hole for TCP.
const PAIRS: [(&str, &str); 3] = [("easy", "easy"), ("hard", "hard"), ("udpblock", "easy")];
