//! Peers whose addresses change, and ways that die.

use super::{
    super::*,
    world::{ACCEPTOR, DELAY, DIALER, MS, Outside, World, addr, way},
};

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

/// Our own addresses, as where a wildcard socket has several: what is sent from one that is gone is lost, or comes back to nobody.
#[test]
fn no_way_is_left_at_an_address_of_ours_that_is_gone() {
    let [gone, here] = ["192.168.2.11", "192.168.4.77"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let (dialer, moved) = (addr("198.51.100.1:1000"), addr("192.0.2.77:1000"));
    let at = |to: SocketAddr, local: IpAddr| Way { local: Some(local), ..way(1, to) };
    let mut world = World::new();
    world.talk(MS * 100, MS * 10);
    let (now, acceptor) = (world.now + MS * 50, &mut world.sides[ACCEPTOR]);
    // The dialer has moved, and while it is checked where it is, so do we.
    acceptor.handle_datagram(now, at(moved, gone), 1_200);
    let checks = std::iter::from_fn(|| acceptor.poll_transmit()).collect::<Vec<_>>();
    assert!(checks.iter().all(|(by, _)| by.local == Some(gone)) && !checks.is_empty());
    acceptor.forget_locals(|local| local == gone);
    acceptor.check_all(now);
    let exported: [u8; CheckKeys::BYTES] = std::array::from_fn(|index| index as u8);
    let keys = CheckKeys::new(&exported, true);
    let (_, request) = checks.iter().find(|(by, _)| by.source.addr == moved).unwrap();
    let theirs = CheckKeys::new(&exported, true).decode(request).expect("it is the acceptor's");
    acceptor.handle_check(now, Way { local: None, ..at(moved, gone) }, &keys.answer(theirs.0, moved, true));
    assert_eq!(acceptor.active(), way(1, moved), "it sends from where the system says");
    // Where the peer asks, the answer comes from.
    while acceptor.poll_transmit().is_some() {}
    acceptor.handle_check(now, at(dialer, here), &keys.request(TransactionId([1; 12])));
    let (by, _) = acceptor.poll_transmit().unwrap();
    assert_eq!(by, at(dialer, here));
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
