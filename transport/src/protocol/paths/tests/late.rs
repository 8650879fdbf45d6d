//! Datagrams that arrive late, in another order, by one way only, or while both sides move.

use super::{
    super::*,
    world::{ACCEPTOR, DIALER, MS, Payload, World, addr},
};

/// Two that began over a relay, which takes so much longer than the hole that both have found since: the acceptor so long after the dialer.
fn leave_a_relay(longer: Duration, after: Duration) -> World {
    let mut world = World::new();
    world.slow.push((addr("203.0.113.2:2000"), longer));
    world.talk(MS * 500, MS * 10);
    world.open(ACCEPTOR, 2, HERE);
    world.offer(DIALER, 1, HERE);
    world.pass(after);
    world.offer(ACCEPTOR, 2, "198.51.100.1:1000");
    world
}

const HERE: &str = "192.0.2.5:8";

/// RFC 9000 §9.3: only what the peer sent last moves the path.
#[test]
fn what_was_overtaken_on_the_old_way_does_not_move_the_acceptor_back() {
    for (longer, after, talk) in
        (0..12).flat_map(|longer| (0..6).flat_map(move |after| [0, 15, 60].map(|talk| (longer, after, talk))))
    {
        let what = format!("{longer}, {after}, {talk}");
        let mut world = leave_a_relay(MS * 25 * longer, MS * 10 * after);
        world.talk(MS * talk, MS * 10);
        // From now on nobody says anything, and what was sent by the relay arrives.
        world.pass(MS * 3_000);
        assert_eq!(world.remote(DIALER), addr(HERE), "{what}");
        assert_eq!(world.sides[ACCEPTOR].active().source.socket, 2, "{what}");
        assert_eq!(world.moves.each_ref().map(Vec::len), [1, 1], "{what}: {:?}", world.moves);
    }
}

#[test]
fn what_somebody_held_back_for_seconds_moves_nothing() {
    let mut world = leave_a_relay(Duration::ZERO, Duration::ZERO);
    world.talk(MS * 2_000, MS * 10);
    let (dialer, relay) = (addr("198.51.100.1:1000"), addr("203.0.113.2:2000"));
    for late in 0..200 {
        let at = world.now + MS * 37 * late;
        world.put_at(at, dialer, relay, Payload::Quic(1_200));
        world.put_at(at, relay, dialer, Payload::Quic(1_200));
    }
    world.pass(MS * 10_000);
    assert_eq!(world.moves.each_ref().map(Vec::len), [1, 1], "{:?}", world.moves);
}

/// What the dialer sends by the relay until it has found the hole too is no reason to go back there.
#[test]
fn an_acceptor_that_has_found_a_hole_first_waits_there_for_the_dialer() {
    for (longer, after) in (0..6).flat_map(|longer| (0..10).map(move |after| (longer, after))) {
        let mut world = World::new();
        world.slow.push((addr("203.0.113.2:2000"), MS * 25 * longer));
        world.talk(MS * 500, MS * 10);
        world.open(ACCEPTOR, 2, HERE);
        world.offer(ACCEPTOR, 2, "198.51.100.1:1000");
        world.talk(MS * 50 * after, MS * 10);
        world.offer(DIALER, 1, HERE);
        world.talk(MS * 1_500, MS * 10);
        let what = format!("{longer}, {after}: {:?}", world.moves);
        assert_eq!(world.moves.each_ref().map(Vec::len), [1, 1], "{what}");
        assert_eq!(world.remote(DIALER), addr(HERE), "{what}");
    }
}

/// Its NAT has forgotten the dialer, and what was sent before comes after what was sent since.
#[test]
fn what_was_sent_before_a_nat_forgot_does_not_move_the_acceptor_back() {
    let mut world = World::new();
    world.talk(MS * 500, MS * 10);
    let (before, acceptor) = (addr("198.51.100.1:1000"), addr("203.0.113.2:2000"));
    world.rebind(DIALER, 1, "198.51.100.1:4444");
    // The NAT may still let in what is for the old port.
    world.open(DIALER, 1, "198.51.100.1:1000");
    for late in (1..8).map(|late| late * 13).chain((0..50).map(|late| 1_000 + late * 37)) {
        world.put_at(world.now + MS * late, before, acceptor, Payload::Quic(1_200));
    }
    world.talk(MS * 800, MS * 10);
    assert_eq!(world.remote(ACCEPTOR), addr("198.51.100.1:4444"));
    // From now on nobody says anything, and the rest arrives.
    world.pass(MS * 4_000);
    assert_eq!(world.remote(ACCEPTOR), addr("198.51.100.1:4444"));
    assert_eq!(world.moves[ACCEPTOR].len(), 1, "{:?}", world.moves[ACCEPTOR]);
}

#[test]
fn an_acceptor_that_alone_has_found_a_way_ends_where_the_dialer_is() {
    let mut world = World::new();
    world.talk(MS * 300, MS * 10);
    world.open(ACCEPTOR, 2, HERE);
    world.offer(ACCEPTOR, 2, "198.51.100.1:1000");
    let arrived = world.arrived;
    world.talk(MS * 4_000, MS * 10);
    assert_eq!(world.remote(DIALER), addr("203.0.113.2:2000"));
    assert_eq!(world.sides[ACCEPTOR].active().source.socket, 1);
    assert_eq!(world.moves[ACCEPTOR].len(), 2, "{:?}", world.moves);
    assert!((0..2).all(|side| world.arrived[side] >= arrived[side] + 390), "nothing is lost meanwhile");
}

/// The acceptor's check comes by a port that the dialer has never seen, so that it cannot say that it uses that way.
#[test]
fn an_acceptor_whose_nat_gives_each_destination_a_port_follows_once_its_way_is_dead() {
    let mut world = World::new();
    world.talk(MS * 300, MS * 10);
    let (moved, port) = (addr("198.51.100.1:4444"), addr("203.0.113.2:2001"));
    world.rebind(DIALER, 1, "198.51.100.1:4444");
    world.open(ACCEPTOR, 1, "203.0.113.2:2001");
    world.ports.push((ACCEPTOR, moved, port));
    let begun = world.now;
    while world.remote(ACCEPTOR) != moved {
        world.talk(MS * 10, MS * 10);
        assert!(world.now < begun + MS * 2_000, "{:?}", world.moves);
    }
    let arrived = world.arrived;
    world.talk(MS * 1_000, MS * 10);
    assert!((0..2).all(|side| world.arrived[side] >= arrived[side] + 90));
}

#[test]
fn a_way_that_works_in_one_direction_only_is_not_taken_and_who_needs_it_is_cut_off() {
    let (old, new, acceptor) = (addr("198.51.100.1:1000"), addr("192.0.2.77:9"), addr("203.0.113.2:2000"));
    for deaf in [(acceptor, new), (new, acceptor)] {
        let mut world = World::new();
        world.talk(MS * 500, MS * 10);
        world.rebind(DIALER, 1, "192.0.2.77:9");
        world.one_way.push(deaf);
        let begun = world.now;
        while !world.sides.iter().all(Paths::is_cut_off) {
            world.talk(MS * 10, MS * 10);
            assert!(world.now < begun + MS * 1_500, "{deaf:?}");
        }
        assert_eq!(world.remote(ACCEPTOR), old, "{deaf:?}");
        // A hole in both directions is taken at once.
        world.open(DIALER, 2, "192.0.2.77:10");
        world.open(ACCEPTOR, 2, HERE);
        world.offer(DIALER, 2, HERE);
        world.offer(ACCEPTOR, 2, "192.0.2.77:10");
        world.talk(MS * 200, MS * 10);
        assert!(!world.sides.iter().any(Paths::is_cut_off));
        assert_eq!((world.remote(DIALER), world.remote(ACCEPTOR)), (addr(HERE), addr("192.0.2.77:10")));
    }
}

/// A hole that lets the dialer's datagrams through and none back: neither takes it, and the relay carries on.
#[test]
fn a_hole_in_one_direction_does_not_draw_anybody_from_a_way_that_works() {
    for deaf in [DIALER, ACCEPTOR] {
        let mut world = World::new();
        world.talk(MS * 300, MS * 10);
        world.open(DIALER, 2, "192.0.2.77:10");
        world.open(ACCEPTOR, 2, HERE);
        let ends = (addr("192.0.2.77:10"), addr(HERE));
        world.one_way.push(if deaf == ACCEPTOR { ends } else { (ends.1, ends.0) });
        world.offer(DIALER, 2, HERE);
        world.offer(ACCEPTOR, 2, "192.0.2.77:10");
        let arrived = world.arrived;
        world.talk(MS * 5_000, MS * 10);
        assert!(world.moves.iter().all(Vec::is_empty), "{:?}", world.moves);
        assert!((0..2).all(|side| world.arrived[side] >= arrived[side] + 490));
    }
}

/// From IPv4 to a network that has IPv6 only: another socket, another family, and late datagrams of the old one.
#[test]
fn a_way_of_the_other_family_is_taken_and_kept() {
    let mut world = World::new();
    world.talk(MS * 500, MS * 10);
    let (old, acceptor) = (addr("198.51.100.1:1000"), addr("203.0.113.2:2000"));
    for late in 0..60 {
        world.put_at(world.now + MS * 50 * late, old, acceptor, Payload::Quic(1_200));
    }
    world.outside.retain(|outside| outside.addr != old);
    world.open(DIALER, 1, "0.0.0.0:1");
    world.cut.push(addr("0.0.0.0:1"));
    world.talk(MS * 1_500, MS * 10);
    assert!(world.sides.iter().all(Paths::is_cut_off) || world.sides[DIALER].is_cut_off());
    world.open(DIALER, 6, "[2001:db8::1]:1000");
    world.open(ACCEPTOR, 6, "[2001:db8::2]:2000");
    world.offer(DIALER, 6, "[2001:db8::2]:2000");
    world.offer(ACCEPTOR, 6, "[2001:db8::1]:1000");
    world.talk(MS * 3_000, MS * 10);
    assert_eq!(world.remote(DIALER), addr("[2001:db8::2]:2000"));
    assert_eq!(world.remote(ACCEPTOR), addr("[2001:db8::1]:1000"));
    assert_eq!(world.moves.each_ref().map(Vec::len), [1, 1], "{:?}", world.moves);
    assert!(!world.moves.iter().flatten().any(|moved| moved.same_path));
}

/// The second side moves while the first looks for it, at any moment: each ends where the other is, however the holes are found.
#[test]
fn two_that_move_one_after_the_other_meet_by_the_last_holes() {
    for (between, found) in (0..10).flat_map(|between| (0..10).map(move |found| (between, found))) {
        let what = format!("{between}, {found}");
        let mut world = World::new();
        world.talk(MS * 300, MS * 10);
        world.rebind(DIALER, 1, "192.0.2.77:1000");
        world.cut.push(addr("192.0.2.77:1000"));
        world.talk(MS * 70 * between, MS * 10);
        // A hole between the new place of the one and the old place of the other, found as the other leaves.
        world.open(DIALER, 2, "192.0.2.77:2");
        world.open(ACCEPTOR, 2, HERE);
        world.offer(DIALER, 2, HERE);
        world.talk(MS * 10 * found, MS * 10);
        world.cut.extend([addr("203.0.113.2:2000"), addr(HERE)]);
        world.offer(ACCEPTOR, 2, "192.0.2.77:2");
        world.talk(MS * 2_500, MS * 10);
        assert!(world.sides.iter().all(Paths::is_cut_off), "{what}: {:?}", world.moves);
        world.open(DIALER, 3, "192.0.2.77:3");
        world.open(ACCEPTOR, 3, "192.0.2.99:3");
        world.offer(DIALER, 3, "192.0.2.99:3");
        world.talk(MS * 30, MS * 10);
        world.offer(ACCEPTOR, 3, "192.0.2.77:3");
        world.talk(MS * 2_000, MS * 10);
        assert_eq!(world.remote(DIALER), addr("192.0.2.99:3"), "{what}");
        assert_eq!(world.remote(ACCEPTOR), addr("192.0.2.77:3"), "{what}");
        assert!(!world.sides.iter().any(Paths::is_cut_off), "{what}");
    }
}
