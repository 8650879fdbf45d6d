//! Whoever replays, copies and makes sources up.

use super::{
    super::*,
    world::{ACCEPTOR, DIALER, MS, Outside, Payload, World, addr, length, way},
};

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
