//! Two that call each other from behind NATs, with one stream for both.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use crust::{AcceptError, ConnectOptions, Path, Service, Stream};

use crate::world::World;

/// The two know nothing but keys and who introduces; one calls so much later. How long it took from then, and how the stream goes.
pub(crate) fn call_each_other(world: &World, services: &[Service; 2], later: Duration) -> (Duration, Path) {
    let keys = services.each_ref().map(|service| service.controller.public_key());
    let lab = &world.lab;
    let options = ConnectOptions::new().single().deadline(PATIENCE);
    let [one, other] = thread::scope(|scope| {
        let call = |side: usize, later: Duration| {
            let (host, key, options) = (["a1", "b1"][side], keys[1 - side], &options);
            scope.spawn(move || {
                lab.node(host).enter(|| {
                    thread::sleep(later);
                    let begun = Instant::now();
                    let called = services[side].controller.connect_with(key, options);
                    let stream = called.unwrap_or_else(|error| panic!("{host}: {error}\n{}", error.trace()));
                    (begun.elapsed(), stream)
                })
            })
        };
        [call(0, Duration::ZERO), call(1, later)].map(|call| call.join().unwrap())
    });
    exchange(&one.1, &other.1);
    for service in services {
        let accepted = service.acceptor.accept_deadline(Instant::now() + Duration::from_millis(20));
        assert!(matches!(accepted, Err(AcceptError::TimedOut)), "{accepted:?}");
    }
    (other.0, other.1.path())
}

fn exchange(mut one: &Stream, mut other: &Stream) {
    one.write_all(b"there").unwrap();
    other.write_all(b"back!").unwrap();
    let mut got = [[0; 5]; 2];
    other.read_exact(&mut got[0]).unwrap();
    one.read_exact(&mut got[1]).unwrap();
    assert_eq!(got, [*b"there", *b"back!"]);
}

const PATIENCE: Duration = Duration::from_secs(30);
