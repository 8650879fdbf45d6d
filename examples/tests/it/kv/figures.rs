//! The table of the README.

use std::{
    thread,
    time::{Duration, Instant},
};

use crust_examples::kv::{Place, ServiceName, Threading, call_cost};

use super::{CONFIGURATIONS, Node, attacks, onion, scenarios};

/// `cargo test --release -p crust-examples --test it -- --ignored --nocapture kv_table`; with `KV_SECONDS=2` it is short, and only what
/// does not depend on the machine must hold.
#[test]
#[ignore = "means something on an idle machine only"]
fn kv_table() {
    let seconds: u32 = std::env::var("KV_SECONDS").map_or(20, |text| text.parse().unwrap());
    let full = seconds >= 20;
    let judge = move |(name, configuration): (&'static str, &'static [&'static str])| {
        let mut table = Table { configuration: name, missed: Vec::new() };
        line_of_four(&mut table, configuration);
        line_of_six(&mut table, configuration);
        a_third_that_sleeps(&mut table, configuration);
        rings_and_cliques(&mut table, configuration);
        copies(&mut table, configuration);
        load(&mut table, configuration, seconds);
        killed(&mut table, configuration);
        hostile(&mut table, configuration);
        onion_message(&mut table, configuration);
        table.missed
    };
    let mut missed = calls();
    if full {
        missed.extend(CONFIGURATIONS.map(judge).concat());
    } else {
        // Where bars do not count they may disturb each other.
        let judges = CONFIGURATIONS.map(|one| thread::spawn(move || judge(one)));
        missed.extend(judges.map(|judge| judge.join().unwrap()).concat());
    }
    assert!(!full || missed.is_empty(), "missed: {missed:?}");
}

struct Table {
    configuration: &'static str,
    missed: Vec<String>,
}

impl Table {
    fn row(&mut self, what: &str, figure: &str, bar: &str, holds: bool) {
        let verdict = if holds { "" } else { "  MISSED" };
        println!("{:12}  {what:47}  {figure:>29}  {bar}{verdict}", self.configuration);
        if !holds {
            self.missed.push(format!("{}: {what}: {figure}", self.configuration));
        }
    }

    /// A row of times.
    fn times(&mut self, what: &str, worst: Duration, bar: Duration) {
        let bar_text = format!("at most {:.0} ms", bar.as_secs_f64() * 1e3);
        self.row(what, &format!("{:.1} ms", worst.as_secs_f64() * 1e3), &bar_text, worst <= bar);
    }
}

/// What the last word but one of an answer says.
fn took(answer: &str) -> Duration {
    Duration::from_micros(answer.split(' ').nth_back(1).unwrap().parse().unwrap())
}

fn calls() -> Vec<String> {
    let cost = |threading: Threading| {
        (0..5).map(|_| call_cost(&threading, 1_000).unwrap()).min().unwrap().as_secs_f64() * 1e3
    };
    let (caller, own) =
        (cost(Threading::local()), cost(Threading::local().place(ServiceName::Store, Place::Own)));
    let mut table = Table { configuration: "-", missed: Vec::new() };
    let figure = format!("{caller:.2} ms, {own:.2} ms, {:.0} times", own / caller);
    table.row("1,000 calls, in the caller, own thread", &figure, "at least 5 times", own >= 5.0 * caller);
    table.missed
}

fn line_of_four(table: &mut Table, configuration: &[&str]) {
    let mut nodes = Node::line(4, configuration);
    nodes[3].ask("keep name 1");
    let mut worst = Duration::ZERO;
    for mode in ["proxy", "mix=2", "mix=1", "asynch"] {
        let answer = nodes[0].ask(&format!("get name {mode} hops=3"));
        assert!(answer.starts_with("name = 1, by "), "{mode}: {answer}");
        worst = worst.max(took(&answer));
    }
    table.times("line of 4, four modes, found in", worst, Duration::from_millis(200));
    let streams: Vec<u64> = nodes.iter_mut().map(|node| node.count("proved")).collect();
    // Neighbours, one more for mix=1 at its relay and one for asynch at the asker, both opened by who has the value.
    table.row(
        "line of 4, streams of each node",
        &format!("{streams:?}"),
        "[2, 3, 2, 3]",
        streams == [2, 3, 2, 3],
    );
    let entries = [nodes[1].count("waiting"), nodes[2].count("waiting")];
    table.row("line of 4, asynch, entries on the way", &format!("{entries:?}"), "[0, 0]", entries == [0, 0]);
    if cfg!(target_os = "linux") {
        let threads = nodes[1].status("Threads");
        let bar = if table.configuration == "local" { 4 } else { u64::MAX };
        let text = if bar == 4 { "3, and one for the user" } else { "" };
        table.row("line of 4, threads of a node between", &threads.to_string(), text, threads <= bar);
    }
}

fn line_of_six(table: &mut Table, configuration: &[&str]) {
    let mut nodes = Node::line(6, configuration);
    nodes[5].ask("keep name 1");
    let (mut found, mut worst) = (Duration::ZERO, Duration::ZERO);
    for mode in ["proxy", "mix=1", "mix=2", "asynch"] {
        let answer = nodes[0].ask(&format!("get name {mode} hops=6"));
        assert!(answer.starts_with("name = 1, by "), "{mode}: {answer}");
        found = found.max(took(&answer));
        let answer = nodes[0].ask(&format!("get name {mode} hops=3"));
        assert!(answer.starts_with("name: not found"), "{mode}: {answer}");
        worst = worst.max(took(&answer));
    }
    table.times("line of 6, limit 6, four modes, found in", found, LIFETIME);
    table.times("line of 6, limit 3, not found in", worst, LIFETIME + Duration::from_millis(500));
    thread::sleep(LIFETIME + Duration::from_secs(1));
    let left: u64 = nodes.iter_mut().map(|node| node.count("waiting") + node.count("remembered")).sum();
    table.row("line of 6, left behind after lifetime + 1 s", &left.to_string(), "0", left == 0);
}

/// Two thirds of a query come home, and the rest is with one who sleeps.
fn a_third_that_sleeps(table: &mut Table, configuration: &[&str]) {
    let mut hub = Node::start(configuration);
    let leaves = [0; 3].map(|_| Node::start(&[configuration, &[&hub.endpoint]].concat()));
    hub.wait_for_peers(3);
    leaves[0].signal("-STOP");
    let answer = hub.ask("get nothing asynch hops=2");
    assert!(answer.starts_with("nothing: not found"), "{answer}");
    let bar = LIFETIME + Duration::from_millis(500);
    table.times("asynch, one of three asked sleeps, not found in", took(&answer), bar);
}

fn rings_and_cliques(table: &mut Table, configuration: &[&str]) {
    let mut ring = Node::line(4, configuration);
    for node in &mut ring {
        node.ask(&format!("connect {}", node.endpoint));
        node.read();
    }
    let last = format!("connect {}", ring[0].endpoint);
    ring[3].ask(&last);
    // Each has heard from each neighbour of the others that this one has.
    ring.iter_mut().for_each(|node| node.wait_for_count("second_hand", 2));
    questions(table, "ring of 4, limit 3", &mut ring, 2);
    let mut clique = Node::clique(8, configuration);
    clique.iter_mut().for_each(|node| node.wait_for_count("second_hand", 7 * 6));
    questions(table, "clique of 8, limit 3, fan-out 5", &mut clique, 5);
}

/// Asks in each mode for a name that one has and for one that nobody has, and counts the questions.
fn questions(table: &mut Table, what: &str, nodes: &mut [Node], fan_out: u64) {
    let modes = ["proxy", "asynch", "mix=1", "mix=2"];
    let last = nodes.len() - 1;
    for mode in modes {
        nodes[last].ask(&format!("keep {mode} 1"));
        let answer = nodes[0].ask(&format!("get {mode} {mode} hops=3 fan-out=5"));
        assert!(answer.starts_with(&format!("{mode} = 1, by ")), "{answer}");
        let answer = nodes[0].ask(&format!("get nothing {mode} hops=3 fan-out=5"));
        assert!(answer.starts_with("nothing: not found"), "{answer}");
    }
    thread::sleep(Duration::from_millis(500)); // what is still under way after the answer
    let sum = |nodes: &mut [Node], name| nodes.iter_mut().map(|node| node.count(name)).sum::<u64>();
    let (asked, again) = (sum(nodes, "asked"), sum(nodes, "asked_again"));
    let most = 2 * modes.len() as u64 * fan_out.pow(3);
    let figure = format!("{asked}, of these {again} a second time");
    let holds = asked <= most && again == 0;
    table.row(&format!("{what}, questions"), &figure, &format!("at most {most}, 0"), holds);
}

fn copies(table: &mut Table, configuration: &[&str]) {
    scenarios::as_many_values_come_as_are_wanted(configuration);
    table.row("3 values, 2 wanted", "2", "2", true);
    scenarios::copies_are_kept_where_and_as_long_as_the_rule_says(configuration);
    table.row("copies where and while the rule says", "yes", "yes", true);
}

fn load(table: &mut Table, configuration: &[&str], seconds: u32) {
    let mut nodes = Node::clique(16, configuration);
    for number in 0..1_000 {
        let put = nodes[number % 16].ask(&format!("put name{number} value{number}"));
        assert_eq!(put, format!("name{number} is put"));
    }
    let (begin, modes, finds) = (Instant::now(), ["proxy", "asynch", "mix"], 200 * seconds as usize);
    let mut memory = Vec::new();
    let mut answers: Vec<String> = Vec::new();
    for find in 0..finds {
        let due = begin + Duration::from_millis(5) * u32::try_from(find).unwrap();
        while let Some(rest) = due.checked_duration_since(Instant::now()) {
            thread::sleep(rest);
        }
        let number = find * 7 % 1_000;
        nodes[find % 16].say(&format!("get name{number} {}", modes[find % 3]));
        nodes.iter().for_each(|node| answers.extend(node.read_waiting()));
        if find % 200 == 100 && find >= finds / 2 && cfg!(target_os = "linux") {
            memory.push(nodes.iter().map(|node| node.status("VmRSS")).sum::<u64>());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while answers.len() < finds && Instant::now() < deadline {
        nodes.iter().for_each(|node| answers.extend(node.read_waiting()));
        thread::sleep(Duration::from_millis(10));
    }
    let right = answers.iter().filter(|line| {
        let (name, value) = line.split_once(" = value").unwrap_or(("", "?"));
        name.strip_prefix("name") == value.split_once(',').map(|(number, _)| number)
    });
    let right = right.count();
    let mut times: Vec<Duration> = answers.iter().map(|line| took(line)).collect();
    times.sort_unstable();
    let share = right as f64 * 100.0 / finds as f64;
    let figure = format!("{right} of {finds}");
    table.row("16 nodes, 200 finds/s, right answers", &figure, "at least 99.9 %", share >= 99.9);
    table.times("16 nodes, 200 finds/s, p50", times[times.len() / 2], Duration::from_millis(100));
    table.times("16 nodes, 200 finds/s, p99", times[times.len() * 99 / 100], Duration::from_millis(100));
    if let (Some(least), Some(most)) = (memory.iter().min(), memory.iter().max()) {
        let figure =
            format!("{:.1} to {:.1} MiB", *least as f64 / 1024.0 / 16.0, *most as f64 / 1024.0 / 16.0);
        table.row("16 nodes, memory of one, second half", &figure, "within 10 %", *most * 10 <= *least * 11);
    }
}

fn killed(table: &mut Table, configuration: &[&str]) {
    let mut nodes = Node::line(3, configuration);
    nodes[2].signal("-STOP"); // so that its neighbour keeps waiting
    for number in 0..50 {
        nodes[0].say(&format!("get name{number}"));
    }
    nodes[1].wait_for_count("asked", 50);
    let waiting = nodes[1].count("waiting");
    nodes[1].signal("-KILL");
    let worst = (0..50).map(|_| took(&nodes[0].read())).max().unwrap();
    table.times(
        &format!("proxy killed with {waiting} queries, answers in"),
        worst,
        LIFETIME + Duration::from_millis(500),
    );
}

fn hostile(table: &mut Table, configuration: &[&str]) {
    let worst = attacks::a_recorded_exchange_opens_no_door(configuration);
    table.times("replays: refused, state gone in", worst, Duration::from_secs(5));
    attacks::who_answers_for_another_is_refused(configuration);
    table.row("relayed answer", "refused", "refused", true);
    scenarios::what_its_author_has_not_signed_goes_nowhere(configuration);
    table.row("forged value", "neither stored nor forwarded", "", true);
}

fn onion_message(table: &mut Table, configuration: &[&str]) {
    let time = onion::four_nodes_between_see_nothing_but_their_neighbours(configuration);
    table.times("onion message over 4 nodes, answered in", time, Duration::from_millis(200));
    table.row("4 captures: text, strangers' addresses", "neither", "neither", true);
}

/// Of a query, unless a node is told otherwise.
const LIFETIME: Duration = Duration::from_secs(2);
