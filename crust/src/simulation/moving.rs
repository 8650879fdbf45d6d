//! Streams that outlive what they began on: a relay, a NAT's memory, a network.

use std::time::Duration;

use transport::{PathKind, testing::StreamId};

use super::{
    matrix::site,
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
}

/// What is declared of a stream that was disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    /// It goes on, and no byte is lost.
    Lives,
    /// It may end, since both sides keep strangers out and neither knows where the other is now; then both are told, what came is
    /// what was sent so far, and the next call leads to a stream.
    MayEnd,
}

/// From the rules of the two NATs alone.
pub(super) fn declared(pair: (&str, &str), disturbance: Disturbance) -> Declared {
    let lets_in = |name| matches!(name, "open" | "cone");
    let keeps_ports = |name| matches!(name, "open" | "cone" | "easy" | "cgnat");
    let names = [pair.0, pair.1];
    let lives = match disturbance {
        Disturbance::None => true,
        Disturbance::Rebinding(side) => keeps_ports(names[side]) || lets_in(names[1 - side]),
        Disturbance::Moves(side) => lets_in(names[1 - side]),
    };
    if lives { Declared::Lives } else { Declared::MayEnd }
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
    let ends = [ours, theirs];
    let mut got = [Vec::new(), Vec::new()];
    let mut heard = [world.now(); 2];
    let mut gap = Duration::ZERO;
    for number in 0..BLOCKS {
        if number == BLOCKS / 3 {
            match disturbance {
                Disturbance::None => {}
                Disturbance::Rebinding(side) => world.rebind(side),
                Disturbance::Moves(side) => world.relocate(side, site("easyrand")),
            }
        }
        let now = world.now();
        for (side, stream) in ends.iter().enumerate() {
            world.peers[side].node.write(now, *stream, &block(side, number));
        }
        world.pass(Duration::from_millis(10));
        take(&mut world, ends, &mut got, &mut heard, &mut gap);
    }
    let now = world.now();
    for (side, stream) in ends.iter().enumerate() {
        world.peers[side].node.finish(now, *stream);
    }
    world.run(PATIENCE, |world| {
        take(world, ends, &mut got, &mut heard, &mut gap);
        (0..2).all(|side| world.peers[side].node.end(ends[side]).is_some())
    });
    for side in 0..2 {
        let sent: Vec<u8> = (0..BLOCKS).flat_map(|number| block(1 - side, number)).collect();
        let end = world.peers[side].node.end(ends[side]);
        let is_whole = got[side] == sent && end == Some(Ok(()));
        let is_told = sent.starts_with(&got[side]) && matches!(end, Some(Err(_)));
        let as_declared = match declared(pair, disturbance) {
            Declared::Lives => is_whole && gap <= LONGEST_GAP,
            Declared::MayEnd => is_whole || is_told,
        };
        if !as_declared {
            let (got, sent) = (got[side].len(), sent.len());
            return Err(format!("{got} of {sent} bytes came to side {side}, {gap:?} apart: {end:?}"));
        }
    }
    let call = world.call(PATIENCE);
    world.run(PATIENCE, |world| world.outcome(call).is_some());
    match world.outcome(call) {
        Some((_, Ok(_))) => Ok(gap),
        other => Err(format!("the next call: {other:?}")),
    }
}

fn take(
    world: &mut World,
    ends: [StreamId; 2],
    got: &mut [Vec<u8>; 2],
    heard: &mut [std::time::Instant; 2],
    gap: &mut Duration,
) {
    let now = world.now();
    for side in 0..2 {
        let new = world.peers[side].node.read(ends[side]);
        if !new.is_empty() {
            *gap = (*gap).max(now.duration_since(heard[side]));
            heard[side] = now;
            got[side].extend(new);
        }
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
pub(super) const DISTURBANCES: [Disturbance; 5] = [
    Disturbance::None,
    Disturbance::Rebinding(0),
    Disturbance::Rebinding(1),
    Disturbance::Moves(0),
    Disturbance::Moves(1),
];

/// The pairs whose streams are disturbed.
pub(super) const PAIRS: [(&str, &str); 5] =
    [("easy", "easy"), ("easyrand", "cgnat"), ("open", "hard"), ("cone", "easy"), ("hard", "hard")];

#[test]
fn a_stream_outlives_what_it_can_and_else_its_end_is_told() {
    let mut surprises = Vec::new();
    for disturbance in DISTURBANCES {
        for pair in PAIRS {
            let outcome = transfer(1, pair, disturbance);
            surprises.extend(outcome.err().map(|why| format!("{pair:?} {disturbance:?}: {why}")));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
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

const BLOCKS: usize = 90;
const PATIENCE: Duration = Duration::from_secs(60);
/// A host that moves is seen within a round trip, and one whose NAT forgot it when it next sends; a way that is dead is known as one
/// after some seconds.
const LONGEST_GAP: Duration = Duration::from_secs(8);
