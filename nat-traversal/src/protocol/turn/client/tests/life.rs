//! How an allocation comes, is kept and ends.

use super::*;

#[test]
fn an_allocation_lives_as_long_as_it_is_held_and_ends_with_it() {
    let mut world = World::new(RelayRules::default());
    world.pass(1);
    let relayed = world.allocated();
    assert_eq!(relayed.to_string(), "203.0.113.20:49152");
    world.pass(7_200);
    assert_eq!(world.relay.machine().allocations(world.net.now()), 1);
    assert_eq!(world.client.machine().relayed_address(), Some(relayed));
    assert_eq!(world.client.events().len(), 1);

    let now = world.net.now();
    world.client.machine_mut().close(now);
    world.pass(1);
    assert_eq!(world.client.events()[1].1, TurnEvent::Closed);
    assert_eq!(world.relay.machine().allocations(world.net.now()), 0);
    assert_eq!(world.client.machine().poll_timeout(), None);
}

#[test]
fn a_stale_nonce_is_replaced_at_once_also_at_the_end() {
    let nonce_lifetime = Duration::from_secs(40);
    let mut world = World::new(RelayRules { nonce_lifetime, ..RelayRules::default() });
    world.pass(1);
    world.pass(1_000);
    assert_eq!(world.relay.machine().allocations(world.net.now()), 1);
    world.pass(60);
    let now = world.net.now();
    world.client.machine_mut().close(now);
    world.pass(1);
    assert_eq!(world.client.events().last().unwrap().1, TurnEvent::Closed);
    assert_eq!(world.relay.machine().allocations(world.net.now()), 0);
}

#[test]
fn refusals_are_told_by_their_names() {
    let mut world = World::with_password(RelayRules::default(), "wrong");
    world.pass(1);
    assert_eq!(world.client.events()[0].1, TurnEvent::Failed(TurnFailure::WrongCredentials));

    let mut world = World::new(RelayRules { quota: 0, ..RelayRules::default() });
    world.pass(1);
    let failure = TurnFailure::Refused(486);
    assert_eq!(world.client.events()[0].1, TurnEvent::Failed(failure));
    assert!(failure.to_string().contains("as many allocations as it may"));
}

#[test]
fn a_server_that_restarts_or_dies_is_noticed() {
    let mut world = World::new(RelayRules::default());
    world.pass(1);
    world.relay.machine_mut().restart();
    world.pass(30);
    assert_eq!(world.client.events().last().unwrap().1, TurnEvent::Failed(TurnFailure::Lost));

    let mut world = World::new(RelayRules::default());
    world.pass(1);
    let died = world.net.now();
    world.net.run(&mut [(world.laptop, &mut world.client)], Duration::from_secs(120));
    let (at, event) = world.client.events().last().unwrap();
    assert_eq!(*event, TurnEvent::Failed(TurnFailure::NoAnswer(7)));
    assert!(*at - died < Duration::from_secs(50), "{:?}", *at - died);
}

#[test]
fn whether_the_server_still_knows_us_is_found_out_when_somebody_asks() {
    let mut world = World::new(RelayRules::default());
    assert_eq!(world.client.machine().last_served(), None);
    let asked = world.net.now();
    world.client.machine_mut().check(asked);
    world.pass(1);
    world.allocated();
    let asked = world.net.now();
    world.client.machine_mut().check(asked);
    world.pass(1);
    assert!(world.client.machine().last_served() > Some(asked), "it does");
    assert_eq!(world.client.events().len(), 1);

    world.relay.machine_mut().restart();
    let asked = world.net.now();
    world.client.machine_mut().check(asked);
    world.client.machine_mut().check(asked);
    world.pass(1);
    let (_, event) = world.client.events().last().unwrap();
    assert_eq!(*event, TurnEvent::Failed(TurnFailure::Lost), "within a second");
    assert!(world.client.machine().last_served() < Some(asked));
}

#[test]
fn what_loss_takes_is_sent_again() {
    for seed in 0..50 {
        let mut world = World::lossy(seed, 0.2);
        world.pass(30);
        let event = &world.client.events()[0].1;
        assert!(matches!(event, TurnEvent::Allocated { .. }), "seed {seed}: {event:?}");
        world.pass(3_600);
        assert_eq!(world.client.events().len(), 1, "seed {seed}: {:?}", world.client.events());
    }
}

#[test]
fn nothing_is_told_after_the_end() {
    let mut bench = Bench::allocated();
    bench.client.permit(bench.now, "192.0.2.2".parse().unwrap()).unwrap();
    bench.client.handle_disconnected();
    let late = MessageBuilder::new(Class::Indication, Method::DATA, TransactionId([0; 12]))
        .xor_address(attribute::XOR_PEER_ADDRESS, "192.0.2.2:1".parse().unwrap())
        .attribute(attribute::DATA, b"late")
        .finish();
    assert_eq!(bench.receive(&late), TurnReceived::Ignored);
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed(TurnFailure::Disconnected)));
    assert_eq!(bench.client.poll_event(), None);
}

#[test]
fn an_address_of_the_other_family_is_asked_for_and_nothing_else_taken() {
    let mut bench = Bench::new();
    let server = bench.client.server();
    let credentials = TurnCredentials::new("user", "secret");
    let link = TurnLink::Datagrams;
    bench.client = TurnClient::new(bench.now, server, link, AddressFamily::V6, credentials, Seed::from(1));
    bench.drain();
    let family = |bytes: &[u8]| {
        let request = Message::decode(bytes).unwrap();
        request.find(attribute::REQUESTED_ADDRESS_FAMILY).map(|found| found.value.to_vec())
    };
    assert_eq!(family(&bench.last), Some(vec![2, 0, 0, 0]));
    let v4 = bench.answer(Class::Success, None, allocation);
    bench.receive(&v4);
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed(TurnFailure::BadAnswer)));
}
