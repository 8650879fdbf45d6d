//! Two that dial each other at the same time: one connection, and every byte.

use std::time::Duration;

use nat_traversal::{
    protocol::{Random, Seed},
    testing::Link,
};
use transport::testing::StreamId;

use super::{
    matrix::site,
    service::Happening,
    world::{Plan, World},
};

/// Several dials of each side, at times that the seed draws. `Err` tells what was not as it must be.
pub(super) fn run(seed: u64) -> Result<(), String> {
    let mut random = Random::new(Seed::from(seed).derive("dials"));
    let mut below = |end: u64| random.below(end);
    // From exactly at once to one after the other; the roads differ, and may reorder or lose.
    let spread = [1, 10, 60, 250][usize::try_from(below(4)).unwrap()];
    let jitter = Duration::from_millis([0, 0, 5, 40][usize::try_from(below(4)).unwrap()]);
    let loss = [0.0, 0.0, 0.02, 0.1][usize::try_from(below(4)).unwrap()];
    let link = Link::delay(Duration::from_millis(1 + below(60))).jitter(jitter).loss(loss);
    let mut dials: Vec<(u64, usize)> = Vec::new();
    for side in 0..2 {
        for _ in 0..=below(3) {
            dials.push((below(spread), side));
        }
    }
    dials.sort_unstable();
    let plan = Plan { link, relay: false, introducers: 0, ..Plan::new(site("open"), site("open")) };
    let mut world = World::new(seed, &plan);
    let mut passed = 0;
    let mut calls = [Vec::new(), Vec::new()];
    for (at, side) in dials {
        world.pass(Duration::from_millis(at - passed));
        passed = at;
        let (now, peer, addr) = (world.now(), world.key(1 - side), world.peers[1 - side].local);
        calls[side].push(world.peers[side].connect(now, peer, &[addr], PATIENCE));
    }
    let ended = |world: &World, side: usize| {
        let log = &world.peers[side].log;
        let over = |what: &Happening| matches!(what, Happening::Connected(..) | Happening::NotConnected(..));
        log.iter().filter(|(_, what)| over(what)).count()
    };
    let all = |world: &mut World| {
        let accepted = |side: usize| world.peers[side].accepted.len() == calls[1 - side].len();
        (0..2).all(|side| ended(world, side) == calls[side].len() && accepted(side))
    };
    if !world.run(PATIENCE, all) {
        return Err(format!("not all met: {:?} and {:?}", world.peers[0].log, world.peers[1].log));
    }
    check_bytes(&mut world)?;
    // What came up beside it and was left has said farewell by now.
    let one =
        |world: &mut World| (0..2).all(|side| world.peers[side].node.connections(world.key(1 - side)) == 1);
    if !world.run(PATIENCE, one) {
        let count = [0, 1].map(|side| world.peers[side].node.connections(world.key(1 - side)));
        let again = [0, 1].map(|side| world.peers[side].node.dials_begun_again());
        return Err(format!("{count:?} connections are left, {again:?} dials were begun again"));
    }
    check_bytes(&mut world)
}

/// Sends a line by every stream that was dialled and one back, and compares.
fn check_bytes(world: &mut World) -> Result<(), String> {
    for side in 0..2 {
        let dialled: Vec<StreamId> = world.peers[side]
            .log
            .iter()
            .filter_map(|(_, what)| match what {
                Happening::Connected(_, stream, _) => Some(*stream),
                _ => None,
            })
            .collect();
        let accepted = world.peers[1 - side].accepted.clone();
        let now = world.now();
        for (number, stream) in dialled.iter().enumerate() {
            world.peers[side].node.write(now, *stream, &line(number));
        }
        let mut there = vec![Vec::new(); accepted.len()];
        let mut back = vec![Vec::new(); dialled.len()];
        let whole = |world: &mut World| {
            let now = world.now();
            for (got, stream) in there.iter_mut().zip(&accepted) {
                let new = world.peers[1 - side].node.read(*stream);
                world.peers[1 - side].node.write(now, *stream, &new);
                got.extend(new);
            }
            for (got, stream) in back.iter_mut().zip(&dialled) {
                got.extend(world.peers[side].node.read(*stream));
            }
            back.iter().enumerate().all(|(number, got)| *got == line(number))
        };
        if !world.run(PATIENCE, whole) {
            return Err(format!("bytes are missing: {there:?} there, {back:?} back"));
        }
        there.sort();
        let mut sent: Vec<_> = (0..dialled.len()).map(line).collect();
        sent.sort();
        if there != sent {
            return Err(format!("{there:?} arrived"));
        }
    }
    Ok(())
}

fn line(number: usize) -> Vec<u8> {
    format!("this is stream {number}").repeat(40).into_bytes()
}

#[test]
fn two_that_dial_each_other_have_one_connection_and_lose_nothing() {
    let only = std::env::var("SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = only.map_or(0..40, |seed| seed..seed + 1);
    let again = "cargo test -p crust --lib simulation::together";
    let surprises: Vec<String> = seeds
        .filter_map(|seed| run(seed).err().map(|why| format!("{why}\n  again: SEED={seed} {again}")))
        .collect();
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

const PATIENCE: Duration = Duration::from_secs(30);
