//! The judge of the program `mesh`: starts groups of processes in both threadings, stops, kills and cuts them off, and looks at
//! what the nodes say, at `/proc` and at `ss`.
//!
//! Without arguments small groups for a short while, where it insists on what happens and not on when. With `--full` the table
//! of the README, where every figure has a bar; that one wants an idle machine and a release build.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod black_hole;
mod judge;
mod scenes;

use std::{panic, process::ExitCode, thread, time::Duration};

use judge::{Judge, Scale};

fn main() -> ExitCode {
    let full = std::env::args().any(|argument| argument == "--full");
    let scale = if full { FULL } else { SHORT };
    let scenes: [(&str, Scene); 5] = [
        ("a_group_gathers_and_loses_nothing", scenes::load),
        ("a_stopped_node_delays_nobody_and_is_found_out", scenes::stopped),
        ("a_node_that_pauses_loses_nothing_and_a_killed_one_is_missed_at_once", scenes::paused_and_killed),
        ("threads_are_as_documented", scenes::threads),
        ("a_black_hole_is_found_out", black_hole::found_out),
    ];
    let mut failed = 0;
    let mut passed = 0;
    let begin = |threading: &'static str| move || judge(threading, scale, &scenes);
    let judges = if full {
        // One after the other, lest they disturb each other.
        THREADINGS.map(|threading| panic::catch_unwind(begin(threading)))
    } else {
        THREADINGS.map(|threading| thread::spawn(begin(threading))).map(thread::JoinHandle::join)
    };
    for judge in judges {
        let (scenes, wrong) = judge.unwrap_or((0, 1));
        passed += scenes - wrong.min(scenes);
        failed += wrong;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all scenes in one threading; tells how many there were, and how many failed.
fn judge(threading: &'static str, scale: Scale, scenes: &[(&str, Scene)]) -> (usize, usize) {
    let mut judge = Judge::new(threading, scale);
    let mut failed = 0;
    for (name, scene) in scenes {
        let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| scene(&mut judge)));
        let wrong = judge.take_failures();
        let outcome = if ended.is_ok() && wrong.is_empty() { "ok" } else { "FAILED" };
        if !scale.full || outcome == "FAILED" {
            println!("test {name} ({threading}) ... {outcome}");
        }
        wrong.iter().for_each(|wrong| println!("    {wrong}"));
        failed += usize::from(outcome == "FAILED");
    }
    (scenes.len(), failed)
}

type Scene = fn(&mut Judge);

const THREADINGS: [&str; 2] = ["two-threads", "one-thread"];
const SHORT: Scale = Scale {
    nodes: 4,
    load: Duration::from_secs(3),
    fault_after: Duration::from_secs(1),
    timeout: Duration::from_secs(5),
    full: false,
};
const FULL: Scale = Scale {
    nodes: 8,
    load: Duration::from_secs(20),
    fault_after: Duration::from_secs(5),
    timeout: Duration::from_secs(3),
    full: true,
};
