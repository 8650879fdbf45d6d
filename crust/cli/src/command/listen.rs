use std::time::{Duration, Instant};

use super::{CLOSING, Running};
use crate::{
    arguments::Common,
    events::{Event, Output},
    failure::Failure,
    pipe::{Stdin, pipe},
    setup::{self, Who},
};

/// Prints a contact; serves one stream at a time, the next one waits.
pub(super) fn run(once: bool, common: &Common, output: Output) -> Result<(), Failure> {
    let mut running = Running::start(setup::config(common, Who::Known, output)?)?;
    let contact = running.announce(output)?;
    output.note(&format!("on the other side: crust connect {contact}"));
    let stdin = Stdin::open();
    if once {
        return running.completed(serve_one(&running, &stdin, output));
    }
    running.served(loop {
        match serve_one(&running, &stdin, output) {
            Ok(()) => {}
            Err(failure) if failure.ends_one_stream() => failure.close(output),
            Err(failure) => break Err(failure),
        }
    })
}

fn serve_one(running: &Running, stdin: &Stdin, output: Output) -> Result<(), Failure> {
    let stream = running.acceptor.accept()?;
    running.tell_events(output);
    let started = Instant::now();
    output.event(&Event::connected(&stream, None));
    let peer = stream.public_key().to_string();
    let bytes = pipe(&stream, stdin)?;
    let closed = stream.close(Instant::now() + CLOSING);
    closed.map_err(|error| Failure::of("stream", &error))?;
    output.event(&Event::Closed { peer: Some(peer), reason: None });
    output.event(&Event::done(bytes, elapsed(started)));
    Ok(())
}

fn elapsed(since: Instant) -> Duration {
    since.elapsed()
}
