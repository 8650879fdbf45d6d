//! Two services that dial each other, with one stream for both calls.

use std::{
    io::{Read as _, Write as _},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crust::{
    AcceptError, Config, ConnectOptions, Contact, Destination, Introducer, Lan, NamedEndpoint, ProtocolLabel,
    Road, Scheme, Service, Stream,
};

use crate::support::{SCHEMES, listening, service};

/// At the same time, between one pair of services.
const CALLS: usize = 10;

#[test]
fn calls_that_cross_each_have_one_stream() {
    for scheme in SCHEMES {
        let services = [service(scheme), service(scheme)];
        let endpoints = [0, 1].map(|side: usize| services[side].controller.endpoints().unwrap()[0]);
        let contacts = [0, 1].map(|side: usize| services[side].controller.contact().unwrap());
        let barrier = Barrier::new(2 * CALLS);
        thread::scope(|scope| {
            let calls: Vec<_> = (0..CALLS)
                .map(|number| {
                    [0, 1].map(|side: usize| {
                        let peer: Destination = if number < CALLS / 2 {
                            endpoints[1 - side].into()
                        } else {
                            (&contacts[1 - side]).into()
                        };
                        let (service, barrier) = (&services[side], &barrier);
                        scope.spawn(move || {
                            barrier.wait();
                            service.controller.connect_with(peer, &single(number)).unwrap()
                        })
                    })
                })
                .collect();
            for [one, other] in calls {
                exchange(&one.join().unwrap(), &other.join().unwrap());
            }
        });
        let mut dialled = 0;
        for side in [0, 1] {
            assert_nothing_accepted(&services[side]);
            for cached in services[side].controller.iter_endpoint_cache() {
                assert_eq!(cached.endpoint(), endpoints[1 - side], "only where the peer listens");
                dialled += 1;
            }
        }
        assert!(dialled > 0, "each stream was dialled by one of the two");
    }
}

#[test]
fn bare_keys_that_look_for_each_other_have_one_stream() {
    let on_the_air = |port| listening(Scheme::Quic).lan(Lan::Loopback).lan_port(port);
    let mut first = Service::new_from_config(on_the_air(0)).unwrap();
    first.beacon_state.set_enabled(true).unwrap();
    let port = first.controller.lan_port().unwrap();
    let mut second = Service::new_from_config(on_the_air(port)).unwrap();
    thread::scope(|scope| {
        let early = scope
            .spawn(|| first.controller.connect_with(second.controller.public_key(), &single(0)).unwrap());
        // It looks for longer than for a peer that is not expected to call.
        second.beacon_state.set_enabled(true).unwrap();
        let late = second.controller.connect_with(first.controller.public_key(), &single(0)).unwrap();
        exchange(&early.join().unwrap(), &late);
    });
    for service in [&first, &second] {
        assert_nothing_accepted(service);
    }
}

/// Neither knows an address of the other; both know who introduces.
#[test]
fn calls_that_cross_at_an_introducer_each_have_one_stream() {
    for scheme in SCHEMES {
        let (_middle, place) = introducer();
        let services = [0, 1].map(|_| attached(listening(scheme), &place));
        cross(&services, [Duration::ZERO; 4]);
    }
}

#[test]
fn of_two_that_call_each_other_one_need_be_attached() {
    let (_middle, place) = introducer();
    let hidden = || {
        let config = Config::new().lan(Lan::Off).listen([]).introducers([place.clone()]).attach(false);
        Service::new_from_config(config).unwrap()
    };
    // Whichever of the two keys is the smaller one.
    for _ in 0..2 {
        cross(&[attached(listening(Scheme::Quic), &place), hidden()], [Duration::ZERO; 4]);
    }
    // And whoever calls first.
    cross(&[attached(listening(Scheme::Quic), &place), hidden()], [LATE; 4]);
    cross(&[hidden(), attached(listening(Scheme::Quic), &place)], [LATE; 4]);
}

#[test]
fn each_of_two_that_call_each_other_may_have_an_introducer_of_its_own() {
    let middles = [introducer(), introducer()];
    let services = [0, 1].map(|side: usize| attached(listening(Scheme::Quic), &middles[side].1));
    let contacts = [0, 1].map(|side: usize| {
        let contact = Contact::new(services[side].controller.public_key());
        contact.introducer(Introducer::new(middles[side].1.clone())).unwrap()
    });
    thread::scope(|scope| {
        let calls = [0, 1].map(|side: usize| {
            let (service, contact) = (&services[side], &contacts[1 - side]);
            scope.spawn(move || service.controller.connect_with(contact, &single(0)).unwrap())
        });
        let [one, other] = calls.map(|call| call.join().unwrap());
        exchange(&one, &other);
    });
    services.iter().for_each(assert_nothing_accepted);
}

#[test]
fn who_gives_up_and_calls_again_meets_who_waits() {
    let (_middle, place) = introducer();
    let [waits, gives_up] = [0, 1].map(|_| attached(listening(Scheme::Quic), &place));
    let keys = [&waits, &gives_up].map(|service| service.controller.public_key());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waits.controller.connect_with(keys[1], &single(0)).unwrap());
        // They are introduced and nothing comes of it, as there is no relay, and none that serves TCP.
        let in_vain =
            single(0).roads([Road::Relayed]).only([Scheme::Tcp]).deadline(Duration::from_millis(1_500));
        gives_up.controller.connect_with(keys[0], &in_vain).unwrap_err();
        assert!(!waiting.is_finished(), "it has no stream that nobody has the other end of");
        let again = gives_up.controller.connect_with(keys[0], &single(0)).unwrap();
        exchange(&waiting.join().unwrap(), &again);
    });
    [&waits, &gives_up].into_iter().for_each(assert_nothing_accepted);
}

#[test]
fn who_waits_and_cannot_be_asked_for_asks_again_after_the_other_gave_up() {
    let (_middle, place) = introducer();
    let config = listening(Scheme::Quic).lan(Lan::Off).introducers([place.clone()]).attach(false);
    let waits = Service::new_from_config(config).unwrap();
    let gives_up = attached(listening(Scheme::Quic), &place);
    let keys = [&waits, &gives_up].map(|service| service.controller.public_key());
    // An introduction of which nothing comes is given up after 15 s.
    let patient = single(0).deadline(PATIENCE * 4);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waits.controller.connect_with(keys[1], &patient).unwrap());
        let in_vain = single(0).roads([Road::Relayed]).only([Scheme::Tcp]).deadline(LATE);
        gives_up.controller.connect_with(keys[0], &in_vain).unwrap_err();
        let again = gives_up.controller.connect_with(keys[0], &patient).unwrap();
        exchange(&waiting.join().unwrap(), &again);
    });
    [&waits, &gives_up].into_iter().for_each(assert_nothing_accepted);
}

#[test]
fn streams_of_other_calls_come_out_of_accept_meanwhile() {
    let (_middle, place) = introducer();
    let chat = ProtocolLabel::new("chat/1").unwrap();
    let [one, other] = [0, 1].map(|_| attached(listening(Scheme::Quic).protocols([chat.clone()]), &place));
    let keys = [&one, &other].map(|service| service.controller.public_key());
    let ordinary = ConnectOptions::new().protocol(chat);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| one.controller.connect_with(keys[1], &single(0)).unwrap());
        for byte in 0..3 {
            let mut stream = other.controller.connect_with(keys[0], &ordinary).unwrap();
            stream.write_all(&[byte]).unwrap();
            let mut accepted = one.acceptor.accept_deadline(Instant::now() + PATIENCE).unwrap();
            let mut got = [u8::MAX];
            accepted.read_exact(&mut got).unwrap();
            assert_eq!(got, [byte]);
        }
        let called = other.controller.connect_with(keys[0], &single(0)).unwrap();
        exchange(&waiting.join().unwrap(), &called);
    });
    [&one, &other].into_iter().for_each(assert_nothing_accepted);
}

#[test]
fn a_call_that_nobody_answers_tells_why_and_lets_nobody_in() {
    let (_middle, place) = introducer();
    let [one, other] = [0, 1].map(|_| attached(listening(Scheme::Quic), &place));
    let options = single(0).deadline(Duration::from_secs(2));
    let error = one.controller.connect_with(other.controller.public_key(), &options).unwrap_err();
    assert!(error.trace().to_string().contains("the peer does not want"), "{}", error.trace());
    assert_nothing_accepted(&other);
    // One without `single` is for `accept`, as ever.
    one.controller.connect_with(other.controller.public_key(), &ConnectOptions::new()).unwrap();
    other.acceptor.accept_deadline(Instant::now() + PATIENCE).unwrap();
}

/// By four introducers, since one carries so many calls from one address and no more; each call as much later than its other half as
/// the seed says.
#[test]
fn a_hundred_pairs_of_calls_that_cross_each_have_one_stream() {
    const PAIRS: u64 = 25;
    let began = |seed: u64| {
        let mut state = seed;
        move || {
            // Knuth's multiplier: any spread will do.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Duration::from_millis(state >> 58)
        }
    };
    let pairs: Vec<u64> = (1..=PAIRS).collect();
    thread::scope(|scope| {
        for seeds in pairs.chunks(7) {
            scope.spawn(move || {
                let (_middle, place) = introducer();
                for &seed in seeds {
                    println!("seed {seed}");
                    let mut later = began(seed);
                    let scheme = SCHEMES[usize::from(seed % 4 == 0)];
                    let services = [0, 1].map(|_| attached(listening(scheme), &place));
                    cross(&services, [(); 4].map(|()| later()));
                }
            });
        }
    });
}

fn introducer() -> (Service, NamedEndpoint) {
    let service = Service::new_from_config(listening(Scheme::Quic).lan(Lan::Off).introduce(true)).unwrap();
    let place = service.controller.endpoints().unwrap()[0].into();
    (service, place)
}

fn attached(config: Config, introducer: &NamedEndpoint) -> Service {
    let service = Service::new_from_config(config.lan(Lan::Off).introducers([introducer.clone()])).unwrap();
    assert!(service.controller.wait_attached(Instant::now() + PATIENCE));
    service
}

/// A few calls by key at the same time, those of the second service so much later.
fn cross(services: &[Service; 2], later: [Duration; 4]) {
    let keys = services.each_ref().map(|service| service.controller.public_key());
    thread::scope(|scope| {
        let calls: Vec<_> = (0..)
            .zip(later)
            .map(|(number, later)| {
                [Duration::ZERO, later].into_iter().enumerate().map(move |(side, later)| {
                    scope.spawn(move || {
                        thread::sleep(later);
                        services[side].controller.connect_with(keys[1 - side], &single(number)).unwrap()
                    })
                })
            })
            .map(Vec::from_iter)
            .collect();
        for call in calls {
            let ends: Vec<_> = call.into_iter().map(|end| end.join().unwrap()).collect();
            exchange(&ends[0], &ends[1]);
        }
    });
    services.iter().for_each(assert_nothing_accepted);
}

/// Longer than it takes to be introduced.
const LATE: Duration = Duration::from_secs(2);
/// Far more than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls of one number meet.
fn single(number: usize) -> ConnectOptions {
    let label = ProtocolLabel::new(format!("single/{number}")).unwrap();
    ConnectOptions::new().single().protocol(label).deadline(PATIENCE)
}

fn exchange(mut one: &Stream, mut other: &Stream) {
    one.write_all(b"there").unwrap();
    other.write_all(b"back!").unwrap();
    let mut got = [[0; 5]; 2];
    other.read_exact(&mut got[0]).unwrap();
    one.read_exact(&mut got[1]).unwrap();
    assert_eq!(got, [*b"there", *b"back!"]);
}

fn assert_nothing_accepted(service: &Service) {
    let accepted = service.acceptor.accept_deadline(Instant::now() + Duration::from_millis(20));
    assert!(matches!(accepted, Err(AcceptError::TimedOut)), "{accepted:?}");
}
