use std::time::Instant;

use crust::{ConnectOptions, Contact, ServiceController, Stream};

use super::{CLOSING, Running, dialling};
use crate::{
    arguments::Common,
    events::{Event, Output},
    failure::Failure,
    pipe::{Stdin, pipe},
    setup::{self, Who},
};

/// A pipe to a peer.
pub(super) fn run(peer: &Contact, common: &Common, output: Output) -> Result<(), Failure> {
    let running = Running::start(dialling(setup::config(common, Who::Fresh, output)?))?;
    running.completed(talk(&running, peer, output))
}

fn talk(running: &Running, peer: &Contact, output: Output) -> Result<(), Failure> {
    let stream = dial(&running.controller, peer, &ConnectOptions::new(), output)?;
    let started = Instant::now();
    let bytes = pipe(&stream, &Stdin::open())?;
    stream.close(Instant::now() + CLOSING).map_err(|error| Failure::of("stream", &error))?;
    output.event(&Event::done(bytes, started.elapsed()));
    Ok(())
}

/// Dials and reports what came of it.
pub(super) fn dial(
    controller: &ServiceController,
    peer: &Contact,
    options: &ConnectOptions,
    output: Output,
) -> Result<Stream, Failure> {
    let started = Instant::now();
    let (stream, trace) = controller.connect_traced(peer, options);
    output.detail(&Event::trace(peer.public_key(), &trace));
    let stream = stream.map_err(|error| Failure::connect(&error, output.is_verbose()))?;
    if peer.endpoints().is_empty() {
        let found = controller.lan_peers().into_iter().find(|(key, _)| *key == peer.public_key());
        if let Some((key, endpoints)) = found {
            output.event(&Event::discovered(key, &endpoints));
        }
    }
    output.event(&Event::connected(&stream, Some(started.elapsed())));
    Ok(stream)
}
