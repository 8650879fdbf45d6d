//! A relay that is started anew has forgotten whom it lent addresses to.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use crust::{ConnectError, ConnectOptions, PathKind, Service, Stream};

use crate::world::World;

/// How long after that the first call takes of two services who have addresses of before, and a stream between them.
pub(crate) fn met_again_after_a_restart() -> Duration {
    let mut world = World::new("hard", "hard");
    world.start_relay();
    let (server, client) = (world.listening("b1"), world.dialling("a1"));
    let [mut dialled, mut accepted] = meet(&world, &client, &server).unwrap();
    dialled.write_all(b"!").unwrap();
    accepted.read_exact(&mut [0]).unwrap();

    world.stop_relay();
    world.start_relay();
    let begun = Instant::now();
    if let Err(error) = meet(&world, &client, &server) {
        panic!("{error}\n{}", error.trace());
    }
    begun.elapsed()
}

/// The two ends of a stream over the relay.
fn meet(world: &World, client: &Service, server: &Service) -> Result<[Stream; 2], ConnectError> {
    let contact = world.lab.node("b1").enter(|| server.controller.contact().unwrap());
    let options = ConnectOptions::new().deadline(ATTEMPT);
    thread::scope(|scope| {
        let accepting = scope.spawn(|| server.acceptor.accept_deadline(Instant::now() + ATTEMPT * 2));
        let dialled = world.lab.node("a1").enter(|| client.controller.connect_with(contact, &options))?;
        assert_eq!(dialled.path().kind, PathKind::Relayed);
        Ok([dialled, accepting.join().unwrap().expect("it comes out of accept")])
    })
}

/// For a busy machine; on an idle one it takes about a second. By itself the address is asked after every 25 seconds.
const ATTEMPT: Duration = Duration::from_secs(20);
