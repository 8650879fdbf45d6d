//! Two ends of a connection whose NATs, networks and neighbours are not to be trusted, in virtual time.

use std::collections::BTreeMap;

use super::*;

const MS: Duration = Duration::from_millis(1);
const DELAY: Duration = Duration::from_millis(20);
const AWAITED: Awaited = Awaited { is_owed: true, round_trip: Duration::from_millis(40) };
const DIALER: usize = 0;
const ACCEPTOR: usize = 1;

#[derive(Debug, Clone)]
enum Payload {
    Quic(usize),
    Check(Vec<u8>),
}

/// A socket of one side, as the other side sees it.
#[derive(Debug, Clone, Copy)]
struct Outside {
    side: usize,
    socket: usize,
    addr: SocketAddr,
}

struct World {
    now: Instant,
    sides: [Paths; 2],
    outside: Vec<Outside>,
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Payload)>,
    count: u64,
    /// Addresses from and to which nothing passes.
    cut: Vec<SocketAddr>,
    /// QUIC datagrams and their bytes that arrived, by receiver.
    arrived: [u64; 2],
    moves: [Vec<Move>; 2],
    /// What went to an address that is nobody's.
    to_strangers: Vec<(SocketAddr, Payload)>,
    /// Addresses whose holder hears and answers nothing.
    strangers: Vec<SocketAddr>,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn way(socket: usize, to: SocketAddr) -> Way {
    Way { source: UdpSource { socket, addr: to }, local: None }
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn new() -> Self {
        let (dialer, acceptor) = (addr("198.51.100.1:1000"), addr("203.0.113.2:2000"));
        let seed = |number: u64| Seed::from(number);
        let mut sides =
            [Paths::new(way(1, acceptor), false, seed(1)), Paths::new(way(1, dialer), true, seed(2))];
        let exported: [u8; CheckKeys::BYTES] = std::array::from_fn(|index| index as u8);
        sides[DIALER].connected(CheckKeys::new(&exported, true));
        sides[ACCEPTOR].connected(CheckKeys::new(&exported, false));
        let outside = vec![
            Outside { side: DIALER, socket: 1, addr: dialer },
            Outside { side: ACCEPTOR, socket: 1, addr: acceptor },
        ];
        Self {
            now: Instant::now(),
            sides,
            outside,
            wire: BTreeMap::new(),
            count: 0,
            cut: Vec::new(),
            arrived: [0; 2],
            moves: [Vec::new(), Vec::new()],
            to_strangers: Vec::new(),
            strangers: Vec::new(),
        }
    }

    /// Gives a socket of one side another address outside; what goes to the old one is lost.
    fn rebind(&mut self, side: usize, socket: usize, to: &str) {
        self.outside.retain(|known| known.side != side || known.socket != socket);
        self.outside.push(Outside { side, socket, addr: addr(to) });
    }

    fn send(&mut self, side: usize, by: Way, payload: Payload) {
        let from = self.outside.iter().find(|known| known.side == side && known.socket == by.source.socket);
        let from = from.expect("the socket exists").addr;
        self.put(from, by.source.addr, payload);
    }

    fn put(&mut self, from: SocketAddr, to: SocketAddr, payload: Payload) {
        self.count += 1;
        self.wire.insert((self.now + DELAY, self.count), (from, to, payload));
    }

    fn send_quic(&mut self, side: usize) {
        let active = self.sides[side].active();
        self.sides[side].sent(self.now);
        self.send(side, active, Payload::Quic(1_200));
    }

    /// Both sides send a datagram every `pace`, for that long.
    fn talk(&mut self, time: Duration, pace: Duration) {
        let end = self.now + time;
        let mut next = self.now;
        while self.now < end {
            if self.now >= next {
                self.send_quic(DIALER);
                self.send_quic(ACCEPTOR);
                next = self.now + pace;
            }
            self.step(next.min(end));
        }
    }

    /// Goes on to the next thing that happens, at most to `end`.
    fn step(&mut self, end: Instant) {
        self.flush();
        let arrival = self.wire.keys().next().map(|(at, _)| *at);
        let timers = self.sides.iter().filter_map(Paths::poll_timeout);
        let next = timers.chain(arrival).min().unwrap_or(end).min(end);
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from, to, payload) = entry.remove();
            self.deliver(from, to, payload);
        }
        let now = self.now;
        self.sides.iter_mut().for_each(|side| side.handle_timeout(now, AWAITED));
        self.flush();
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: Payload) {
        if self.cut.contains(&from) || self.cut.contains(&to) {
            return;
        }
        let Some(outside) = self.outside.iter().find(|known| known.addr == to).copied() else {
            if self.strangers.contains(&to) {
                self.to_strangers.push((to, payload));
            }
            return;
        };
        let by = way(outside.socket, from);
        let now = self.now;
        match payload {
            Payload::Quic(bytes) => {
                self.arrived[outside.side] += 1;
                self.sides[outside.side].handle_datagram(now, by, bytes);
            }
            Payload::Check(bytes) => {
                assert_eq!(peek_tag(&bytes), Some(CheckTag([0, 1, 2, 3, 4, 5, 6, 7])));
                self.sides[outside.side].handle_check(now, by, &bytes);
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        for side in [DIALER, ACCEPTOR] {
            while let Some((by, bytes)) = self.sides[side].poll_transmit() {
                self.send(side, by, Payload::Check(bytes));
            }
            while let Some(moved) = self.sides[side].poll_move() {
                self.moves[side].push(moved);
                // QUIC sends at once after a move.
                self.send_quic(side);
            }
        }
    }

    fn remote(&self, side: usize) -> SocketAddr {
        self.sides[side].active().source.addr
    }
}

#[test]
fn a_quiet_life_has_no_checks() {
    let mut world = World::new();
    world.talk(MS * 10_000, MS * 100);
    assert!(
        world.moves.iter().all(Vec::is_empty) && world.sides.iter().all(|side| side.poll_timeout().is_none())
    );
}

#[test]
fn a_nat_that_forgets_costs_two_round_trips_and_keeps_what_was_learned_of_the_path() {
    let mut world = World::new();
    world.talk(MS * 500, MS * 10);
    world.rebind(DIALER, 1, "198.51.100.1:4444");
    let begun = world.now;
    while world.moves[ACCEPTOR].is_empty() {
        world.talk(MS * 10, MS * 10);
        assert!(world.now < begun + MS * 500, "the path did not move");
    }
    assert!(world.now <= begun + DELAY * 4 + MS * 20, "{:?}", world.now - begun);
    assert_eq!(world.remote(ACCEPTOR), addr("198.51.100.1:4444"));
    assert!(world.moves[ACCEPTOR][0].same_path);
    world.talk(MS * 2_000, MS * 10);
    assert!(world.moves[DIALER].is_empty(), "the dialer is where it was");
    assert_eq!(world.moves[ACCEPTOR].len(), 1);
}

#[test]
fn another_network_is_another_path() {
    let mut world = World::new();
    world.talk(MS * 500, MS * 10);
    world.rebind(DIALER, 1, "192.0.2.77:9");
    world.talk(MS * 500, MS * 10);
    assert_eq!((world.remote(ACCEPTOR), world.moves[ACCEPTOR][0].same_path), (addr("192.0.2.77:9"), false));
}

#[test]
fn the_acceptors_own_move_is_followed_once_its_old_address_is_dead() {
    let mut world = World::new();
    world.talk(MS * 500, MS * 10);
    world.rebind(ACCEPTOR, 1, "192.0.2.5:2000");
    let begun = world.now;
    while world.moves[DIALER].is_empty() {
        world.talk(MS * 10, MS * 10);
        assert!(world.now < begun + MS * 3_000, "the path did not move");
    }
    assert_eq!(world.remote(DIALER), addr("192.0.2.5:2000"));
    world.talk(MS * 2_000, MS * 10);
    assert_eq!((world.moves[DIALER].len(), world.moves[ACCEPTOR].len()), (1, 0));
}

#[test]
fn an_offered_way_is_taken_by_both_and_nothing_moves_back() {
    for both in [true, false] {
        let mut world = World::new();
        world.talk(MS * 300, MS * 10);
        world.outside.push(Outside { side: DIALER, socket: 2, addr: addr("198.51.100.1:7") });
        world.outside.push(Outside { side: ACCEPTOR, socket: 2, addr: addr("203.0.113.2:8") });
        let now = world.now;
        world.sides[DIALER].offer(now, way(2, addr("203.0.113.2:8")));
        if both {
            world.sides[ACCEPTOR].offer(now, way(2, addr("198.51.100.1:7")));
        }
        world.talk(MS * 1_000, MS * 10);
        for (side, expected) in [(DIALER, "203.0.113.2:8"), (ACCEPTOR, "198.51.100.1:7")] {
            assert_eq!((world.remote(side), world.moves[side].len()), (addr(expected), 1), "both: {both}");
            assert!(!world.moves[side][0].same_path);
        }
    }
}

#[test]
fn an_offered_way_that_does_not_work_changes_nothing() {
    let mut world = World::new();
    world.talk(MS * 300, MS * 10);
    let now = world.now;
    world.outside.push(Outside { side: DIALER, socket: 2, addr: addr("198.51.100.1:7") });
    world.sides[DIALER].offer(now, way(2, addr("203.0.113.99:8")));
    world.talk(MS * 5_000, MS * 10);
    assert!(world.moves.iter().all(Vec::is_empty));
    assert!(world.sides[DIALER].poll_timeout().is_none(), "it is left alone");
}

#[test]
fn when_the_present_way_dies_a_known_one_takes_over() {
    let mut world = World::new();
    world.talk(MS * 300, MS * 10);
    // They began over a relay, say, and moved to a direct way.
    world.outside.push(Outside { side: DIALER, socket: 2, addr: addr("198.51.100.1:7") });
    let now = world.now;
    world.sides[DIALER].offer(now, way(2, addr("203.0.113.2:2000")));
    world.talk(MS * 500, MS * 10);
    assert_eq!(world.remote(ACCEPTOR), addr("198.51.100.1:7"));
    world.cut.push(addr("198.51.100.1:7"));
    let begun = world.now;
    while world.remote(ACCEPTOR) != addr("198.51.100.1:1000")
        || world.sides[DIALER].active().source.socket != 1
    {
        world.talk(MS * 10, MS * 10);
        assert!(world.now < begun + MS * 5_000, "still dead");
    }
    assert!(world.now < begun + MS * 3_000, "{:?}", world.now - begun);
    let arrived = world.arrived;
    world.talk(MS * 1_000, MS * 10);
    assert!((0..2).all(|side| world.arrived[side] > arrived[side] + 90));
}

#[test]
fn who_is_cut_off_knows_it_within_a_second_and_is_told_when_it_is_over() {
    let mut world = World::new();
    world.talk(MS * 300, MS * 10);
    world.cut.push(addr("203.0.113.2:2000"));
    let begun = world.now;
    while !world.sides.iter().all(Paths::is_cut_off) {
        world.talk(MS * 10, MS * 10);
        assert!(world.now < begun + MS * 1_100, "after {:?}", world.now - begun);
    }
    for side in &mut world.sides {
        assert!(side.poll_cut_off() && !side.poll_cut_off() && !side.poll_answered_again());
    }
    world.talk(MS * 8_000, MS * 10);
    world.cut.clear();
    let mended = world.now;
    while world.sides.iter().any(Paths::is_cut_off) {
        world.step(mended + MS * 10_000);
        assert!(world.now < mended + MS * 10_000, "still cut off");
    }
    // Nobody sends anything else meanwhile: the checks alone find it out.
    assert!(world.now <= mended + MS * 3_000, "after {:?}", world.now - mended);
    assert!(world.sides.iter_mut().all(|side| side.poll_answered_again() && !side.poll_answered_again()));
    assert!(world.moves.iter().all(Vec::is_empty));
}

#[test]
fn who_is_cut_off_takes_the_first_hole_and_two_that_find_several_end_in_the_same() {
    let holes = [("198.51.100.1:7", "203.0.113.2:8"), ("198.51.100.1:77", "203.0.113.2:88")];
    for (first, second, wait) in (0..2).flat_map(|first| {
        (0..2).flat_map(move |second| [0, 5, 30, 45, 200].map(|wait| (first, second, wait)))
    }) {
        let mut world = World::new();
        world.talk(MS * 300, MS * 10);
        world.cut.extend([addr("198.51.100.1:1000"), addr("203.0.113.2:2000")]);
        world.talk(MS * 1_500, MS * 10);
        assert!(world.sides.iter().all(Paths::is_cut_off));
        for (socket, (here, there)) in (2..).zip(holes) {
            world.outside.push(Outside { side: DIALER, socket, addr: addr(here) });
            world.outside.push(Outside { side: ACCEPTOR, socket, addr: addr(there) });
        }
        // Each finds one first and the other later.
        for (side, found) in
            [(DIALER, first), (ACCEPTOR, second), (DIALER, 1 - first), (ACCEPTOR, 1 - second)]
        {
            let (here, there) = holes[found];
            let to = if side == DIALER { there } else { here };
            let now = world.now;
            // Whoever has a path again looks for no other.
            if world.sides[side].is_cut_off() {
                world.sides[side].offer(now, way(2 + found, addr(to)));
            }
            world.talk(MS * wait, MS * 10);
        }
        world.talk(MS * 3_000, MS * 10);
        let found = world.sides[DIALER].active().source.socket - 2;
        let what = format!("{first}, {second}, {wait}: {:?}", world.moves);
        assert_eq!(world.remote(DIALER), addr(holes[found].1), "{what}");
        assert_eq!(world.remote(ACCEPTOR), addr(holes[found].0), "{what}");
        assert!(world.moves[DIALER].len() <= 2 && world.moves[ACCEPTOR].len() <= 3, "{what}");
        assert!(!world.sides.iter().any(Paths::is_cut_off));
        let arrived = world.arrived;
        world.talk(MS * 1_000, MS * 10);
        assert!((0..2).all(|side| world.arrived[side] >= arrived[side] + 90), "{what}");
    }
}

#[test]
fn packets_replayed_from_elsewhere_move_nothing_and_draw_at_most_three_times_their_bytes() {
    for bytes in [21, 40, 100, 1_200] {
        let mut world = World::new();
        world.talk(MS * 300, MS * 10);
        let attacker = addr("192.0.2.66:666");
        world.strangers.push(attacker);
        let victim = world.remote(DIALER);
        let mut replayed = 0;
        for _ in 0..200 {
            world.put(attacker, victim, Payload::Quic(bytes));
            replayed += bytes;
            world.talk(MS * 20, MS * 10);
        }
        assert!(world.moves.iter().all(Vec::is_empty), "{bytes} bytes each");
        let drawn: usize = world.to_strangers.iter().map(|(_, payload)| length(payload)).sum();
        assert!(drawn <= 3 * replayed, "{drawn} bytes drawn by {replayed}");
        assert!(world.to_strangers.iter().all(|(_, payload)| matches!(payload, Payload::Check(_))));
    }
}

#[test]
fn captured_checks_replayed_from_elsewhere_move_nothing_either() {
    let mut world = World::new();
    world.talk(MS * 300, MS * 10);
    world.rebind(DIALER, 1, "198.51.100.1:4444");
    let mut captured = Vec::new();
    while world.moves[ACCEPTOR].is_empty() {
        for (from, to, payload) in world.wire.values() {
            if let Payload::Check(bytes) = payload {
                captured.push((*from, *to, bytes.clone()));
            }
        }
        world.talk(MS * 5, MS * 10);
    }
    let attacker = addr("192.0.2.66:666");
    world.strangers.push(attacker);
    let (mut replayed, moved) = (0, world.moves.clone());
    for (_, to, bytes) in captured {
        replayed += bytes.len();
        world.put(attacker, to, Payload::Check(bytes));
        world.talk(MS * 100, MS * 10);
    }
    assert_eq!(world.moves, moved);
    let drawn: usize = world.to_strangers.iter().map(|(_, payload)| length(payload)).sum();
    assert!(replayed > 0 && drawn <= 3 * replayed, "{drawn} bytes drawn by {replayed}");
}

/// Somebody on the way copies each of the dialer's datagrams, sends the copy from elsewhere and passes checks on both
/// ways: the originals still arrive, so nothing moves.
#[test]
fn a_copyist_who_passes_checks_on_does_not_get_the_path() {
    let mut world = World::new();
    world.talk(MS * 300, MS * 10);
    let (copyist, acceptor, dialer) = (addr("192.0.2.66:666"), world.remote(DIALER), world.remote(ACCEPTOR));
    world.strangers.push(copyist);
    for _ in 0..300 {
        world.put(copyist, acceptor, Payload::Quic(1_200));
        world.talk(MS * 10, MS * 10);
        for (_, payload) in std::mem::take(&mut world.to_strangers) {
            // As if from the acceptor; the answer it reads off the wire comes from its own address.
            world.put(acceptor, dialer, payload);
        }
        let answers: Vec<_> = world.wire.values().filter(|(from, _, _)| *from == dialer).cloned().collect();
        for (_, to, payload) in answers {
            if matches!(payload, Payload::Check(_)) {
                world.put(copyist, to, payload);
            }
        }
    }
    assert!(world.moves.iter().all(Vec::is_empty), "{:?}", world.moves);
}

#[test]
fn a_thousand_made_up_sources_do_not_push_a_known_way_out() {
    let mut world = World::new();
    world.talk(MS * 300, MS * 10);
    world.outside.push(Outside { side: DIALER, socket: 2, addr: addr("198.51.100.1:7") });
    let now = world.now;
    world.sides[DIALER].offer(now, way(2, addr("203.0.113.2:2000")));
    world.talk(MS * 500, MS * 10);
    for port in 1..1_000 {
        let made_up = SocketAddr::new([192, 0, 2, 9].into(), port);
        let now = world.now;
        world.sides[ACCEPTOR].handle_datagram(now, way(1, made_up), 1_200);
        assert!(world.sides[ACCEPTOR].ways.len() <= MAX_WAYS);
    }
    let first = addr("198.51.100.1:1000");
    assert!(world.sides[ACCEPTOR].ways.iter().any(|known| known.way.source.addr == first && known.proven));
}

#[test]
fn before_the_handshake_is_over_nothing_moves() {
    let mut paths = Paths::new(way(1, addr("203.0.113.2:2000")), true, Seed::from(1));
    let now = World::new().now;
    paths.handle_datagram(now, way(1, addr("192.0.2.1:1")), 1_200);
    assert!(paths.poll_transmit().is_none() && paths.poll_timeout().is_none());
    assert!(!paths.handle_check(now, way(1, addr("192.0.2.1:1")), b"anything"));
}

#[test]
fn a_connection_within_the_host_does_not_leave_it() {
    let mut paths = Paths::new(way(1, addr("127.0.0.1:2000")), true, Seed::from(1));
    paths.connected(CheckKeys::new(&[1; CheckKeys::BYTES], false));
    paths.offer(World::new().now, way(1, addr("192.0.2.1:1")));
    assert!(paths.poll_transmit().is_none());
    paths.offer(World::new().now, way(1, addr("127.0.0.1:1")));
    assert!(paths.poll_transmit().is_some());
}

fn length(payload: &Payload) -> usize {
    match payload {
        Payload::Quic(bytes) => *bytes,
        Payload::Check(bytes) => bytes.len(),
    }
}
