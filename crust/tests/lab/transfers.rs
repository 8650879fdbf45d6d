//! Transfers in whose midst something happens: the cases, and the table of how long they stand still.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    cases::{millis, side_by_side},
    figures::quantile,
    leaving,
    moving::{self, Mover, Sender, Transfer},
    outage,
};

pub(crate) fn a_transfer_goes_on_in_another_network() {
    for sender in SENDERS {
        check(&format!("{sender:?} sends"), moving::move_from_a_public_host(sender));
    }
}

pub(crate) fn a_transfer_goes_on_between_homes() {
    for (mover, sender) in [
        (Mover::Dialler, Sender::Acceptor),
        (Mover::Acceptor, Sender::Acceptor),
        (Mover::Acceptor, Sender::Dialler),
        (Mover::Both, Sender::Dialler),
    ] {
        check(&format!("{mover:?} moves, {sender:?} sends"), moving::move_between_homes(mover, sender));
    }
}

pub(crate) fn a_transfer_goes_on_while_its_introducer_restarts() {
    check("both move, the introducer restarts", moving::move_while_the_introducer_restarts(Sender::Acceptor));
}

pub(crate) fn a_transfer_outlives_a_router_that_forgets() {
    for (acceptor, sender) in
        [("server", Sender::Acceptor), ("b1", Sender::Acceptor), ("b1", Sender::Dialler)]
    {
        check(
            &format!("with {acceptor}, {sender:?} sends"),
            moving::rebinding_of_the_dialler(acceptor, sender),
        );
    }
}

pub(crate) fn a_transfer_outlives_its_relay() {
    check("the relay dies", moving::death_of_a_relay(Sender::Acceptor));
}

pub(crate) fn a_transfer_leaves_its_relay_when_that_dies() {
    check("the relay dies, and there can be a hole", leaving::death_of_a_relay(Sender::Dialler));
}

pub(crate) fn a_transfer_outlives_an_outage() {
    check("an outage of 3 s", outage::outage(OUTAGE, Sender::Dialler));
}

fn check(what: &str, Transfer { gap, lost }: Transfer) {
    println!("  {what}: nothing came for {:.0} ms", millis(gap));
    assert_eq!(lost, 0, "{what}: bytes lost");
    assert!(gap < AWAKE, "{what}: {gap:?}");
}

/// A kind of trouble, and a run of it.
type Kind = (&'static str, fn(Sender) -> Transfer);

const KINDS: [Kind; 13] = [
    ("dialler of a public host moves", moving::move_from_a_public_host),
    ("dialler moves", |sender| moving::move_between_homes(Mover::Dialler, sender)),
    ("acceptor moves", |sender| moving::move_between_homes(Mover::Acceptor, sender)),
    ("both move", |sender| moving::move_between_homes(Mover::Both, sender)),
    ("acceptor moves, both attached", |sender| {
        moving::move_of_two_that_are_attached(Mover::Acceptor, sender)
    }),
    ("both move, one after the other", moving::move_one_after_the_other),
    ("both move, introducer restarts", moving::move_while_the_introducer_restarts),
    ("router before a public host's dialler forgets", |sender| {
        moving::rebinding_of_the_dialler("server", sender)
    }),
    ("dialler's router forgets", |sender| moving::rebinding_of_the_dialler("b1", sender)),
    ("acceptor's router forgets", moving::rebinding_of_the_acceptor),
    ("relay dies", moving::death_of_a_relay),
    ("relay dies, and there can be a hole", leaving::death_of_a_relay),
    ("nothing passes for 3 s", |sender| outage::outage(OUTAGE, sender)),
];

/// The table, of so many runs each; only the kinds whose names contain one of the words, if any are given. With `traced` the runs go one
/// after the other, and the log of each that took longer than [`SLOW`] is printed.
pub(crate) fn print(runs: usize, words: &[&str], traced: bool) {
    if traced {
        let level = tracing_subscriber::filter::LevelFilter::DEBUG;
        tracing_subscriber::fmt().with_max_level(level).with_thread_names(true).with_writer(|| Log).init();
    }
    let outage = millis(OUTAGE);
    println!(
        "what happens | who sends | runs | nothing came for: p50, p95 (to reach {BAR_MS:.0} beyond an outage), worst | bytes lost | missed"
    );
    println!("--- | --- | --- | --- | --- | ---");
    let is_wanted = |what: &str| words.is_empty() || words.iter().any(|word| what.contains(word));
    for (what, run) in KINDS {
        if !is_wanted(what) {
            continue;
        }
        for sender in SENDERS {
            let all = if traced {
                (0..runs).map(|_| logged(|| run(sender))).collect()
            } else {
                side_by_side(runs, || run(sender))
            };
            let lost: u64 = all.iter().map(|transfer| transfer.lost).sum();
            let gap =
                |share| millis(quantile(all.iter().map(|transfer| transfer.gap), share).unwrap_or_default());
            let bar = match what {
                "nothing passes for 3 s" => BAR_MS + outage,
                "both move, introducer restarts" => BAR_MS + millis(moving::RESTART),
                _ => BAR_MS,
            };
            let missed = if lost > 0 || gap(0.95) > bar { "!!" } else { "" };
            println!(
                "{what} | {sender:?} | {runs} | {:.0}, {:.0}, {:.0} ms | {lost} | {missed}",
                gap(0.5),
                gap(0.95),
                gap(1.0)
            );
        }
    }
    if is_wanted("TCP") {
        print_tcp(runs);
    }
}

/// A stream over TCP ends with its address: how soon its reader is told, and how long the next call takes.
fn print_tcp(runs: usize) {
    let all = side_by_side(runs, moving::end_of_a_tcp_stream);
    for (part, what) in ["TCP: the end is told", "TCP: the next stream is up"].into_iter().enumerate() {
        let took = |share| millis(quantile(all.iter().map(|both| both[part]), share).unwrap_or_default());
        println!("{what} | | {runs} | {:.0}, {:.0}, {:.0} ms | |", took(0.5), took(0.95), took(1.0));
    }
}

/// Runs it, and prints what was logged meanwhile if it took long.
fn logged(run: impl FnOnce() -> Transfer) -> Transfer {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let transfer = run();
    if transfer.gap > SLOW || transfer.lost > 0 {
        let log = std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner));
        println!("-- {transfer:?}\n{}--", String::from_utf8_lossy(&log));
    }
    transfer
}

/// The log of the present run.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SENDERS: [Sender; 2] = [Sender::Dialler, Sender::Acceptor];
/// Shorter than what the two may be silent for there.
const OUTAGE: Duration = Duration::from_secs(3);
/// What is promised of a change of address.
const BAR_MS: f64 = 3_000.0;
const SLOW: Duration = Duration::from_secs(5);
/// Far from what is promised, for machines whose cores are all busy; the streams themselves would be lost after 30 s.
const AWAKE: Duration = Duration::from_secs(25);
