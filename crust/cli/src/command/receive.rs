use std::{
    path::Path,
    time::{Duration, Instant},
};

use crust::{ConnectOptions, Contact};

use super::{Running, connect::dial, dialling};
use crate::{
    arguments::Common,
    events::{Event, Output},
    failure::Failure,
    pipe::reset,
    progress::Progress,
    setup::{self, Who},
    transfer::{self, Target, TransferError},
};

/// Where to put what comes.
pub(super) struct Into<'a> {
    pub(super) folder: &'a Path,
    pub(super) overwrite: bool,
}

/// Fetches what a peer sends.
pub(super) fn run(peer: &Contact, into: &Into<'_>, common: &Common, output: Output) -> Result<(), Failure> {
    let mut target = Target::open(into.folder, into.overwrite).map_err(TransferError::from)?;
    let running = Running::start(dialling(setup::config(common, Who::Fresh, output)?))?;
    running.completed(fetch(&running, peer, &mut target, output))
}

fn fetch(running: &Running, peer: &Contact, target: &mut Target, output: Output) -> Result<(), Failure> {
    let options = ConnectOptions::new().protocol(transfer::label());
    let stream = dial(&running.controller, peer, &options, output)?;
    let started = Instant::now();
    let mut progress = Progress::new(output);
    let result = transfer::fetch(&stream, &stream, target, &mut progress);
    progress.end();
    match result {
        Ok(received) => {
            // Everything is on the disk and we said so: a sender that does not take note of it changes nothing.
            let _ = stream.close(Instant::now() + PARTING);
            output.event(&Event::done(received.bytes, started.elapsed()));
            output.note(&format!(
                "received {} ({} bytes), verified, into {}",
                counted(received.files),
                received.bytes,
                target.root().display()
            ));
            Ok(())
        }
        Err(error) => {
            match &error {
                // We said why; give the sender the time to read it.
                TransferError::Target(_) | TransferError::Protocol(_) => {
                    let _ = stream.close(Instant::now() + PARTING);
                }
                _ => reset(&stream),
            }
            Err(error.into())
        }
    }
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

/// How long the sender may take to read our last word.
const PARTING: Duration = Duration::from_secs(2);
