//! Real sockets on the loopback interface only. Nothing here waits for a fixed time: each wait ends with what is
//! expected, and its deadline is far beyond what a busy machine needs.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use beacon::{
    Beacon, BeaconConfig, BeaconController, BeaconError, Departure, GroupSecret, Interfaces, Message, News,
    NextError,
};

#[test]
fn two_beacons_on_one_port_find_each_other() {
    let (mut alice, _alice_controller) = start(0, "alice");
    let (mut bob, _bob_controller) = start(alice.port(), "bob");

    let heard_by_bob = wait_for(&mut bob, |message| message.payload() == b"alice");
    let heard_by_alice = wait_for(&mut alice, |message| message.payload() == b"bob");

    assert!(heard_by_bob.source().ip().is_loopback());
    assert!(heard_by_bob.is_on_link(heard_by_bob.source().ip()));
    assert_eq!(heard_by_bob.interface(), heard_by_alice.interface());
}

#[test]
fn ten_beacons_on_one_port_all_find_each_other() {
    let first = start(0, "0");
    let port = first.0.port();
    let mut beacons = vec![first];
    beacons.extend((1..10).map(|number| start(port, &number.to_string())));

    for (own, (beacon, _)) in beacons.iter_mut().enumerate() {
        let mut missing: Vec<String> =
            (0..10).filter(|other| *other != own).map(|it| it.to_string()).collect();
        while !missing.is_empty() {
            let message = beacon.next(soon()).expect("some are still missing");
            assert_ne!(message.payload(), own.to_string().as_bytes(), "own echo");
            missing.retain(|other| other.as_bytes() != message.payload());
        }
    }
}

#[test]
fn new_data_is_heard_long_before_the_period_is_over() {
    let (mut alice, _alice_controller) = start(0, "alice");
    let (_bob, bob_controller) = start_with(config(alice.port()).period(Duration::from_secs(3600)), "bob");
    wait_for(&mut alice, |message| message.payload() == b"bob");

    bob_controller.set_data("bob has moved").expect("it fits");

    let message = wait_for(&mut alice, |message| message.payload() == b"bob has moved");
    assert_eq!(message.news(), News::Changed);
}

#[test]
fn own_echo_is_not_heard_even_after_new_data_but_is_without_identity_bytes() {
    let (mut with_id, controller) = start(0, "echo");
    controller.set_data("other echo").expect("it fits");
    let (mut without_id, _other) = start_with(config(with_id.port()).id_bytes(0), "no id");

    wait_for(&mut without_id, |message| message.payload() == b"no id");
    wait_for(&mut with_id, |message| {
        assert!(!message.payload().ends_with(b"echo"), "own echo");
        message.payload() == b"no id"
    });
}

#[test]
fn a_shorter_period_takes_effect_while_running() {
    let (mut alice, _alice_controller) = start(0, "alice");
    let (_bob, bob_controller) = start_with(config(alice.port()).period(Duration::from_secs(3600)), "bob");
    wait_for(&mut alice, |message| message.payload() == b"bob");

    bob_controller.set_period(Duration::from_millis(20));

    // The search alone says less; more within the deadline only comes by the new period.
    for _ in 0..20 {
        wait_for(&mut alice, |message| message.news() == News::Repeated);
    }
}

#[test]
fn a_beacon_that_is_dropped_is_reported_as_gone_with_its_last_data() {
    let (mut alice, _alice_controller) = start(0, "alice");
    let (_bob, bob_controller) = start_with(config(alice.port()).period(Duration::from_secs(3600)), "bob");
    wait_for(&mut alice, |message| message.payload() == b"bob");

    drop(bob_controller);

    let message = wait_for(&mut alice, |message| message.news() == News::Left(Departure::Goodbye));
    assert_eq!(message.payload(), b"bob");
}

#[test]
fn dropping_the_controller_wakes_whoever_waits() {
    let (mut waiting, controller) = start(0, "waiting");
    let (mut polling, other_controller) = start(0, "polling");

    thread::scope(|scope| {
        let waiter = scope.spawn(move || waiting.next_message(&mut Vec::new()));
        let poller = scope.spawn(move || polling.next(soon()));
        drop((controller, other_controller));

        assert_eq!(waiter.join().expect("no panic"), None);
        assert_eq!(poller.join().expect("no panic"), Err(NextError::Closed));
    });
}

#[test]
fn a_controller_outlives_its_clones_and_a_dropped_beacon() {
    let (mut alice, _alice_controller) = start(0, "alice");
    let (bob, bob_controller) = start(alice.port(), "bob");
    drop(bob_controller.clone());
    drop(bob);

    bob_controller.set_data("bob alone").expect("it fits");

    wait_for(&mut alice, |message| message.payload() == b"bob alone");
}

#[test]
fn a_beacon_that_only_listens_hears_and_is_not_heard_until_it_announces_and_again_when_it_hides() {
    let (mut alice, _alice_controller) = start(0, "alice");
    let (mut silent, silent_controller) = Beacon::listen(config(alice.port())).expect("loopback is up");
    wait_for(&mut silent, |message| message.payload() == b"alice");

    silent_controller.set_data("no longer silent").expect("it fits");
    let first = alice.next(soon()).expect("it speaks now");
    assert_eq!((first.news(), first.payload()), (News::Appeared, &b"no longer silent"[..]));

    silent_controller.hide();
    let gone = wait_for(&mut alice, |message| message.news() != News::Repeated);
    assert_eq!(gone.news(), News::Left(Departure::Goodbye));
    // It still listens, and may ask anew; of that alice says nothing.
    let (_bob, bob_controller) = start(alice.port(), "bob");
    wait_for(&mut silent, |message| message.payload() == b"bob");
    silent_controller.search();
    wait_for(&mut silent, |message| message.payload() == b"alice");
    drop(bob_controller);
    let heard: Vec<_> = alice
        .messages(soon())
        .take_while(|message| message.news() != News::Left(Departure::Goodbye))
        .map(|message| message.into_payload())
        .collect();
    assert!(heard.iter().all(|payload| payload == b"bob"), "{heard:?}");
}

#[test]
fn messages_can_go_to_a_function_instead_of_a_queue() {
    let (alice, _alice_controller) = start(0, "alice");
    let (tell, told) = crossbeam::channel::bounded(100);
    let controller = Beacon::listen_with(config(alice.port()), move |message| {
        // When the test is over nobody listens.
        let _ = tell.try_send(message);
    })
    .expect("loopback is up");

    assert_eq!(controller.port(), alice.port());
    let message = told.recv_deadline(soon()).expect("it is called");
    assert_eq!(message.payload(), b"alice");
    drop(controller);
    while told.recv_deadline(soon()).is_ok() {}
    assert_eq!(told.try_recv(), Err(crossbeam::channel::TryRecvError::Disconnected));
}

#[test]
fn beacons_with_a_secret_hear_each_other_and_nobody_else() {
    let with =
        |port, secret: u8, data| start_with(config(port).secret(Some(GroupSecret::new([secret; 32]))), data);
    let (mut plain, plain_controller) = start(0, "plain");
    let (mut ada, ada_controller) = with(plain.port(), 1, "ada");
    let (mut bob, _bob_controller) = with(plain.port(), 1, "bob");
    let (mut eve, eve_controller) = with(plain.port(), 2, "eve");

    wait_for(&mut ada, |message| message.payload() == b"bob");
    wait_for(&mut bob, |message| message.payload() == b"ada");
    ada_controller.set_data(vec![7; ada_controller.max_data_bytes()]).expect("exactly at the limit");
    let message = wait_for(&mut bob, |message| message.payload().len() > 3);
    assert_eq!(message.payload(), vec![7; ada_controller.max_data_bytes()]);
    ada_controller.set_data(vec![7; ada_controller.max_data_bytes() + 1]).expect_err("one byte too many");

    // Once they have heard it, they have not understood it.
    let has_refused = |refusals: beacon::Refusals| refusals.not_of_group + refusals.malformed > 3;
    while ![&plain_controller, &eve_controller].iter().all(|one| has_refused(one.stats().refusals)) {
        thread::yield_now();
    }
    assert_eq!(plain.next(Instant::now()), Err(NextError::TimedOut));
    assert_eq!(eve.next(Instant::now()), Err(NextError::TimedOut));
}

#[test]
fn next_ends_at_its_deadline() {
    let (mut beacon, _controller) = start(0, "alone");

    assert_eq!(beacon.next(Instant::now()), Err(NextError::TimedOut));
    assert_eq!(beacon.messages(Instant::now()).count(), 0);
}

#[test]
fn messages_can_be_selected_together_with_other_channels() {
    let (alice, _alice_controller) = start(0, "alice");
    let (bob, _bob_controller) = start(alice.port(), "bob");
    let (_keep, own_work) = crossbeam::channel::bounded::<()>(1);

    crossbeam::select! {
        recv(bob.receiver()) -> message => assert_eq!(message.expect("open").payload(), b"alice"),
        recv(own_work) -> _ => unreachable!("nothing is sent there"),
        default(Duration::from_secs(60)) => panic!("nothing was heard"),
    }
}

#[test]
fn data_that_does_not_fit_is_refused_and_the_old_data_stays() {
    let refused = Beacon::with_config(config(0), vec![0; 1201]);
    assert!(matches!(refused, Err(BeaconError::TooLarge(error)) if error.limit_bytes == 1200));

    let (mut alice, _alice_controller) = start(0, "alice");
    let (_bob, bob_controller) = start(alice.port(), "bob");
    assert_eq!(bob_controller.max_data_bytes(), 1200);
    bob_controller.set_data(vec![0; 1201]).expect_err("one byte too many");
    wait_for(&mut alice, |message| message.payload() == b"bob");

    bob_controller.set_data(vec![7; 1200]).expect("exactly at the limit");
    wait_for(&mut alice, |message| message.payload() == [7; 1200]);
}

#[test]
fn a_port_held_by_somebody_who_does_not_share_is_a_bind_error() {
    let holder = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let port = holder.local_addr().expect("bound").port();

    let refused = Beacon::with_config(config(port), "late");

    assert!(
        matches!(&refused, Err(BeaconError::Bind { port: named, source })
            if *named == port && source.kind() == ErrorKind::AddrInUse),
        "{refused:?}"
    );
}

#[test]
fn an_interface_that_does_not_exist_and_a_group_that_is_none_are_refused() {
    let named = Interfaces::Named(vec!["nonesuch0".into()]);
    let nowhere = Beacon::with_config(config(0).interfaces(named), "lost");
    let no_group = Beacon::with_config(config(0).group_v4(Some([127, 0, 0, 1].into())), "lost");

    assert!(matches!(nowhere, Err(BeaconError::NoInterface { .. })), "{nowhere:?}");
    assert!(matches!(no_group, Err(BeaconError::NotMulticast { .. })), "{no_group:?}");
}

#[test]
fn garbage_on_the_port_is_counted_and_peers_are_still_found() {
    let (mut alice, alice_controller) = start(0, "alice");
    let vandal = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for length in 0..500 {
        vandal.send_to(&vec![b'b'; length], ("127.0.0.1", alice.port())).expect("loopback takes it");
    }
    let (_bob, _bob_controller) = start(alice.port(), "bob");

    wait_for(&mut alice, |message| message.payload() == b"bob");

    assert!(alice_controller.stats().refusals.malformed > 0);
    assert_eq!(alice_controller.warnings(), []);
}

#[test]
fn starting_and_dropping_leaves_nothing_behind() {
    // Another test may be given the port between the drop and the bind, but not each time.
    let is_free_afterwards = || {
        let (first, first_controller) = start(0, "first");
        let port = first.port();
        for _ in 0..20 {
            drop(start(port, "again"));
        }
        drop((first, first_controller));
        UdpSocket::bind(("0.0.0.0", port)).is_ok()
    };

    assert!((0..5).any(|_| is_free_afterwards()), "a socket outlives the drop of its beacon");
}

fn config(port: u16) -> BeaconConfig {
    BeaconConfig::new(port).interfaces(Interfaces::Loopback).period(Duration::from_millis(200))
}

fn start(port: u16, data: &str) -> (Beacon, BeaconController) {
    start_with(config(port), data)
}

fn start_with(config: BeaconConfig, data: &str) -> (Beacon, BeaconController) {
    Beacon::with_config(config, data).expect("loopback is up")
}

/// Far more than a busy machine needs.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn wait_for(beacon: &mut Beacon, mut wanted: impl FnMut(&Message) -> bool) -> Message {
    beacon.messages(soon()).find(|message| wanted(message)).expect("it comes before the deadline")
}
