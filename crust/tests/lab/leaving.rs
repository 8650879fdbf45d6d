//! A stream that had to begin over a relay, and what becomes of it once the way between the two homes is free.

use std::{
    io::{Read as _, Write as _},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crust::{ConnectOptions, PathKind, Scheme, ServiceEvent, Stream};
use nat_lab::Lab;

use crate::{
    moving::{Sender, Transfer, connect, transfer},
    world::{Carried, World, soon},
};

/// What became of it.
pub(crate) struct Left {
    /// From `connect` to the direct path, at the dialler and at the acceptor.
    pub(crate) after: [Duration; 2],
    /// What each of the two sent, and the other got whole.
    pub(crate) bytes: [u64; 2],
}

/// Two homes whose networks lose each other's packets until the stream is up, as where a firewall has been slow. While it moves both
/// send; whatever they sent has arrived, and in order.
pub(crate) fn leave_the_relay(a: &str, b: &str) -> Left {
    let mut world = World::new(a, b);
    world.start_relay();
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    part(&world.lab, "add");
    let contact = world.lab.node("b1").enter(|| server.controller.contact().unwrap());
    let options = ConnectOptions::new().deadline(Duration::from_secs(20));
    let dialled = world.lab.node("a1").enter(|| client.controller.connect_with(contact, &options).unwrap());
    let begun = Instant::now();
    let accepted = server.acceptor.accept_deadline(soon()).unwrap();
    assert_eq!([dialled.path().kind, accepted.path().kind], [PathKind::Relayed; 2]);
    part(&world.lab, "del");
    let over = AtomicBool::new(false);
    let (after, bytes) = thread::scope(|scope| {
        let _ending = Ending(&over);
        let streams = [&dialled, &accepted];
        let writers = streams.map(|stream| scope.spawn(|| send(stream, &over)));
        let readers = streams.map(|stream| scope.spawn(move || receive(stream)));
        let after = streams.map(|stream| left(stream, begun));
        // And some more, over the new path.
        thread::sleep(Duration::from_millis(300));
        over.store(true, Relaxed);
        let sent = writers.map(|writer| writer.join().unwrap());
        let [to_dialler, to_acceptor] = readers.map(|reader| reader.join().unwrap());
        assert_eq!(sent, [to_acceptor, to_dialler]);
        (after, sent)
    });
    let improved = |event: &ServiceEvent| matches!(event, ServiceEvent::PathImproved { path, .. } if path.kind == PathKind::Punched);
    for service in [&client, &server] {
        while !improved(&service.controller.events().recv_deadline(soon()).expect("an event tells")) {}
    }
    Left { after, bytes }
}

/// The same of two who say nothing meanwhile: when it was direct at the dialler, and the bytes that the relay carried until both ends
/// had left it.
pub(crate) fn leave_in_silence(a: &str, b: &str) -> (Duration, Carried) {
    let mut world = World::new(a, b);
    world.start_relay();
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    part(&world.lab, "add");
    world.count_relayed();
    let contact = world.lab.node("b1").enter(|| server.controller.contact().unwrap());
    let options = ConnectOptions::new().deadline(Duration::from_secs(20));
    let dialled = world.lab.node("a1").enter(|| client.controller.connect_with(contact, &options).unwrap());
    let begun = Instant::now();
    part(&world.lab, "del");
    let accepted = server.acceptor.accept_deadline(soon()).unwrap();
    let [after, _] = [&dialled, &accepted].map(|stream| left(stream, begun));
    (after, world.carried())
}

/// Two that could meet at a relay only, while one of them sends: the relay dies just when there can be a hole.
pub(crate) fn death_of_a_relay(sender: Sender) -> Transfer {
    let mut world = World::new("easy", "easy");
    world.start_relay();
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    part(&world.lab, "add");
    let streams = connect(&world, ("a1", &client), ("b1", &server), Scheme::Quic);
    assert_eq!(streams.each_ref().map(|stream| stream.path().kind), [PathKind::Relayed; 2]);
    let cost = transfer(sender, &streams, || {
        world.stop_relay();
        part(&world.lab, "del");
    });
    assert_eq!(streams.each_ref().map(|stream| stream.path().kind), [PathKind::Punched; 2]);
    cost
}

/// Has each home's router throw away what is for the other home, or do so no more.
pub(crate) fn part(lab: &Lab, verb: &str) {
    for (router, other) in [("ra", OTHER_OF_A), ("rb", OTHER_OF_B)] {
        let namespace = lab.node(router).namespace().to_owned();
        let line = format!("-n {namespace} route {verb} blackhole {other}");
        let status = Command::new("ip").args(line.split(' ')).status().unwrap();
        assert!(status.success(), "ip {line}");
    }
}

/// Waits until the stream goes without the relay.
fn left(stream: &Stream, begun: Instant) -> Duration {
    // A spray may need more than one attempt.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut path = stream.path();
    while path.kind == PathKind::Relayed {
        path = stream.wait_path_change(&path, deadline).expect("it leaves the relay");
    }
    assert_eq!(path.kind, PathKind::Punched);
    begun.elapsed()
}

/// Has the senders end however the test does.
struct Ending<'o>(&'o AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Sends numbers in order until it is over; how many bytes.
fn send(mut stream: &Stream, over: &AtomicBool) -> u64 {
    let mut numbers = 0_u64..;
    let mut sent = 0;
    while !over.load(Relaxed) {
        let block: Vec<u8> = numbers.by_ref().take(BLOCK_NUMBERS).flat_map(u64::to_be_bytes).collect();
        stream.write_all(&block).unwrap();
        sent += block.len() as u64;
        // A pace that a relay on two busy cores carries.
        thread::sleep(Duration::from_millis(5));
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    sent
}

/// Takes numbers until the end, none of which may be missing; how many bytes.
fn receive(mut stream: &Stream) -> u64 {
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let mut received = 0;
    let mut block = vec![0; BLOCK_NUMBERS * 8];
    loop {
        match stream.read(&mut block[..1]).unwrap() {
            0 => return received,
            _ => stream.read_exact(&mut block[1..]).unwrap(),
        }
        for (number, bytes) in (received / 8..).zip(block.chunks_exact(8)) {
            assert_eq!(bytes, number.to_be_bytes(), "in order, and none is missing");
        }
        received += block.len() as u64;
    }
}

const OTHER_OF_A: &str = "192.0.2.2/32";
const OTHER_OF_B: &str = "198.51.100.2/32";
const BLOCK_NUMBERS: usize = 128;
