//! What is left of two services that have a stream over a relay, when one of them ends while the stream is led to a better path.

use std::{cell::Cell, io::Read as _, time::Instant};

use crust::{ConnectOptions, PathKind};

use crate::{
    PATIENCE, leaving,
    play::{self, Cast, Who, at_every_step},
    world::World,
};

pub(crate) fn while_a_better_path_is_looked_for() {
    let mut world = World::new("easy", "easy");
    world.start_relay();
    let world = &world;
    let phases = [
        "looking for another path",
        "knocked",
        "sent a STUN message",
        "punched a hole for a connection that is there",
    ];
    at_every_step("improving", &[Who::Dialler, Who::Acceptor], &phases, 3, &|end, _| {
        let (server, client) = (world.listening("b1"), world.dialling("a1"));
        let contact = world.lab.node("b1").enter(|| server.controller.contact().unwrap());
        let cast = Cast::new(client, server, None, (&contact).into());
        leaving::part(&world.lab, "add");
        let parted = Cell::new(true);
        let dial = || {
            let options = ConnectOptions::new().deadline(PATIENCE);
            let stream = world.lab.node("a1").enter(|| cast.dial(&options))?;
            let path = stream.path();
            assert_eq!(path.kind, PathKind::Relayed);
            leaving::part(&world.lab, "del");
            parted.set(false);
            let left = stream.wait_path_change(&path, Instant::now() + PATIENCE * 2);
            left.map(drop).map_err(|error| error.to_string())
        };
        let hold = || {
            // As long as the other end is there.
            let held = cast.accept().map(|mut stream| stream.read(&mut [0]));
            drop(held);
        };
        let played = play::play(&cast, &dial, &hold, end);
        if parted.get() {
            leaving::part(&world.lab, "del");
        }
        play::drop_in_time(cast);
        world.wait_until_nothing_is_relayed();
        played
    });
}
