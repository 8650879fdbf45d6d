//! A host that goes over to another network in the midst of a transfer.

use std::{
    io::{Read as _, Write as _},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crust::{Config, ConnectOptions, Lan, Scheme, Service, ServiceEvent, Stream, StreamError};
use nat_lab::{Lab, Link, Site, Topology, parse_nats};

use crate::world::{World, soon};

/// Who sends while the dialler moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Dialler,
    Acceptor,
}

/// Three homes; the host `a1` can go over from the first to the last.
pub(crate) fn world() -> World {
    let home = || Site::new(parse_nats("easy").unwrap());
    let link = Link::delay(Duration::from_millis(20));
    let world = World::of(&Topology::new().site(home()).site(home()).site(home()).links(link));
    plug_in(&world.lab);
    world
}

/// Lays the second cable, over which nothing goes yet.
fn plug_in(lab: &Lab) {
    let (host, router) = (lab.node("a1").namespace(), lab.node("rc").namespace());
    ip(&format!("-n {host} link add eth1 type veth peer name moved netns {router}"));
    ip(&format!("-n {router} link set moved master lan up"));
    ip(&format!("-n {host} link set eth1 up"));
}

/// Takes the host over: the first address and its interface go, then the other ones come.
fn move_over(lab: &Lab) {
    let host = lab.node("a1").namespace();
    ip(&format!("-n {host} link set eth0 down"));
    ip(&format!("-n {host} addr add 192.168.3.77/24 dev eth1"));
    ip(&format!("-n {host} route add default via 192.168.3.1"));
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().unwrap();
    assert!(status.success(), "ip {line}");
}

/// The longest time in which nothing came, while one side sends and the dialler moves.
pub(crate) fn gap_of_a_move(sender: Sender) -> Duration {
    let world = world();
    let (server, client) = (world.listening("server"), world.dialling("a1"));
    let (dialled, accepted) = connect(&world, &client, &server, Scheme::Quic);
    let (writer, reader) = match sender {
        Sender::Dialler => (dialled, accepted),
        Sender::Acceptor => (accepted, dialled),
    };
    let (give, under_way) = mpsc::channel();
    let gap = thread::scope(|scope| {
        let lab = &world.lab;
        scope.spawn(move || write_blocks(&writer));
        let reading = scope.spawn(move || read_blocks(&reader, &give));
        under_way.recv().unwrap();
        move_over(lab);
        reading.join().unwrap()
    });
    let moved = |event: &ServiceEvent| {
        matches!(event, ServiceEvent::NetworkChanged { addresses }
            if addresses.contains(&"192.168.3.77".parse().unwrap()))
    };
    while !moved(&client.controller.events().recv_deadline(soon()).expect("the service notices")) {}
    gap
}

/// A read that waits on a TCP stream ends, and the next stream is there soon; how long both took.
pub(crate) fn end_of_a_tcp_stream() -> [Duration; 2] {
    let world = world();
    let (server, client) = (world.listening("server"), world.dialling("a1"));
    let (mut dialled, _accepted) = connect(&world, &client, &server, Scheme::Tcp);
    let begun = Instant::now();
    move_over(&world.lab);
    let end = dialled.read(&mut [0]).unwrap_err();
    assert!(matches!(StreamError::of(&end), Some(StreamError::AddressGone { .. })), "{end:?}");
    let ended = begun.elapsed();
    let again = Instant::now();
    connect(&world, &client, &server, Scheme::Tcp);
    [ended, again.elapsed()]
}

fn connect(world: &World, client: &Service, server: &Service, scheme: Scheme) -> (Stream, Stream) {
    let contact = world.lab.node("server").enter(|| server.controller.contact().unwrap());
    let options = ConnectOptions::new().only([scheme]).deadline(Duration::from_secs(15));
    let dial = || client.controller.connect_with(contact, &options).unwrap();
    let dialled = world.lab.node("a1").enter(dial);
    (dialled, server.acceptor.accept_deadline(soon()).unwrap())
}

fn write_blocks(mut stream: &Stream) {
    for number in 0..BLOCKS {
        stream.write_all(&block(number)).unwrap();
        // A sender with a pace of its own, so that a gap shows.
        thread::sleep(PACE);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // Its end must not overtake what it wrote.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = stream.read(&mut [0]);
}

fn read_blocks(mut stream: &Stream, under_way: &mpsc::Sender<()>) -> Duration {
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for number in 0..BLOCKS {
        let mut got = [0; BLOCK_BYTES];
        stream.read_exact(&mut got).unwrap();
        assert!(got == block(number), "block {number} is another one");
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if number == BLOCKS / 4 {
            under_way.send(()).unwrap();
        }
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "nothing comes after the last block");
    longest
}

fn block(number: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    for (part, word) in block.chunks_exact_mut(8).zip(number * 1_000..) {
        part.copy_from_slice(&word.to_be_bytes());
    }
    block
}

/// The introducer's restart, seen by a service whose configuration names it: how long until it is attached again.
pub(crate) fn attached_again_after_a_move() -> Duration {
    let world = world();
    let config = Config::new().lan(Lan::Off).introducers(world.places.clone());
    let service = world.lab.node("a1").enter(|| Service::new_from_config(config).unwrap());
    assert!(service.controller.wait_attached(soon()));
    let events = service.controller.events();
    while events.try_recv().is_ok() {}
    let begun = Instant::now();
    move_over(&world.lab);
    let attached = |event: &ServiceEvent| matches!(event, ServiceEvent::IntroducerAttached { .. });
    while !attached(&events.recv_deadline(soon()).expect("it is attached again")) {}
    let took = begun.elapsed();
    // Who looks for it finds it there, though both are behind NATs.
    let client = world.dialling("b1");
    world
        .meet(("b1", &client), ("a1", &service), &ConnectOptions::new().deadline(Duration::from_secs(20)))
        .unwrap();
    took
}

const BLOCK_BYTES: usize = 1_024;
const BLOCKS: u64 = 800;
const PACE: Duration = Duration::from_millis(5);
