use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crust_examples::mesh::{Costs, Line, Loaded, Process, Processes};

use crate::judge::{Judge, down, downs, now, p99, pairs, since};

/// Starts all within a second, in an order and at times that nobody has chosen; each learns of the others as they come.
pub(crate) fn load(judge: &mut Judge) {
    let mut commands = judge.commands();
    let chance = || usize::try_from(RandomState::new().hash_one(0) % 1_000).unwrap();
    let mut order: Vec<(usize, Command)> = commands.drain(..).map(|command| (chance(), command)).collect();
    order.sort_by_key(|(at, _)| *at);
    let (begin, mut last) = (Instant::now(), 0);
    let mut group = Processes::start(order.into_iter().map(|(millis, command)| {
        let due = begin + Duration::from_millis(millis as u64);
        thread::sleep(due.saturating_duration_since(Instant::now())); // nodes start when they start
        last = now();
        command
    }))
    .unwrap();
    let full = group.wait_until_full().unwrap();
    judge.within(
        "full mesh, after the last of all has started",
        &[since(last, full)],
        Duration::ZERO,
        secs(2.0),
    );
    connections(judge, &group);

    let costs = |group: &Processes| group.nodes.iter().map(|node| Costs::of(node.id())).collect::<Vec<_>>();
    let (begin, before) = (Instant::now(), costs(&group));
    let time = judge.scale.load;
    group.tell(&format!("load {}", time.as_secs())).unwrap();
    thread::sleep(time); // what it costs meanwhile is what is measured
    let (took, after) = (begin.elapsed(), costs(&group));
    let loaded = group.wait_for_load(0..judge.scale.nodes, time).unwrap();
    let reports = group.end().unwrap();

    ledger(judge, &loaded);
    judge.nothing_lost("under load", &reports, None);
    let unequal = pairs(&reports, None).into_iter().filter(|(_, _, pair)| {
        let all = pair.traffic;
        (all.written, all.read) != (all.stack_sent, all.stack_received) || all.written == 0
    });
    let unequal = unequal.count();
    judge.fact("pairs whose bytes the stack counts otherwise", &unequal.to_string(), "0", unequal == 0);
    let p99 = p99(&reports, None);
    judge.undisturbed = Some(p99);
    judge.figure("p99 under load", &millis(p99), "<= 20 ms", p99 <= 20_000);
    let spent =
        |(before, after): (&Costs, &Costs)| (after.processor_time - before.processor_time).as_secs_f64();
    let processor = 100.0 * before.iter().zip(&after).map(spent).sum::<f64>() / took.as_secs_f64();
    judge.figure("processor, all nodes", &format!("{processor:.0} % of one"), "<= 120 %", processor <= 120.0);
}

/// Hello and acknowledgement, each once from each to each.
fn ledger(judge: &mut Judge, loaded: &[Loaded]) {
    let all: Vec<[u64; 4]> = loaded
        .iter()
        .flat_map(|loaded| loaded.ledger.values())
        .map(|all| [all.hellos_sent, all.hellos_received, all.acks_sent, all.acks_received])
        .collect();
    let sum = all.iter().fold([0; 4], |sum, one| std::array::from_fn(|place| sum[place] + one[place]));
    let once = all.iter().all(|one| *one == [1; 4]);
    let wanted = judge.scale.nodes as u64 * (judge.scale.nodes as u64 - 1);
    judge.fact(
        "hellos and acks, sent and received",
        &format!("{sum:?}, each once: {once}"),
        &format!("{wanted} each"),
        sum == [wanted; 4] && once,
    );
}

/// Each pair shares one stream: both ends of it are sockets of this machine.
fn connections(judge: &mut Judge, group: &Processes) {
    let Ok(output) = Command::new("ss").args(["-Htn", "state", "established"]).output() else {
        return println!("NOT RUN: connections of the mesh: ss is not there");
    };
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    let ports: BTreeSet<String> =
        group.nodes.iter().filter_map(|node| port(node.endpoint().split('?').next()?)).collect();
    let output = String::from_utf8(output.stdout).unwrap();
    let ours = output
        .lines()
        .filter(|line| line.split_whitespace().filter_map(port).any(|port| ports.contains(&port)));
    let (ours, nodes) = (ours.count(), judge.scale.nodes);
    let wanted = nodes * (nodes - 1);
    judge.fact("established sockets by ss", &ours.to_string(), &wanted.to_string(), ours == wanted);
}

/// One node is stopped while all send; the others go on, give it up, and take it back when it wakes.
pub(crate) fn stopped(judge: &mut Judge) {
    let mut group = Processes::start(judge.commands()).unwrap();
    let time = judge.scale.load.max(judge.scale.fault_after + judge.scale.timeout);
    let last = judge.scale.nodes - 1;
    let name = format!("n{last}");
    group.tell(&format!("load {}", time.as_secs())).unwrap();
    thread::sleep(judge.scale.fault_after); // while they work
    let memory = |group: &Processes| -> Vec<u64> {
        group.nodes[..last].iter().map(|node| Costs::of(node.id()).resident_bytes).collect()
    };
    let before = memory(&group);
    let begin = now();
    group.nodes[last].signal("-STOP").unwrap();
    let mut growth = 0;
    let watched = Instant::now();
    while watched.elapsed() < judge.scale.timeout {
        thread::sleep(Duration::from_millis(100)); // from look to look
        let grown = memory(&group).into_iter().zip(&before).map(|(now, before)| now.saturating_sub(*before));
        growth = growth.max(grown.max().unwrap_or(0));
    }
    let found: Vec<(u64, String)> = group.nodes[..last].iter_mut().map(|node| down(node, &name)).collect();
    let loaded = group.wait_for_load(0..last, time).unwrap();
    let slowest = loaded.iter().map(|loaded| loaded.slowest_send).max().unwrap();
    let silent = found.iter().filter(|(_, reason)| reason == "it was silent for too long").count();
    judge.fact(
        "who found the stopped node silent",
        &silent.to_string(),
        &format!("{last} nodes"),
        silent == last,
    );
    let times: Vec<Duration> = found.iter().map(|(at, _)| since(begin, *at)).collect();
    let (timeout, margin) = (judge.scale.timeout, secs(0.5));
    judge.within("the stopped node is declared dead after", &times, timeout - margin, timeout + margin);
    let others: Vec<String> =
        group.nodes[..last].iter_mut().flat_map(downs).filter(|peer| *peer != name).collect();
    judge.fact("others declared dead", &format!("{others:?}"), "[]", others.is_empty());

    let marks: Vec<usize> = group.nodes.iter_mut().map(|node| node.said().len()).collect();
    group.nodes[last].signal("-CONT").unwrap();
    for (node, mark) in group.nodes.iter_mut().zip(marks) {
        node.wait_for_peers(mark, last).unwrap();
    }
    let reports = group.end().unwrap();
    judge.nothing_lost("among the others", &reports, Some(&name));
    let p99 = p99(&reports, Some(&name));
    let bar = 2 * judge.undisturbed.unwrap_or(0);
    judge.figure(
        "p99 among the others",
        &millis(p99),
        &format!("<= {}, twice that", millis(bar)),
        p99 <= bar,
    );
    let figure = format!("{:.1} MiB", growth as f64 / f64::from(1 << 20));
    judge.figure("memory of another, most growth", &figure, "<= 16 MiB", growth <= 16 << 20);
    judge.figure("slowest send, which never waits", &millis(slowest), "<= 20 ms", slowest <= 20_000);
}

/// A node sleeps for a second under load; then another dies, and comes back under its name.
pub(crate) fn paused_and_killed(judge: &mut Judge) {
    let key =
        std::env::temp_dir().join(format!("crust-mesh-{}-{}.pem", std::process::id(), judge.threads(2)));
    let mut commands = judge.commands();
    commands[2].arg("--key").arg(&key);
    let mut group = Processes::start(commands).unwrap();
    let time = judge.scale.load;
    group.tell(&format!("load {}", time.as_secs())).unwrap();
    thread::sleep(judge.scale.fault_after); // while they work
    group.nodes[1].signal("-STOP").unwrap();
    thread::sleep(Duration::from_secs(1)); // the fault itself
    group.nodes[1].signal("-CONT").unwrap();
    group.wait_for_load(0..judge.scale.nodes, time).unwrap();
    let gone: Vec<String> = group.nodes.iter_mut().flat_map(downs).collect();
    judge.fact("declared dead though it slept for 1 s only", &format!("{gone:?}"), "[]", gone.is_empty());

    let marks: Vec<usize> = group.nodes.iter_mut().map(|node| node.said().len()).collect();
    let place = group.nodes[2].endpoint().split('?').next().unwrap().to_owned();
    let begin = now();
    group.nodes[2].signal("-KILL").unwrap();
    let others = |group: &mut Processes, of: fn(&mut Process, usize) -> u64| -> Vec<u64> {
        let all = group.nodes.iter_mut().zip(&marks).enumerate().filter(|(place, _)| *place != 2);
        all.map(|(_, (node, mark))| of(node, *mark)).collect()
    };
    let times = others(&mut group, |node, _| down(node, "n2").0);
    let times: Vec<Duration> = times.into_iter().map(|at| since(begin, at)).collect();
    judge.within("kill -9 is reported by all after", &times, Duration::ZERO, secs(0.5));

    let begin = now();
    let mut command = judge.command("n2");
    command.arg("--key").arg(&key).args(["--listen", &place]);
    let mut again = Process::start(&mut command).unwrap();
    let all: Vec<&str> = group.nodes.iter().map(Process::endpoint).collect();
    again.tell(&format!("peers {}", all.join(" "))).unwrap();
    let peers = judge.scale.nodes - 1;
    let mut times = vec![again.wait_for_peers(0, peers).unwrap()];
    times.extend(others(&mut group, |node, mark| {
        node.find(mark, Duration::from_secs(60), |line| match line {
            Line::Up { peer, at, .. } if peer == "n2" => Some(*at),
            _ => None,
        })
        .unwrap()
    }));
    let times: Vec<Duration> = times.into_iter().map(|at| since(begin, at)).collect();
    judge.within("restarted under its name: full mesh after", &times, Duration::ZERO, secs(2.0));
    std::fs::remove_file(key).unwrap();

    let dead = group.nodes.remove(2);
    drop(dead);
    let mut reports = group.end().unwrap();
    again.end().unwrap();
    let pairs = pairs(&reports, None);
    let wrong = pairs.iter().filter(|(_, _, pair)| (pair.lost, pair.misplaced) != (0, 0)).count();
    judge.fact("pairs that lost or repeated something in the 1 s", &wrong.to_string(), "0", wrong == 0);
    for report in &mut reports {
        report.peers.remove("n2"); // what the dead one counted is gone with it
    }
    judge.nothing_lost("among those that lived", &reports, Some("n2"));
}

/// As `/proc` tells, in groups of every size.
pub(crate) fn threads(judge: &mut Judge) {
    if !cfg!(target_os = "linux") {
        return;
    }
    for nodes in if judge.scale.full { &[4, 8, 16][..] } else { &[2, 4] } {
        let commands = (0..*nodes).map(|number| judge.command(&format!("n{number}")));
        let group = Processes::start(commands.collect::<Vec<_>>()).unwrap();
        let counts: BTreeSet<usize> = group.nodes.iter().map(|node| Costs::of(node.id()).threads).collect();
        let bar = judge.threads(*nodes);
        judge.fact(
            &format!("threads of a node of {nodes}"),
            &format!("{counts:?}"),
            &bar.to_string(),
            counts == BTreeSet::from([bar]),
        );
        group.end().unwrap();
    }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1e3)
}
