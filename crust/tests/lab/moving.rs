//! Hosts that go over to another network in the midst of a transfer, NATs that forget, relays that die.

use std::{
    io::{Read as _, Write as _},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crust::{
    Config, ConnectOptions, Lan, PathKind, Road, Scheme, Service, ServiceEvent, Stream, StreamError,
};
use nat_lab::{Lab, Link, Site, Topology, parse_nats};

use crate::world::{World, soon};

/// What a transfer cost in whose midst something happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    /// The longest time in which nothing came.
    pub(crate) gap: Duration,
    /// Bytes that were sent and did not arrive, or arrived out of order.
    pub(crate) lost: u64,
}

/// Who sends while something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Dialler,
    Acceptor,
}

/// Who goes over to another network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mover {
    Dialler,
    Acceptor,
    Both,
}

impl Mover {
    fn moves(self) -> &'static [Way] {
        match self {
            Self::Dialler => &WAYS[..1],
            Self::Acceptor => &WAYS[1..],
            Self::Both => &WAYS,
        }
    }
}

/// A host, the router of the home that it can go over to, and that home's number.
type Way = (&'static str, &'static str, u8);

const WAYS: [Way; 2] = [("a1", "rc", 3), ("b1", "rd", 4)];

/// Homes behind such NATs; the hosts `a1` and `b1` can go over from the first two to the others.
fn homes(nat: &str) -> World {
    let home = || Site::new(parse_nats(nat).unwrap());
    let link = Link::delay(Duration::from_millis(20));
    let homes = (0..4).fold(Topology::new(), |homes, _| homes.site(home()));
    let world = World::of(&homes.links(link));
    WAYS.iter().for_each(|way| plug_in(&world.lab, *way));
    world
}

/// Lays a second cable, over which nothing goes yet.
fn plug_in(lab: &Lab, (host, router, _): Way) {
    let (host, router) = (lab.node(host).namespace(), lab.node(router).namespace());
    ip(&format!("-n {host} link add eth1 type veth peer name moved netns {router}"));
    ip(&format!("-n {router} link set moved master lan up"));
    ip(&format!("-n {host} link set eth1 up"));
}

/// Takes a host over: the first address and its interface go, then the other ones come.
fn move_over(lab: &Lab, (host, _, home): Way) {
    let host = lab.node(host).namespace();
    ip(&format!("-n {host} addr flush dev eth0"));
    ip(&format!("-n {host} link set eth0 down"));
    ip(&format!("-n {host} addr add 192.168.{home}.77/24 dev eth1"));
    ip(&format!("-n {host} route add default via 192.168.{home}.1"));
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().unwrap();
    assert!(status.success(), "ip {line}");
}

/// One side sends and the dialler of a public host moves.
pub(crate) fn move_from_a_public_host(sender: Sender) -> Transfer {
    let world = homes("easy");
    let (server, client) = (world.listening("server"), world.dialling("a1"));
    let streams = connect(&world, ("a1", &client), ("server", &server), Scheme::Quic);
    let cost = transfer(sender, &streams, || move_over(&world.lab, WAYS[0]));
    await_move(&client, WAYS[0]);
    cost
}

/// The same between two homes, neither of which lets anybody in; one of the two moves, or both do.
pub(crate) fn move_between_homes(mover: Mover, sender: Sender) -> Transfer {
    let mut world = homes("easy");
    let client = world.dialling("a1");
    move_from(&mut world, &client, mover, sender, |_| ())
}

/// The same where an introducer calls the dialler too, so that an acceptor that moves can ask for it.
pub(crate) fn move_of_two_that_are_attached(mover: Mover, sender: Sender) -> Transfer {
    let mut world = homes("easy");
    let client = world.listening("a1");
    move_from(&mut world, &client, mover, sender, |_| ())
}

/// The acceptor moves while the dialler, which has moved, looks for it.
pub(crate) fn move_one_after_the_other(sender: Sender) -> Transfer {
    let world = homes("easy");
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let streams = connect(&world, ("a1", &client), ("b1", &server), Scheme::Quic);
    transfer(sender, &streams, || {
        move_over(&world.lab, WAYS[0]);
        // The knock, or the punch, is under way by then.
        thread::sleep(Duration::from_millis(600));
        move_over(&world.lab, WAYS[1]);
    })
}

/// Both move, and their only introducer is away for a second.
pub(crate) fn move_while_the_introducer_restarts(sender: Sender) -> Transfer {
    let mut world = homes("easy");
    let client = world.dialling("a1");
    move_from(&mut world, &client, Mover::Both, sender, |world| {
        world.stop_introducer();
        thread::sleep(RESTART);
        world.start_introducer();
    })
}

fn move_from(
    world: &mut World,
    client: &Service,
    mover: Mover,
    sender: Sender,
    meanwhile: impl FnOnce(&mut World),
) -> Transfer {
    let server = world.listening("b1");
    let streams = connect(world, ("a1", client), ("b1", &server), Scheme::Quic);
    assert_eq!(streams.each_ref().map(|stream| stream.path().kind), [PathKind::Punched; 2]);
    let cost = transfer(sender, &streams, || {
        mover.moves().iter().for_each(|way| move_over(&world.lab, *way));
        meanwhile(world);
    });
    for way in mover.moves().iter().filter(|_| cost.lost == 0) {
        // As the other side sees it.
        let (mover, other) = if way.0 == "a1" { (client, &streams[1]) } else { (&server, &streams[0]) };
        await_move(mover, *way);
        assert_eq!(other.path().remote.ip(), world.lab.node(way.1).address());
    }
    cost
}

fn await_move(service: &Service, (_, _, home): Way) {
    let there = std::net::Ipv4Addr::new(192, 168, home, 77);
    let moved = |event: &ServiceEvent| matches!(event, ServiceEvent::NetworkChanged { addresses } if addresses.contains(&there.into()));
    while !moved(&service.controller.events().recv_deadline(soon()).expect("the service notices")) {}
}

/// Two of whom one is `a1` with a router that forgets its mappings, and gives a new port to what goes out from then on.
pub(crate) fn rebinding_of_the_dialler(acceptor: &str, sender: Sender) -> Transfer {
    let world = homes("easy");
    let (server, client) = (world.listening(acceptor), world.dialling("a1"));
    let streams = connect(&world, ("a1", &client), (acceptor, &server), Scheme::Quic);
    let before = streams[1].path().remote;
    let cost = transfer(sender, &streams, || forget(&world.lab, "ra"));
    assert_ne!(streams[1].path().remote, before, "the acceptor sees another port");
    cost
}

/// The same of the acceptor's router.
pub(crate) fn rebinding_of_the_acceptor(sender: Sender) -> Transfer {
    let world = homes("easy");
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let streams = connect(&world, ("a1", &client), ("b1", &server), Scheme::Quic);
    transfer(sender, &streams, || forget(&world.lab, "rb"))
}

/// Has a home's router forget what is under way, and map to other ports from then on.
fn forget(lab: &Lab, router: &str) {
    let router = lab.node(router);
    let to = format!("{}:50000-50999", router.address());
    let rule = ["insert", "rule", "inet", "natlab", "outwards", "oifname", "wan", "meta", "l4proto", "udp"];
    let status = router.command("nft").args(rule).args(["snat", "ip", "to", &to]).status().unwrap();
    assert!(status.success(), "nft for {to}");
    router.forget_flows().unwrap();
}

/// Two that can meet at relays only lose the one that they use; another is there, lent to the acceptor. The relay may be one that
/// either asked for: whoever is the first.
pub(crate) fn death_of_a_relay(sender: Sender) -> Transfer {
    let mut world = World::new("hard", "hard");
    world.start_relay();
    world.lend_another_relay();
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let streams = connect(&world, ("a1", &client), ("b1", &server), Scheme::Quic);
    let before = streams.each_ref().map(|stream| stream.path());
    assert!(before.iter().all(|path| Road::from(path.kind) == Road::Relayed), "{before:?}");
    let cost = transfer(sender, &streams, || world.stop_relay());
    for (stream, before) in streams.iter().zip(before) {
        let path = stream.path();
        assert!(path.kind == PathKind::Relayed && path.changes > before.changes, "{path:?} after {before:?}");
    }
    cost
}

/// One side sends and something happens in the midst of it.
pub(crate) fn transfer(
    sender: Sender,
    [dialled, accepted]: &[Stream; 2],
    trouble: impl FnOnce(),
) -> Transfer {
    let (writer, reader) = match sender {
        Sender::Dialler => (dialled, accepted),
        Sender::Acceptor => (accepted, dialled),
    };
    let (give, under_way) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || write_blocks(writer));
        let reading = scope.spawn(move || read_blocks(reader, &give));
        under_way.recv().unwrap();
        trouble();
        reading.join().unwrap()
    })
}

/// A read that waits on a TCP stream ends, and the next stream is there soon; how long both took.
pub(crate) fn end_of_a_tcp_stream() -> [Duration; 2] {
    let world = homes("easy");
    let (server, client) = (world.listening("server"), world.dialling("a1"));
    let [mut dialled, _accepted] = connect(&world, ("a1", &client), ("server", &server), Scheme::Tcp);
    let begun = Instant::now();
    move_over(&world.lab, WAYS[0]);
    let end = dialled.read(&mut [0]).unwrap_err();
    assert!(matches!(StreamError::of(&end), Some(StreamError::AddressGone { .. })), "{end:?}");
    let ended = begun.elapsed();
    let again = Instant::now();
    connect(&world, ("a1", &client), ("server", &server), Scheme::Tcp);
    [ended, again.elapsed()]
}

/// The dialled end of a stream, and the accepted one.
pub(crate) fn connect(
    world: &World,
    (host, client): (&str, &Service),
    (other, server): (&str, &Service),
    scheme: Scheme,
) -> [Stream; 2] {
    let contact = world.lab.node(other).enter(|| server.controller.contact().unwrap());
    let options = ConnectOptions::new().only([scheme]).deadline(Duration::from_secs(15));
    let dial = || client.controller.connect_with(contact, &options).unwrap();
    let dialled = world.lab.node(host).enter(dial);
    [dialled, server.acceptor.accept_deadline(soon()).unwrap()]
}

fn write_blocks(mut stream: &Stream) {
    for number in 0..BLOCKS {
        if stream.write_all(&block(number)).is_err() {
            // The reader says what is missing.
            return;
        }
        // A sender with a pace of its own, so that a gap shows.
        thread::sleep(PACE);
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    // Its end must not overtake what it wrote.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = stream.read(&mut [0]);
}

fn read_blocks(mut stream: &Stream, under_way: &mpsc::Sender<()>) -> Transfer {
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let (mut last, mut gap) = (Instant::now(), Duration::ZERO);
    let mut number = 0;
    while number < BLOCKS {
        let mut got = [0; BLOCK_BYTES];
        let came = stream.read_exact(&mut got);
        gap = gap.max(last.elapsed());
        if came.is_err() || got != block(number) {
            break;
        }
        last = Instant::now();
        number += 1;
        if number == BLOCKS / 4 {
            under_way.send(()).unwrap();
        }
    }
    let mut lost = (BLOCKS - number) * BLOCK_BYTES as u64;
    if lost == 0 {
        // Nothing comes after the last block.
        lost = stream.read(&mut [0]).map_or(0, |more| more as u64);
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    Transfer { gap, lost }
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
    let world = homes("easy");
    let config = Config::new().lan(Lan::Off).introducers(world.places.clone());
    let service = world.lab.node("a1").enter(|| Service::new_from_config(config).unwrap());
    assert!(service.controller.wait_attached(soon()));
    let events = service.controller.events();
    while events.try_recv().is_ok() {}
    let begun = Instant::now();
    move_over(&world.lab, WAYS[0]);
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

/// How long an introducer is away.
pub(crate) const RESTART: Duration = Duration::from_secs(1);
const BLOCK_BYTES: usize = 1_024;
const BLOCKS: u64 = 800;
const PACE: Duration = Duration::from_millis(5);
