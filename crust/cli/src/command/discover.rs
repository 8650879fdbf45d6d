use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crossbeam::channel::RecvTimeoutError;
use crust::LanError;

use super::{Running, dialling};
use crate::{
    arguments::Common,
    events::{Event, Output},
    failure::Failure,
    setup::{self, Who},
};

/// Prints who is announced on the local network, each peer once, and again when it says something else.
pub(super) fn run(time: Duration, common: &Common, output: Output) -> Result<(), Failure> {
    if common.no_lan {
        return Err(Failure::usage("--no-lan leaves nothing to discover"));
    }
    let running = Running::start(dialling(setup::config(common, Who::Fresh, output)?))?;
    running.served(listen(&running, time, output))
}

fn listen(running: &Running, time: Duration, output: Output) -> Result<(), Failure> {
    let endpoints = running.beacon_receiver.receiver().map_err(|error| match error {
        LanError::Off => Failure::usage("the configuration turns the local network off"),
        error => Failure::of("lan", &error),
    })?;
    let deadline = Instant::now() + time;
    let mut printed = BTreeMap::new();
    loop {
        let key = match endpoints.recv_deadline(deadline) {
            Ok(endpoint) => endpoint.public_key(),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::of("lan", &LanError::Closed)),
            Err(RecvTimeoutError::Timeout) => break,
        };
        // All that is known of the peer by now, of which this endpoint was one part.
        let known = running.controller.lan_peers().into_iter().find(|(peer, _)| *peer == key);
        let Some((_, known)) = known.filter(|(_, known)| printed.get(&key) != Some(known)) else { continue };
        output.event(&Event::discovered(key, &known));
        let places = known.iter().map(|endpoint| format!(" {}://{}", endpoint.scheme(), endpoint.addr()));
        output.print(&format!("{key}{}", places.collect::<String>()));
        printed.insert(key, known);
    }
    for warning in running.controller.lan_warnings() {
        output.note(&format!("warning: {warning}"));
    }
    if printed.is_empty() {
        output.note("nobody is announced on this network");
    }
    Ok(())
}
