use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crust::{Config, ConnectOptions, Lan, Road, Scheme, Service, ServiceEvent};
use nat_lab::{Lab, Topology};

use crate::{
    again, drops, figures, forwarding, idle, leaving, moving, outage, relaying, single,
    stopping::{self, Stopped},
    transfers,
    world::{Carried, Met, World, soon},
};

/// One test: its name, and what it does.
type Case = (&'static str, fn());

const CASES: [Case; 22] = [
    ("who_was_met_is_met_again_sooner", who_was_met_is_met_again_sooner),
    ("two_homes_meet_through_holes", two_homes_meet_through_holes),
    ("on_one_network_without_the_internet_a_key_is_enough", on_one_network),
    ("what_cannot_meet_is_told_with_advice", what_cannot_meet_is_told),
    ("what_cannot_meet_meets_over_a_relay", what_cannot_meet_meets_over_a_relay),
    ("a_relayed_stream_moves_to_a_direct_path_and_loses_nothing", a_relayed_stream_moves),
    ("an_introducer_that_comes_back_is_found_again", an_introducer_that_comes_back),
    ("a_transfer_goes_on_in_another_network", transfers::a_transfer_goes_on_in_another_network),
    ("a_transfer_goes_on_between_homes_whoever_moves", transfers::a_transfer_goes_on_between_homes),
    (
        "a_transfer_goes_on_while_both_move_and_their_introducer_restarts",
        transfers::a_transfer_goes_on_while_its_introducer_restarts,
    ),
    ("a_transfer_outlives_a_router_that_forgets", transfers::a_transfer_outlives_a_router_that_forgets),
    ("a_transfer_outlives_its_relay", transfers::a_transfer_outlives_its_relay),
    ("a_transfer_outlives_an_outage_shorter_than_dead_after", transfers::a_transfer_outlives_an_outage),
    ("a_longer_outage_ends_both_ends_and_a_call_soon_succeeds", a_longer_outage_ends_both_ends),
    ("a_tcp_stream_ends_with_its_network_and_the_next_is_quick", a_tcp_stream_ends_with_its_network),
    ("who_moves_is_attached_again_and_met", who_moves_is_attached_again),
    ("a_relay_that_restarts_is_asked_for_an_address_anew", a_relay_that_restarts),
    ("who_ends_while_a_better_path_is_looked_for_leaves_nothing", drops::while_a_better_path_is_looked_for),
    ("two_that_call_each_other_have_one_stream", two_that_call_each_other),
    ("a_transfer_leaves_its_relay_when_that_dies", transfers::a_transfer_leaves_its_relay_when_that_dies),
    ("streams_outlive_a_process_that_is_stopped", streams_outlive_a_stopped_process),
    ("routers_forward_ports_to_a_service", forwarding::ports_are_forwarded),
];

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [marker, introducer] = &arguments[..]
        && marker == idle::AS_SERVICE
    {
        idle::serve(introducer);
    }
    if let [marker, rest @ ..] = &arguments[..]
        && marker == stopping::AS_PEER
    {
        stopping::serve(&rest.iter().map(String::as_str).collect::<Vec<_>>());
        return ExitCode::SUCCESS;
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [what, rest @ ..] = &words[..]
        && Lab::check().is_ok()
        && print(what, rest)
    {
        return ExitCode::SUCCESS;
    }
    nat_lab::run_cases_side_by_side("services behind NATs", Lab::check(), &CASES)
}

/// Prints a table; tells whether there is one of that name.
fn print(what: &str, rest: &[&str]) -> bool {
    let has = |wanted| rest.contains(&wanted);
    if has("trace") && what != "moves" {
        let level = tracing_subscriber::filter::LevelFilter::DEBUG;
        tracing_subscriber::fmt().with_max_level(level).with_thread_names(true).init();
    }
    let trials = rest.first().map_or(5, |trials| trials.parse().unwrap());
    let pairs: Vec<&str> = rest.iter().copied().filter(|word| word.contains(':')).collect();
    match what {
        "idle" => {
            print_idle(Duration::from_secs(rest.first().map_or(120, |seconds| seconds.parse().unwrap())))
        }
        "again" => again::print(trials),
        "moves" => {
            let words: Vec<&str> = rest.iter().skip(1).copied().filter(|word| *word != "trace").collect();
            transfers::print(trials, &words, has("trace"));
        }
        "stopped" => {
            print_stopped(Duration::from_secs(rest.first().map_or(300, |seconds| seconds.parse().unwrap())))
        }
        "leaves" => {
            let pairs: Vec<_> = pairs.iter().filter_map(|pair| pair.split_once(':')).collect();
            print_leaves(trials, if pairs.is_empty() { &LEAVING } else { &pairs });
        }
        "figures" => {
            figures::print(&figures::Order { trials, relayed: has("relayed"), in_order: has("trace"), pairs })
        }
        _ => return false,
    }
    true
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

fn two_that_call_each_other() {
    for (a, b, has_relay, roads, scheme) in [
        ("easy", "easy", false, &[Road::Punched][..], None),
        ("hard", "hard", true, &[Road::Relayed], Some(Scheme::Quic)),
        ("udpblock", "easy", false, &[Road::Punched], Some(Scheme::Tcp)),
    ] {
        let mut world = World::new(a, b);
        if has_relay {
            world.start_relay();
        }
        // Only one of two that cannot meet otherwise need have a relay.
        let services = [
            world.listening("a1"),
            if has_relay { world.without_relay("b1") } else { world.listening("b1") },
        ];
        for later in [Duration::ZERO, Duration::from_secs(2)] {
            let (took, path) = single::call_each_other(&world, &services, later);
            println!(
                "  {a}:{b}, the second {} ms later: {:.0} ms, {path:?}",
                later.as_millis(),
                millis(took)
            );
            assert!(roads.contains(&path.kind.into()), "{a}:{b}: {path:?}");
            assert!(scheme.is_none_or(|scheme| scheme == path.scheme), "{a}:{b}: {path:?}");
        }
    }
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

fn streams_outlive_a_stopped_process() {
    print_stopped(Duration::from_secs(12));
}

fn a_longer_outage_ends_both_ends() {
    let (ended, again) = outage::end_by_an_outage();
    let [first, second] = ended.map(millis);
    println!(
        "  the ends after {first:.0} and {second:.0} ms, the next stream {:.0} ms after it",
        millis(again)
    );
}

fn a_tcp_stream_ends_with_its_network() {
    let [ended, again] = moving::end_of_a_tcp_stream();
    println!("  the end after {:.0} ms, the next stream in {:.0} ms", millis(ended), millis(again));
    assert!(ended < Duration::from_secs(10) && again < Duration::from_secs(10), "{ended:?}, {again:?}");
}

fn a_relay_that_restarts() {
    let took = relaying::met_again_after_a_restart();
    println!("  the first call after the relay came back took {:.0} ms", millis(took));
}

fn who_moves_is_attached_again() {
    let took = moving::attached_again_after_a_move();
    println!("  attached again after {:.0} ms", millis(took));
    assert!(took < Duration::from_secs(15), "{took:?}");
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// How long after they came up streams leave the relay that they had to begin on, and what it carries if nobody says anything, so many
/// of each pair.
fn print_leaves(trials: usize, pairs: &[(&str, &str)]) {
    println!(
        "pair | streams | direct after p50, p95, to reach {LEFT_MS} | bytes sent meanwhile, lost | bytes that the relay carried, at most, to reach {CARRIED} | in handshakes, of checks, other | missed"
    );
    println!("--- | --- | --- | --- | --- | --- | ---");
    for (a, b) in pairs {
        let all = side_by_side(trials, || leaving::leave_the_relay(a, b));
        let silent = side_by_side(trials, || leaving::leave_in_silence(a, b));
        let after = |share| {
            let all = all.iter().flat_map(|left| left.after).chain(silent.iter().map(|(after, _)| *after));
            millis(figures::quantile(all, share).unwrap_or_default())
        };
        let bytes: u64 = all.iter().flat_map(|left| left.bytes).sum();
        let most =
            silent.iter().map(|(_, carried)| *carried).max_by_key(Carried::bytes).expect("there are some");
        let (carried, Carried { handshake, checks, rest }) = (most.bytes(), most);
        let (p50, p95) = (after(0.5), after(0.95));
        let missed = match (p95 > LEFT_MS, carried > CARRIED) {
            (false, false) => "",
            (true, false) => "!! p95",
            (false, true) => "!! carried",
            (true, true) => "!! p95, carried",
        };
        // Each run insists on it that none is lost.
        println!(
            "{a}:{b} | {trials} and {trials} silent | {p50:.0} ms, {p95:.0} ms | {bytes}, 0 | {carried} | {handshake}, {checks}, {rest} | {missed}"
        );
    }
}

/// So many runs, in laboratories of their own, twice as many at a time as there are cores.
pub(crate) fn side_by_side<T: Send>(runs: usize, run: impl Fn() -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) * 2 {
            scope.spawn(|| {
                while next.fetch_add(1, Relaxed) < runs {
                    let one = run();
                    done.lock().unwrap().push(one);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// How soon streams go on of which one side's process is stopped for so long, and each side may be silent for twice as long, or a minute.
fn print_stopped(time: Duration) {
    let all = [Stopped::Acceptor, Stopped::Dialler]
        .map(|stopped| [Scheme::Quic, Scheme::Tcp].map(|scheme| (stopped, scheme)));
    println!("  stopped for {} s | over | the first byte after it goes on, the last", time.as_secs());
    println!("  --- | --- | ---");
    thread::scope(|scope| {
        for (stopped, scheme) in all.into_iter().flatten() {
            scope.spawn(move || {
                let [first, last] =
                    stopping::outlive(stopped, scheme, time, (time * 2).max(Duration::from_secs(60)));
                println!("  {stopped:?} | {scheme} | {:.0} ms, {:.0} ms", millis(first), millis(last));
            });
        }
    });
}

/// What a service costs that waits to be called, with one introducer.
fn print_idle(time: Duration) {
    println!(
        "idle for {} s, attached by | packets sent and received at first | once it knows its NAT | threads | memory of its own | missed",
        time.as_secs()
    );
    println!("--- | --- | --- | --- | --- | ---");
    // One each 15 s, and one for where the count begins.
    let most = time.as_secs() / 15 + 1;
    let [long, short] = [120, 20].map(Duration::from_secs);
    let ways = [
        ("QUIC, the NAT forgets after 120 s", Scheme::Quic, long),
        ("QUIC, the NAT forgets after 20 s", Scheme::Quic, short),
        ("TCP", Scheme::Tcp, long),
    ];
    thread::scope(|scope| {
        for (name, scheme, lifetime) in ways {
            scope.spawn(move || {
                let idle::Idle { packets: [first, later], threads, memory_kib } =
                    idle::measure(scheme, lifetime, time);
                let is_much = [first, later].iter().any(|(sent, received)| *sent.max(received) > most);
                println!(
                    "{name} | {}, {} | {}, {} | {threads} | {:.1} MiB | {}",
                    first.0,
                    first.1,
                    later.0,
                    later.1,
                    memory_kib as f64 / 1_024.0,
                    if is_much { "!! packets" } else { "" }
                );
            });
        }
    });
}

fn patient() -> ConnectOptions {
    ConnectOptions::new().deadline(Duration::from_secs(15))
}

/// A relayed stream is direct within so many milliseconds, 95 of 100, and the relay carries so many bytes meanwhile.
const LEFT_MS: f64 = 2_000.0;
const CARRIED: u64 = 4_096;
/// Pairs for which holes can be punched once the networks let them.
const LEAVING: [(&str, &str); 4] =
    [("easy", "easy"), ("easyrand", "easyrand"), ("easy", "cgnat"), ("easy", "hard")];
