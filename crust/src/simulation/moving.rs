//! Streams that outlive what they began on: a relay, a NAT's memory, a network.

use std::time::{Duration, Instant};

use transport::{PathKind, testing::StreamId};

use super::{
    matrix::site,
    service::Happening,
    world::{Plan, World},
};

/// What happens to a stream in the middle of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disturbance {
    None,
    /// The NAT of that side forgets all it knows.
    Rebinding(usize),
    /// That side comes into the network of another NAT.
    Moves(usize),
    /// Both do, at once.
    BothMove,
    /// That side does while the introducer is down, which comes back three seconds later and knows nobody.
    MovesUnintroduced(usize),
    /// The introducer restarts.
    IntroducerRestarts,
    /// The relay is down for so many seconds and knows nothing then.
    RelayRestarts(u64),
    /// Nothing gets through to one side for so many seconds.
    Outage(usize, u64),
}

impl Disturbance {
    /// How long a stream may be without a byte, from the rules of the two NATs and what happens. Streams live through all of it.
    pub(super) fn longest_gap(self, pair: (&str, &str)) -> Duration {
        let lets_in = |name| matches!(name, "open" | "cone");
        let keeps_ports = |name| matches!(name, "open" | "cone" | "easy" | "cgnat");
        let names = [pair.0, pair.1];
        let followed = match self {
            Self::None | Self::IntroducerRestarts => return BARELY,
            Self::Rebinding(side) => keeps_ports(names[side]) || lets_in(names[1 - side]),
            Self::Moves(side) => lets_in(names[1 - side]),
            Self::BothMove => false,
            Self::MovesUnintroduced(side) if lets_in(names[1 - side]) => true,
            Self::MovesUnintroduced(_) => return UNINTRODUCED,
            // Only a stream that goes over it notices.
            Self::RelayRestarts(0) => return FOUND,
            Self::RelayRestarts(down) => return Duration::from_secs(down) + RELAY,
            Self::Outage(_, seconds) => {
                return Duration::from_secs(seconds) + Duration::from_secs(seconds) / 2 + FOUND;
            }
        };
        if followed { FOLLOWED } else { FOUND }
    }

    fn begin(self, world: &mut World) {
        match self {
            Self::None => {}
            Self::Rebinding(side) => world.rebind(side),
            Self::Moves(side) => world.relocate(side, site("easyrand")),
            Self::BothMove => {
                world.relocate(0, site("easyrand"));
                world.relocate(1, site("easy"));
            }
            Self::MovesUnintroduced(side) => {
                world.kill_introducer(0);
                world.relocate(side, site("easyrand"));
            }
            Self::IntroducerRestarts => world.restart_introducer(0),
            Self::RelayRestarts(_) => world.relay_is_up(false),
            Self::Outage(side, _) => world.cut(side),
        }
    }

    /// How long it lasts, and what happens then.
    fn lasts(self) -> Duration {
        match self {
            Self::MovesUnintroduced(_) => Duration::from_secs(3),
            Self::RelayRestarts(seconds) | Self::Outage(_, seconds) => Duration::from_secs(seconds),
            _ => Duration::ZERO,
        }
    }

    fn end(self, world: &mut World) {
        match self {
            Self::MovesUnintroduced(_) => world.restart_introducer(0),
            Self::RelayRestarts(_) => world.relay_is_up(true),
            Self::Outage(side, _) => world.mend(side),
            _ => {}
        }
    }
}

/// A stream between two, both ends.
pub(super) fn met(world: &mut World) -> Result<(StreamId, StreamId), String> {
    if !world.attach() {
        return Err("not attached".to_owned());
    }
    let call = world.call(PATIENCE);
    world.run(PATIENCE, |world| world.outcome(call).is_some() && world.accepted().is_some());
    let (_, outcome) = world.outcome(call).ok_or("no end of the call")?;
    let theirs = world.accepted().ok_or("nothing was accepted")?;
    Ok((outcome?.0, theirs))
}

/// Sends a block every ten milliseconds, each way, with a disturbance in the middle, and compares all; the longest time without
/// any byte. `Err` tells what was not as it must be.
pub(super) fn transfer(seed: u64, pair: (&str, &str), disturbance: Disturbance) -> Result<Duration, String> {
    let mut world = World::new(seed, &Plan::new(site(pair.0), site(pair.1)));
    let (ours, theirs) = met(&mut world)?;
    let mut transfer = Transfer::new(&world, [ours, theirs]);
    let begins = transfer.begun + Duration::from_millis(300);
    let ends = begins + disturbance.lasts();
    let (mut has_begun, mut is_over) = (false, false);
    let longest = disturbance.longest_gap(pair);
    let end = ends + Duration::from_millis(600);
    while world.now() < end {
        if !has_begun && world.now() >= begins {
            has_begun = true;
            disturbance.begin(&mut world);
        }
        if !is_over && world.now() >= ends {
            is_over = true;
            disturbance.end(&mut world);
        }
        transfer.write(&mut world);
        world.pass(Duration::from_millis(10));
        transfer.take(&mut world);
    }
    let finished = transfer.finish(&mut world);
    if finished.is_err() || transfer.gap > longest {
        let (gap, history) = (transfer.gap, world.history(begins));
        return Err(format!("no byte for {gap:?}, {longest:?} at most, {finished:?}; it began{history}"));
    }
    // An introducer that has restarted is found out to have when it is next spoken to.
    let restarted =
        matches!(disturbance, Disturbance::IntroducerRestarts | Disturbance::MovesUnintroduced(_));
    let is_attached = |world: &mut World| {
        let mut log = world.peers[1].log.iter();
        !restarted || log.any(|(at, what)| *what == Happening::Attached && *at >= ends)
    };
    if !world.run(PATIENCE, is_attached) {
        return Err(format!("not attached any more: {}", world.history(begins)));
    }
    let call = world.call(PATIENCE);
    world.run(PATIENCE, |world| world.outcome(call).is_some());
    match world.outcome(call) {
        Some((_, Ok(_))) => Ok(transfer.gap),
        other => Err(format!("the next call: {other:?}")),
    }
}

/// Blocks both ways over one stream, what of them has come, and the longest time without any.
struct Transfer {
    begun: Instant,
    ends: [StreamId; 2],
    written: usize,
    got: [Vec<u8>; 2],
    heard: [Instant; 2],
    gap: Duration,
}

impl Transfer {
    fn new(world: &World, ends: [StreamId; 2]) -> Self {
        let now = world.now();
        Self {
            begun: now,
            ends,
            written: 0,
            got: [Vec::new(), Vec::new()],
            heard: [now; 2],
            gap: Duration::ZERO,
        }
    }

    fn write(&mut self, world: &mut World) {
        let now = world.now();
        for (side, stream) in self.ends.iter().enumerate() {
            world.peers[side].node.write(now, *stream, &block(side, self.written));
        }
        self.written += 1;
    }

    fn take(&mut self, world: &mut World) {
        let now = world.now();
        for side in 0..2 {
            let new = world.peers[side].node.read(self.ends[side]);
            if !new.is_empty() {
                self.gap = self.gap.max(now.duration_since(self.heard[side]));
                self.heard[side] = now;
                self.got[side].extend(new);
            }
        }
    }

    /// Ends both directions and waits until all is there; `Err` if it is not what was sent.
    fn finish(&mut self, world: &mut World) -> Result<(), String> {
        let now = world.now();
        for (side, stream) in self.ends.iter().enumerate() {
            world.peers[side].node.finish(now, *stream);
        }
        world.run(PATIENCE, |world| {
            self.take(world);
            (0..2).all(|side| world.peers[side].node.end(self.ends[side]).is_some())
        });
        for side in 0..2 {
            let sent: Vec<u8> = (0..self.written).flat_map(|number| block(1 - side, number)).collect();
            let end = world.peers[side].node.end(self.ends[side]);
            if self.got[side] != sent || end != Some(Ok(())) {
                let (got, sent, gap) = (self.got[side].len(), sent.len(), self.gap);
                return Err(format!("{got} of {sent} bytes came to side {side}, {gap:?} apart: {end:?}"));
            }
        }
        Ok(())
    }
}

fn block(side: usize, number: usize) -> Vec<u8> {
    format!("block {number} of side {side};").repeat(20).into_bytes()
}

/// A stream that came up over a relay: how long it stays there, or `None` if it still did after that long.
pub(super) fn leave(seed: u64, pair: (&str, &str), patience: Duration) -> Result<Option<Duration>, String> {
    let mut world = World::new(seed, &Plan::new(site(pair.0), site(pair.1)));
    let (ours, theirs) = met(&mut world)?;
    let begun = world.now();
    let mut number = 0;
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    let left = world.run(patience, |world| {
        let now = world.now();
        number += 1;
        let block = block(0, number);
        world.peers[0].node.write(now, ours, &block);
        sent.extend(block);
        got.extend(world.peers[1].node.read(theirs));
        world.peers[0].node.path(ours).is_some_and(|(kind, _)| kind != PathKind::Relayed)
    });
    let took = world.now().duration_since(begun);
    let now = world.now();
    world.peers[0].node.finish(now, ours);
    world.run(PATIENCE, |world| {
        got.extend(world.peers[1].node.read(theirs));
        world.peers[1].node.end(theirs).is_some()
    });
    if got != sent {
        return Err(format!("{} of {} bytes arrived", got.len(), sent.len()));
    }
    Ok(left.then_some(took))
}

/// What is disturbed in the everyday tests, and in the thousands.
pub(super) const DISTURBANCES: [Disturbance; 13] = [
    Disturbance::None,
    Disturbance::Rebinding(0),
    Disturbance::Rebinding(1),
    Disturbance::Moves(0),
    Disturbance::Moves(1),
    Disturbance::BothMove,
    Disturbance::MovesUnintroduced(0),
    Disturbance::MovesUnintroduced(1),
    Disturbance::IntroducerRestarts,
    Disturbance::RelayRestarts(0),
    Disturbance::RelayRestarts(3),
    Disturbance::Outage(0, 3),
    Disturbance::Outage(1, 10),
];

/// The pairs whose streams are disturbed.
pub(super) const PAIRS: [(&str, &str); 5] =
    [("easy", "easy"), ("easyrand", "cgnat"), ("open", "hard"), ("cone", "easy"), ("hard", "hard")];

#[test]
fn a_stream_outlives_moves_restarts_and_outages() {
    let mut surprises = Vec::new();
    for disturbance in DISTURBANCES {
        for pair in PAIRS {
            let outcome = transfer(1, pair, disturbance);
            surprises.extend(outcome.err().map(|why| format!("{pair:?} {disturbance:?}: {why}")));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

/// One again, as a surprise names it: `DISTURB='easy:easy 3' SEED=1`, the number that of the disturbance.
#[test]
fn one_transfer() {
    let what = std::env::var("DISTURB").unwrap_or_else(|_| "easy:easy 0".to_owned());
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (pair, number) = what.split_once(' ').unwrap();
    let disturbance = DISTURBANCES[number.parse::<usize>().unwrap()];
    let outcome = transfer(seed, pair.split_once(':').unwrap(), disturbance);
    println!("{pair} {disturbance:?} seed {seed}: {outcome:?}");
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// The command that runs one again.
pub(super) fn again(seed: u64, pair: (&str, &str), disturbance: Disturbance) -> String {
    let number = DISTURBANCES.iter().position(|known| *known == disturbance).unwrap_or_default();
    let (a, b) = pair;
    format!(
        "DISTURB='{a}:{b} {number}' SEED={seed} cargo test -p crust --lib simulation::moving::one_transfer"
    )
}

#[test]
fn a_relayed_stream_moves_where_ports_are_met_and_loses_nothing() {
    for pair in [("hard", "easy"), ("easy", "hardad")] {
        let outcome = leave(1, pair, Duration::from_secs(60));
        assert!(matches!(outcome, Ok(Some(_))), "{pair:?}: {outcome:?}");
    }
    let stays = leave(1, ("hard", "hard"), Duration::from_secs(20));
    assert!(matches!(stays, Ok(None)), "{stays:?}");
}

const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing that a stream goes by has changed.
const BARELY: Duration = Duration::from_millis(300);
/// A host that moves is seen within a round trip, and one whose NAT forgot it when it next sends; a way that is dead is known as one
/// after some seconds.
const FOLLOWED: Duration = Duration::from_secs(3);
/// Found to be cut off, introduced anew and punched for, or met over a relay.
const FOUND: Duration = Duration::from_secs(8);
/// An introducer is asked again at most two seconds after it is back.
const UNINTRODUCED: Duration = Duration::from_secs(20);
/// An attempt that began when no relay answered goes on for fifteen seconds, and the next one asks for an address anew.
const RELAY: Duration = Duration::from_secs(20);
