//! Introducers that die, come back and lie; peers that vanish; calls given up in every phase.

use std::time::Duration;

use super::{
    hosting::Lie,
    matrix::site,
    moving::met,
    service::Happening,
    world::{Plan, World},
};

/// What goes wrong in the course of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The first of two introducers dies so many milliseconds after the call has begun.
    IntroducerDies(u64),
    /// The first of two introducers lies.
    IntroducerLies(Lie),
    /// The caller is dropped then.
    CallerEnds(u64),
    /// The call is given up then.
    CallEnds(u64),
    /// The peer that is called is dropped then.
    CalledEnds(u64),
}

pub(super) const LIES: [Lie; 4] =
    [Lie::ChangesNotes, Lie::RepeatsNotes, Lie::VouchesForAnother, Lie::Swallows];

/// One call with a fault; `Err` tells what was not as it must be.
pub(super) fn run(seed: u64, pair: (&str, &str), fault: Fault) -> Result<(), String> {
    let plan = Plan { introducers: 2, ..Plan::new(site(pair.0), site(pair.1)) };
    let mut world = World::new(seed, &plan);
    let both = |world: &mut World| {
        let log = &world.peers[1].log;
        log.iter().filter(|(_, what)| *what == Happening::Attached).count() == 2
    };
    if !world.run(PATIENCE, both) {
        return Err("not attached to both".to_owned());
    }
    // What was learned in advance is over.
    world.pass(Duration::from_secs(5));
    let before = world.peers[1].entries();
    if let Fault::IntroducerLies(lie) = fault {
        world.introducers[0].hosting.as_mut().unwrap().lie = Some(lie);
    }
    let call = world.call(PATIENCE);
    match fault {
        Fault::IntroducerLies(_) => {}
        Fault::IntroducerDies(at) => {
            world.pass(Duration::from_millis(at));
            world.kill_introducer(0);
        }
        Fault::CallerEnds(at) => {
            world.pass(Duration::from_millis(at));
            let now = world.now();
            world.peers[0].close(now);
        }
        Fault::CallEnds(at) => {
            world.pass(Duration::from_millis(at));
            let now = world.now();
            world.peers[0].give_up(now, call);
        }
        Fault::CalledEnds(at) => {
            world.pass(Duration::from_millis(at));
            let now = world.now();
            world.peers[1].close(now);
        }
    }
    match fault {
        Fault::IntroducerDies(_) | Fault::IntroducerLies(_) => ends_well(&mut world, call)?,
        _ => drop(world.run(PATIENCE, |world| world.outcome(call).is_some())),
    }
    leaves_nothing(&mut world, fault, before)
}

/// The call comes to a stream that carries bytes both ways, by whichever introducer.
fn ends_well(world: &mut World, call: u64) -> Result<(), String> {
    world.run(PATIENCE, |world| world.outcome(call).is_some());
    let (_, outcome) = world.outcome(call).ok_or("no end of the call")?;
    let (stream, _) = outcome?;
    let now = world.now();
    world.peers[0].node.write(now, stream, b"is it you?");
    let heard = world.run(PATIENCE, |world| {
        let accepted = world.peers[1].accepted.clone();
        accepted.iter().any(|theirs| world.peers[1].node.read(*theirs) == b"is it you?")
    });
    if heard { Ok(()) } else { Err("the peer does not hear us".to_owned()) }
}

/// A minute after all streams were let go there are no timers, sockets or entries but those of before.
fn leaves_nothing(world: &mut World, fault: Fault, before: usize) -> Result<(), String> {
    for _ in 0..18 {
        drop_streams(world);
        world.pass(Duration::from_secs(5));
    }
    let left = [0, 1].map(|side| world.peers[side].entries());
    // The caller's introducers are dialled for each call; the other keeps in touch with those that live.
    let expected = match fault {
        Fault::CalledEnds(_) => 0,
        _ => before,
    };
    if left[0] != 0 || left[1] > expected {
        return Err(format!("{left:?} entries are left, {before} were there before"));
    }
    Ok(())
}

/// Lets go of all streams, those included that have come since.
fn drop_streams(world: &mut World) {
    let now = world.now();
    for side in 0..2 {
        let streams = world.peers[side].log.iter().filter_map(|(_, what)| match what {
            Happening::Connected(_, stream, _) | Happening::Accepted(stream, _) => Some(*stream),
            _ => None,
        });
        for stream in streams.collect::<Vec<_>>() {
            world.peers[side].node.drop_stream(now, stream);
        }
    }
}

/// All faults at all times, those times `step` milliseconds apart.
pub(super) fn all(step: usize) -> Vec<Fault> {
    let times = || (0..=900_u64).step_by(step);
    let mut all: Vec<Fault> = LIES.into_iter().map(Fault::IntroducerLies).collect();
    all.extend(times().map(Fault::IntroducerDies));
    all.extend(times().map(Fault::CallerEnds));
    all.extend(times().map(Fault::CallEnds));
    all.extend(times().map(Fault::CalledEnds));
    all
}

#[test]
fn faults_cost_time_and_nothing_else() {
    let mut surprises = Vec::new();
    for fault in all(150) {
        for pair in [("easy", "easy"), ("hard", "hard")] {
            surprises.extend(run(1, pair, fault).err().map(|why| format!("{pair:?} {fault:?}: {why}")));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
fn a_peer_that_is_gone_is_told_of_and_an_introducer_that_comes_back_is_found() {
    let mut world = World::new(1, &Plan::new(site("easy"), site("easy")));
    let (ours, _) = met(&mut world).unwrap();
    world.silence(1);
    let gone = world.run(Duration::from_secs(60), |world| world.peers[0].node.end(ours).is_some());
    let end = world.peers[0].node.end(ours);
    assert!(gone && matches!(end, Some(Err(_))), "{end:?}");

    let mut world = World::new(1, &Plan::new(site("easy"), site("easy")));
    assert!(world.attach());
    world.kill_introducer(0);
    let lost = |world: &mut World| world.peers[1].log.iter().any(|(_, what)| *what == Happening::Detached);
    world.restart_introducer(0);
    assert!(world.run(Duration::from_secs(90), lost), "{:?}", world.peers[1].log);
    let again = |world: &mut World| {
        let log = &world.peers[1].log;
        log.iter().filter(|(_, what)| *what == Happening::Attached).count() == 2
    };
    assert!(world.run(Duration::from_secs(90), again), "{:?}", world.peers[1].log);
    let call = world.call(PATIENCE);
    world.run(PATIENCE, |world| world.outcome(call).is_some());
    assert!(matches!(world.outcome(call), Some((_, Ok(_)))), "{:?}", world.outcome(call));
}

const PATIENCE: Duration = Duration::from_secs(20);
