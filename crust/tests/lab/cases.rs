use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use crust::{Config, ConnectOptions, Lan, Road, Scheme, Service, ServiceEvent};
use nat_lab::{Lab, Link, Topology};

use crate::{
    idle, leaving,
    moving::{self, Sender},
    world::{Met, World, soon},
};

/// One test: its name, and what it does.
type Case = (&'static str, fn());

const CASES: [Case; 10] = [
    ("who_was_met_is_met_again_sooner", who_was_met_is_met_again_sooner),
    ("two_homes_meet_through_holes", two_homes_meet_through_holes),
    ("on_one_network_without_the_internet_a_key_is_enough", on_one_network),
    ("what_cannot_meet_is_told_with_advice", what_cannot_meet_is_told),
    ("what_cannot_meet_meets_over_a_relay", what_cannot_meet_meets_over_a_relay),
    ("a_relayed_stream_moves_to_a_direct_path_and_loses_nothing", a_relayed_stream_moves),
    ("an_introducer_that_comes_back_is_found_again", an_introducer_that_comes_back),
    ("a_transfer_goes_on_in_another_network", a_transfer_goes_on_in_another_network),
    ("a_tcp_stream_ends_with_its_network_and_the_next_is_quick", a_tcp_stream_ends_with_its_network),
    ("who_moves_is_attached_again_and_met", who_moves_is_attached_again),
];

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [marker, introducer] = &arguments[..]
        && marker == idle::AS_SERVICE
    {
        idle::serve(introducer);
    }
    if let [idle, rest @ ..] = &arguments[..]
        && idle == "idle"
        && Lab::check().is_ok()
    {
        print_idle(Duration::from_secs(rest.first().map_or(120, |seconds| seconds.parse().unwrap())));
        return ExitCode::SUCCESS;
    }
    if let [leaves, rest @ ..] = &arguments[..]
        && leaves == "leaves"
        && Lab::check().is_ok()
    {
        let trials = rest.first().map_or(5, |trials| trials.parse().unwrap());
        let pairs: Vec<_> = rest.iter().filter_map(|word| word.split_once(':')).collect();
        print_leaves(trials, if pairs.is_empty() { &LEAVING } else { &pairs });
        return ExitCode::SUCCESS;
    }
    if let [moves, rest @ ..] = &arguments[..]
        && moves == "moves"
        && Lab::check().is_ok()
    {
        print_moves(rest.first().map_or(5, |trials| trials.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    if let [figures, rest @ ..] = &arguments[..]
        && figures == "figures"
        && Lab::check().is_ok()
    {
        if rest.iter().any(|word| word == "trace") {
            let level = tracing_subscriber::filter::LevelFilter::DEBUG;
            tracing_subscriber::fmt().with_max_level(level).with_thread_names(true).init();
        }
        let trials = rest.first().map_or(5, |trials| trials.parse().unwrap());
        let pairs: Vec<_> = rest.iter().filter(|word| word.contains(':')).cloned().collect();
        print_figures(trials, rest.iter().any(|word| word == "relayed"), &pairs);
        return ExitCode::SUCCESS;
    }
    nat_lab::run_cases("services behind NATs", Lab::check(), &CASES)
}

fn two_homes_meet_through_holes() {
    let world = World::new("easy", "easy");
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let met = world.meet(("a1", &client), ("b1", &server), &patient()).unwrap();
    // Holes for UDP and for TCP are punched side by side, and either may be through first.
    assert_eq!(met.road, Road::Punched, "{met:?}");
    assert!(met.echo < Duration::from_secs(5), "{met:?}");
}

fn on_one_network() {
    let lab = Topology::pair("easy", "easy").unwrap().build().unwrap();
    let start = |host: &str, config: Config| {
        lab.node(host).enter(|| Service::new_from_config(config.lan(Lan::On)).unwrap())
    };
    let (mut server, client) = (start("a1", Config::new()), start("a2", Config::new().listen([])));
    lab.node("a1").enter(|| server.beacon_state.set_enabled(true).unwrap());
    let key = server.controller.public_key();
    let begun = Instant::now();
    let stream = lab.node("a2").enter(|| client.controller.connect(key)).unwrap();
    let took = begun.elapsed();
    assert_eq!(Road::from(stream.path().kind), Road::Lan);
    // 100 ms are promised where cores are free.
    assert!(took < Duration::from_secs(2), "{took:?}");
    println!("  {:.0} ms from the call to the stream", took.as_secs_f64() * 1e3);
}

fn what_cannot_meet_is_told() {
    let world = World::new("hard", "hard");
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let options = ConnectOptions::new().deadline(Duration::from_secs(4));
    let contact = world.lab.node("b1").enter(|| server.controller.contact().unwrap());
    let dial = || client.controller.connect_with(contact, &options).unwrap_err();
    let begun = Instant::now();
    let error = world.lab.node("a1").enter(dial);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let trace = error.trace().to_string();
    assert!(trace.contains("a relay would help"), "{trace}");
}

fn what_cannot_meet_meets_over_a_relay() {
    let mut world = World::new("hard", "hard");
    world.start_relay();
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let met = world.meet(("a1", &client), ("b1", &server), &patient()).unwrap();
    assert_eq!((met.road, met.scheme), (Road::Relayed, Scheme::Quic), "{met:?}");
    println!("  {met:?}");
}

fn a_relayed_stream_moves() {
    let leaving::Left { after, bytes } = leaving::leave_the_relay("easy", "easy");
    println!(
        "  direct after {:.0} and {:.0} ms; {} and {} bytes sent meanwhile, none lost",
        millis(after[0]),
        millis(after[1]),
        bytes[0],
        bytes[1]
    );
    // Far from the promised 2 s, for machines whose cores are all busy.
    assert!(after.iter().all(|after| *after < Duration::from_secs(20)), "{after:?}");
}

fn who_was_met_is_met_again_sooner() {
    let milliseconds = |met: &Met| met.up.as_secs_f64() * 1e3;
    let world = World::new("easy", "easy");
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let [first, again] = [0, 1].map(|_| world.meet(("a1", &client), ("b1", &server), &patient()).unwrap());
    println!("  easy:easy {:.0} ms, again {:.0} ms", milliseconds(&first), milliseconds(&again));

    // By a new process each time, which knows what the last one wrote.
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new("hard", "hard");
    world.start_relay();
    let server = world.listening("b1");
    let [first, again] = [0, 1].map(|_| {
        let client = world.remembering("a1", &folder.path().join("endpoints"));
        world.meet(("a1", &client), ("b1", &server), &patient()).unwrap()
    });
    assert_eq!((first.road, again.road), (Road::Relayed, Road::Relayed));
    assert!(folder.path().join("endpoints.networks").exists(), "what worked is written down");
    println!("  hard:hard {:.0} ms, again {:.0} ms", milliseconds(&first), milliseconds(&again));

    let world = World::new("udpblock", "easy");
    let server = world.listening("b1");
    let [first, again] = [0, 1].map(|_| {
        let client = world.remembering("a1", &folder.path().join("others"));
        world.meet(("a1", &client), ("b1", &server), &patient()).unwrap()
    });
    assert_eq!((first.scheme, again.scheme), (Scheme::Tcp, Scheme::Tcp));
    println!("  udpblock:easy {:.0} ms, again {:.0} ms", milliseconds(&first), milliseconds(&again));
}

fn an_introducer_that_comes_back() {
    let mut world = World::new("easy", "easy");
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    world.stop_introducer();
    let lost = |event: &ServiceEvent| matches!(event, ServiceEvent::IntroducerLost { .. });
    while !lost(&server.controller.events().recv_deadline(soon()).unwrap()) {}
    world.start_introducer();
    assert!(server.controller.wait_attached(soon()));
    world.meet(("a1", &client), ("b1", &server), &patient()).unwrap();
}

fn a_transfer_goes_on_in_another_network() {
    for sender in [Sender::Dialler, Sender::Acceptor] {
        let gap = moving::gap_of_a_move(sender);
        println!("  {sender:?} sends: nothing came for {:.0} ms", millis(gap));
        // Far from the promised 3 s, for machines whose cores are all busy.
        assert!(gap < Duration::from_secs(15), "{sender:?}: {gap:?}");
    }
}

fn a_tcp_stream_ends_with_its_network() {
    let [ended, again] = moving::end_of_a_tcp_stream();
    println!("  the end after {:.0} ms, the next stream in {:.0} ms", millis(ended), millis(again));
    assert!(ended < Duration::from_secs(10) && again < Duration::from_secs(10), "{ended:?}, {again:?}");
}

fn who_moves_is_attached_again() {
    let took = moving::attached_again_after_a_move();
    println!("  attached again after {:.0} ms", millis(took));
    assert!(took < Duration::from_secs(15), "{took:?}");
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// How long transfers stand still when the dialler goes over to another network, so many times each.
fn print_moves(trials: usize) {
    println!("who sends | moves | data flows again p50, p95");
    println!("--- | --- | ---");
    for sender in [Sender::Dialler, Sender::Acceptor] {
        let mut gaps: Vec<Duration> = (0..trials).map(|_| moving::gap_of_a_move(sender)).collect();
        gaps.sort();
        let quantile = |q: usize| millis(gaps[(gaps.len() * q / 100).min(gaps.len() - 1)]);
        println!("{sender:?} | {trials} | {:.0} ms, {:.0} ms", quantile(50), quantile(95));
    }
}

/// How long after they came up streams leave the relay that they had to begin on, so many of each pair.
fn print_leaves(trials: usize, pairs: &[(&str, &str)]) {
    println!("pair | streams | direct after p50, p95 | bytes sent meanwhile, lost");
    println!("--- | --- | --- | ---");
    for (a, b) in pairs {
        let all: Vec<_> = (0..trials).map(|_| leaving::leave_the_relay(a, b)).collect();
        let mut after: Vec<Duration> = all.iter().flat_map(|left| left.after).collect();
        after.sort();
        let quantile = |q: usize| millis(after[(after.len() * q / 100).min(after.len() - 1)]);
        let bytes: u64 = all.iter().flat_map(|left| left.bytes).sum();
        // Each run insists on it.
        println!("{a}:{b} | {trials} | {:.0} ms, {:.0} ms | {bytes}, 0", quantile(50), quantile(95));
    }
}

/// What a service costs that waits to be called, with one introducer.
fn print_idle(time: Duration) {
    let idle::Idle { packets_sent, packets_received, threads, memory_kib } = idle::measure(time);
    let per_packet = |packets: u64| time.as_secs_f64() / packets.max(1) as f64;
    println!("idle for | seconds between packets sent, received | threads | memory of its own");
    println!("--- | --- | --- | ---");
    println!(
        "{} s | {:.0}, {:.0} | {threads} | {:.1} MiB",
        time.as_secs(),
        per_packet(packets_sent),
        per_packet(packets_received),
        memory_kib as f64 / 1_024.0
    );
}

fn patient() -> ConnectOptions {
    ConnectOptions::new().deadline(Duration::from_secs(15))
}

/// Every pair of these NATs, or the named ones such as `easy:hard`, so many times each.
fn print_figures(trials: usize, relayed: bool, pairs: &[String]) {
    println!("pair | met | to the stream p50, p95 | to the echo p50 | roads");
    println!("--- | --- | --- | --- | ---");
    for (index, a) in PROFILES.iter().enumerate() {
        for b in &PROFILES[index..] {
            if !pairs.is_empty() && !pairs.contains(&format!("{a}:{b}")) {
                continue;
            }
            let mut world =
                World::of(&Topology::pair(a, b).unwrap().links(Link::delay(Duration::from_millis(20))));
            if relayed {
                world.start_relay();
            }
            let mut met = Vec::new();
            for _ in 0..trials {
                // New ones each time, so that no connection or budget is left from the last.
                let (server, client) = (world.listening("b1"), world.dialling("a1"));
                match world.meet(("a1", &client), ("b1", &server), &patient()) {
                    Ok(one) => met.push(one),
                    Err(error) => {
                        eprintln!("{a}:{b}: {error}\n{}", error.trace());
                        for event in server.controller.events().try_iter() {
                            eprintln!("b {event:?}");
                        }
                        for event in client.controller.events().try_iter() {
                            eprintln!("a {event:?}");
                        }
                    }
                }
            }
            println!("{}", row(a, b, trials, &met));
        }
    }
}

fn row(a: &str, b: &str, trials: usize, met: &[Met]) -> String {
    let quantile = |of: fn(&Met) -> Duration, q: usize| {
        let mut all: Vec<Duration> = met.iter().map(of).collect();
        all.sort();
        all.get((all.len() * q / 100).min(all.len().saturating_sub(1)))
            .map_or_else(|| "–".to_owned(), |duration| format!("{:.0} ms", duration.as_secs_f64() * 1e3))
    };
    let mut roads: Vec<String> = met.iter().map(|met| format!("{} {}", met.road, met.scheme)).collect();
    roads.sort();
    roads.dedup();
    format!(
        "{a}:{b} | {}/{trials} | {}, {} | {} | {}",
        met.len(),
        quantile(|met| met.up, 50),
        quantile(|met| met.up, 95),
        quantile(|met| met.echo, 50),
        roads.join(", ")
    )
}

/// Pairs for which holes can be punched once the networks let them.
const LEAVING: [(&str, &str); 4] =
    [("easy", "easy"), ("easyrand", "easyrand"), ("easy", "cgnat"), ("easy", "hard")];
const PROFILES: [&str; 7] = ["open", "easy", "easyrand", "cgnat", "hard", "udpblock", "tcp443"];
