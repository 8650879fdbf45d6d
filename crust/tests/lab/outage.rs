//! Networks that carry nothing for a while.

use std::{
    io::Read as _,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crust::{ConnectOptions, Scheme, Stream, StreamError};
use nat_lab::Lab;

use crate::{
    moving::{Sender, Transfer, connect, transfer},
    world::World,
};

/// What a peer may be silent for, in these tests.
const DEAD_AFTER: Duration = Duration::from_secs(6);

/// Two homes between which nothing passes for as long, in the midst of a transfer.
pub(crate) fn outage(time: Duration, sender: Sender) -> Transfer {
    assert!(time < DEAD_AFTER);
    let world = World::new("easy", "easy").dead_after(DEAD_AFTER);
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let streams = connect(&world, ("a1", &client), ("b1", &server), Scheme::Quic);
    transfer(sender, &streams, || {
        cut(&world.lab, "add");
        thread::sleep(time);
        cut(&world.lab, "del");
    })
}

/// The same for longer than a peer may be silent: how long until each side knows it, and how long a call takes once packets pass again.
pub(crate) fn end_by_an_outage() -> ([Duration; 2], Duration) {
    let world = World::new("easy", "easy").dead_after(DEAD_AFTER);
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let streams = connect(&world, ("a1", &client), ("b1", &server), Scheme::Quic);
    let contact = world.lab.node("b1").enter(|| server.controller.contact().unwrap());
    cut(&world.lab, "add");
    let begun = Instant::now();
    let (give, ends) = mpsc::channel();
    let ended = thread::scope(|scope| {
        for stream in &streams {
            let give = give.clone();
            scope.spawn(move || give.send((lost(stream), begun.elapsed())).unwrap());
        }
        [0, 1].map(|_| {
            let (silent_for, after) = ends.recv().unwrap();
            assert!(silent_for >= DEAD_AFTER, "{silent_for:?}");
            after
        })
    });
    cut(&world.lab, "del");
    let mended = Instant::now();
    // A program that calls again and again until it is let through.
    let options = ConnectOptions::new().deadline(Duration::from_secs(5));
    loop {
        let dial = || client.controller.connect_with(&contact, &options);
        match world.lab.node("a1").enter(dial) {
            Ok(_) => return (ended, mended.elapsed()),
            Err(error) => assert!(mended.elapsed() < Duration::from_secs(30), "{}", error.trace()),
        }
    }
}

/// Waits for what does not come any more; how long the peer had been silent.
fn lost(mut stream: &Stream) -> Duration {
    stream.set_read_timeout(Some(DEAD_AFTER * 6)).unwrap();
    let end = stream.read(&mut [0]).unwrap_err();
    match StreamError::of(&end) {
        Some(StreamError::PeerLost { silent_for }) => *silent_for,
        other => panic!("{other:?}"),
    }
}

/// Has each home's router throw away all that is to leave it, or do so no more.
fn cut(lab: &Lab, verb: &str) {
    // Each narrower than the network's own route.
    let everywhere = ["192.0.2.0/27", "198.51.100.0/27", "203.0.113.0/27"];
    for router in ["ra", "rb"] {
        let namespace = lab.node(router).namespace();
        for network in everywhere {
            let line = format!("-n {namespace} route {verb} blackhole {network}");
            let status = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(status.success(), "ip {line}");
        }
    }
}
