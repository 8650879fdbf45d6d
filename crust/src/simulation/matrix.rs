//! Every pair of NATs: by which road a call ends, and when.

use std::time::Duration;

use nat_traversal::testing::Nat;
use transport::PathKind;

use super::world::{Plan, Site, World};

pub(super) const SITES: [Site; 9] = [
    Site { name: "open", nats: &[] },
    Site { name: "cone", nats: &[Nat::cone()] },
    Site { name: "acone", nats: &[Nat::address_cone()] },
    Site { name: "easy", nats: &[Nat::easy()] },
    Site { name: "easyrand", nats: &[Nat::easy_random()] },
    Site { name: "cgnat", nats: &[Nat::easy(), Nat::easy()] },
    Site { name: "hardseq", nats: &[Nat::hard_sequential()] },
    Site { name: "hardad", nats: &[Nat::hard_by_address()] },
    Site { name: "hard", nats: &[Nat::hard()] },
];

/// What is declared of a pair of sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    /// A stream over a direct path.
    Direct,
    /// A stream over a relay, which leaves it within half a minute if ports are met by chance.
    RelayedThenDirect,
    /// A stream over a relay, where it stays.
    Relayed,
}

/// From the rules of the two NATs alone.
pub(super) fn declared(a: &str, b: &str) -> Declared {
    let random = |name| matches!(name, "hard" | "hardad");
    let counts = |name| name == "hardseq";
    let open = |name| matches!(name, "open" | "cone" | "acone");
    match () {
        () if random(a) && (random(b) || counts(b)) || random(b) && counts(a) => Declared::Relayed,
        () if random(a) && !open(b) || random(b) && !open(a) => Declared::RelayedThenDirect,
        // Each packet to somebody else, such as the relay, makes the next port another one than was foretold.
        () if counts(a) && !open(b) || counts(b) && !open(a) => Declared::RelayedThenDirect,
        () if counts(a) && b == "acone" || counts(b) && a == "acone" => Declared::RelayedThenDirect,
        () => Declared::Direct,
    }
}

pub(super) fn site(name: &str) -> Site {
    SITES.into_iter().find(|site| site.name == name).unwrap()
}

/// How a call went.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) kind: PathKind,
    pub(super) stream_after: Duration,
    /// From the call to the first byte that came back.
    pub(super) echo_after: Duration,
}

/// One call, an echo, and what was declared of it; `Err` tells the surprise.
pub(super) fn run(seed: u64, plan: &Plan) -> Result<Call, String> {
    let mut world = World::new(seed, plan);
    if !world.attach() {
        return Err(format!("not attached: {:?}", world.peers[1].log));
    }
    let begun = world.now();
    let call = world.call(PATIENCE);
    world.run(PATIENCE, |world| world.outcome(call).is_some());
    let (at, outcome) = world.outcome(call).ok_or("no end of the call")?;
    let (stream, kind) = outcome?;
    let text: Vec<u8> = (0..20_000_u32).flat_map(|number| number.to_be_bytes()).collect();
    let now = world.now();
    world.peers[0].node.write(now, stream, &text);
    world.peers[0].node.finish(now, stream);
    let mut got = Vec::new();
    let mut back = Vec::new();
    let mut echo_at = None;
    let done = world.run(PATIENCE, |world| {
        let now = world.now();
        if let Some(theirs) = world.accepted() {
            let new = world.peers[1].node.read(theirs);
            world.peers[1].node.write(now, theirs, &new);
            got.extend(new);
            if world.peers[1].node.end(theirs) == Some(Ok(())) {
                world.peers[1].node.finish(now, theirs);
            }
        }
        let new = world.peers[0].node.read(stream);
        if !new.is_empty() {
            echo_at.get_or_insert(now);
        }
        back.extend(new);
        world.peers[0].node.end(stream).is_some()
    });
    if !done || got != text || back != text {
        let end = world.peers[0].node.end(stream);
        return Err(format!("{} bytes there, {} back of {}; {end:?}", got.len(), back.len(), text.len()));
    }
    let echo_after = echo_at.unwrap_or_else(|| world.now()).duration_since(begun);
    Ok(Call { kind, stream_after: at.duration_since(begun), echo_after })
}

/// One cell; `Err` tells what was not as declared, and how to run it again.
pub(super) fn judge(seed: u64, a: Site, b: Site) -> Result<Call, String> {
    let declared = declared(a.name, b.name);
    let outcome = run(seed, &Plan::new(a, b));
    let as_declared = outcome.as_ref().is_ok_and(|call| {
        let relayed = call.kind == PathKind::Relayed;
        let by_road = match declared {
            Declared::Direct => !relayed,
            Declared::Relayed => relayed,
            // A spray may be through before the relay is.
            Declared::RelayedThenDirect => true,
        };
        by_road && call.stream_after <= SOON
    });
    if as_declared {
        return outcome;
    }
    let names = format!("{}:{}", a.name, b.name);
    Err(format!("{names}: {outcome:?}, not {declared:?}; again: {}", again(seed, a, b)))
}

/// The command that runs one cell again.
fn again(seed: u64, a: Site, b: Site) -> String {
    format!(
        "CELL={}:{} SEED={seed} cargo test -p crust --lib simulation::matrix::one_cell -- --nocapture",
        a.name, b.name
    )
}

#[test]
fn every_pair_of_nats_meets_as_declared() {
    let mut surprises = Vec::new();
    let mut runs = 0;
    for a in SITES {
        for b in SITES {
            runs += 1;
            surprises.extend(judge(1, a, b).err());
        }
    }
    assert!(surprises.is_empty(), "{} of {runs}:\n{}", surprises.len(), surprises.join("\n"));
}

#[test]
fn one_seed_replays_a_run_packet_by_packet() {
    let trace = |seed| {
        let plan = Plan { introducers: 2, ..Plan::new(site("hard"), site("easyrand")) };
        let mut world = World::new(seed, &plan);
        assert!(world.attach());
        let call = world.call(PATIENCE);
        world.run(PATIENCE, |world| world.outcome(call).is_some());
        world.pass(Duration::from_secs(3));
        (world.net.trace().len(), world.net.fingerprint())
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn one_cell() {
    let cell = std::env::var("CELL").unwrap_or_else(|_| "easy:easy".to_owned());
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (a, b) = cell.split_once(':').unwrap();
    let begun = std::time::Instant::now();
    let outcome = run(seed, &Plan::new(site(a), site(b)));
    println!("{cell} seed {seed}: {outcome:?} in {:?}", begun.elapsed());
    assert!(outcome.is_ok());
}

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(1_500);
