//! Two services that dial each other, with one stream for both calls.

use std::{
    io::{Read as _, Write as _},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crust::{AcceptError, ConnectOptions, Destination, Lan, ProtocolLabel, Scheme, Service, Stream};

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

/// Calls of one number meet.
fn single(number: usize) -> ConnectOptions {
    let label = ProtocolLabel::new(format!("single/{number}")).unwrap();
    ConnectOptions::new().single().protocol(label).deadline(Duration::from_secs(30))
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
