//! Permissions, channels and what goes through them.

use super::*;

#[test]
fn the_first_packet_waits_for_no_permission_and_the_seventh_goes_by_a_channel() {
    let mut world = World::new(RelayRules::default());
    world.pass(1);
    let relayed = world.allocated();
    let mut overheads = Vec::new();
    for count in 0..12_u8 {
        let now = world.net.now();
        let mut frame = Vec::new();
        world.client.machine_mut().frame(now, world.peer_address, &[count; 100], &mut frame).unwrap();
        overheads.push(frame.len() - 100);
        world.client.machine_mut().send(now, world.peer_address, &[count; 100]).unwrap();
        world.pass(1);
        let arrived = world.arrived();
        assert_eq!((arrived.0, &arrived.1[..]), (relayed, &[count; 100][..]), "packet {count}");
    }
    assert_eq!(overheads[0], 36);
    assert_eq!(overheads[11], 4);
    world.reply(b"back");
    let expected = TurnEvent::Data { peer: world.peer_address, bytes: b"back".to_vec() };
    assert_eq!(world.client.events().last().unwrap().1, expected);
}

#[test]
fn a_peer_in_use_keeps_permission_and_channel_and_an_unused_one_loses_them() {
    let mut world = World::new(RelayRules::default());
    world.pass(1);
    world.client.machine_mut().bind(world.net.now(), world.peer_address).unwrap();
    for minute in 0..60 {
        let now = world.net.now();
        world.client.machine_mut().send(now, world.peer_address, b"still here").unwrap();
        world.pass(60);
        let count = world.client.events().len();
        world.reply(b"so am I");
        assert_eq!(world.client.events().len(), count + 1, "minute {minute}");
    }
    let head = world.client.machine_mut().channel_head(world.net.now(), world.peer_address, 10);
    assert!(head.is_some(), "the channel was renewed");
    world.pass(1_500);
    let count = world.client.events().len();
    world.reply(b"anyone?");
    assert_eq!(world.client.events().len(), count, "after ten minutes without a word nothing is renewed");
    assert_eq!(world.client.machine_mut().channel_head(world.net.now(), world.peer_address, 10), None);
    // And it is there again when it is used again, by the same number, as RFC 8656 demands.
    world.client.machine_mut().bind(world.net.now(), world.peer_address).unwrap();
    world.pass(1);
    let again = world.client.machine_mut().channel_head(world.net.now(), world.peer_address, 10);
    assert_eq!(again, head);
}

#[test]
fn what_cannot_be_sent_is_told_before() {
    let mut bench = Bench::allocated();
    let mut frame = Vec::new();
    let mut send = |peer: &str, payload: &[u8]| {
        bench.client.frame(bench.now, peer.parse().unwrap(), payload, &mut frame)
    };
    assert_eq!(send("[2001:db8::1]:1", b"x"), Err(TurnSendError::Family));
    assert_eq!(send("192.0.2.2:1", &[0; 65_001]), Err(TurnSendError::TooLong));
    assert!(frame.is_empty());
    let mut early = Bench::new();
    let result = early.client.send(early.now, "192.0.2.2:1".parse().unwrap(), b"x");
    assert_eq!(result, Err(TurnSendError::NotAllocated));
}
