use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{Sender, bounded, never},
    select,
};
use crust::{AcceptError, Stream};

use super::{Running, guarded};
use crate::{
    arguments::Common,
    events::{Event, Output},
    failure::Failure,
    pipe::reset,
    progress::Progress,
    setup::{self, Who},
    transfer::{self, Source, TransferError},
};

/// Prints a contact, and hands files and folders to who receives with it.
pub(super) fn run(paths: &[PathBuf], keep: bool, common: &Common, output: Output) -> Result<(), Failure> {
    let source = Source::collect(paths)?;
    for path in source.skipped() {
        output.note(&format!("skipped, neither file nor folder: {}", path.display()));
    }
    let config = guarded(setup::config(common, Who::Known, output)?, common);
    let mut running = Running::start(config.protocols([transfer::label()]))?;
    let contact = running.announce(output)?;
    output.print(&format!("crust receive {contact}"));
    let result = serve_all(&running, &source, keep, output);
    if keep { running.served(result) } else { running.completed(result) }
}

/// Several receivers at a time, so that one that went away does not keep its successor waiting.
fn serve_all(running: &Running, source: &Source, keep: bool, output: Output) -> Result<(), Failure> {
    thread::scope(|scope| {
        let (end, ended) = bounded(MAX_RECEIVERS);
        let mut receivers = 0;
        let result = loop {
            let full = never();
            let streams = if receivers < MAX_RECEIVERS { running.acceptor.receiver() } else { &full };
            select! {
                recv(streams) -> stream => {
                    let Ok(stream) = stream else { break Err(AcceptError::Closed.into()) };
                    receivers += 1;
                    let end: Sender<_> = end.clone();
                    scope.spawn(move || end.send(serve_one(stream, source, output)));
                }
                recv(ended) -> result => {
                    receivers -= 1;
                    match result.expect("we hold a sender ourselves") {
                        Ok(()) if keep => {}
                        Err(TransferError::Source(error)) => break Err(error.into()),
                        Ok(()) => break Ok(()),
                        Err(error) => {
                            let reason = format!("{}; it may come back", crust::error_chain(&error));
                            output.event(&Event::Closed { peer: None, reason: Some(reason) });
                        }
                    }
                }
                recv(running.interrupt.signal()) -> _ => break Err(AcceptError::Closed.into()),
            }
        };
        // Wakes those that still wait for someone.
        if receivers > 0 {
            running.controller.close();
        }
        drop(ended);
        result
    })
}

fn serve_one(stream: Stream, source: &Source, output: Output) -> Result<(), TransferError> {
    let started = Instant::now();
    output.event(&Event::connected(&stream, None));
    let mut progress = Progress::new(output);
    progress.begin(source.total_bytes());
    let (tell, heard) = bounded(HEARD);
    let result = thread::scope(|scope| {
        let stream = &stream;
        scope.spawn(move || transfer::listen_to(stream, &tell));
        let result = transfer::serve(stream, &heard, source, &mut progress);
        drop(heard);
        match &result {
            // What we said last is still on its way.
            Ok(()) | Err(TransferError::Source(_) | TransferError::Peer { .. }) => {
                let _ = stream.set_read_timeout(Some(PARTING));
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            Err(_) => reset(stream),
        }
        result
    });
    progress.end();
    result?;
    // The receiver has said that it has everything: nothing is lost if this takes too long.
    let _ = stream.close(Instant::now() + PARTING);
    output.event(&Event::done(source.total_bytes(), started.elapsed()));
    output.note("sent, and verified by the receiver");
    Ok(())
}

/// Each costs two threads.
const MAX_RECEIVERS: usize = 16;
/// A receiver says one thing for each file that it has in part; they are taken as they come.
const HEARD: usize = 64;
/// How long a receiver may take to end its side after the last word.
const PARTING: Duration = Duration::from_secs(2);
