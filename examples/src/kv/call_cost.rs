use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam::channel::bounded;

use super::{
    References, Threading,
    crew::{Batch, Crew, Make, Tell},
};
use crate::protocol::kv::{ArcRef, Item, RcRef, Reference, Store, StoreInput};

/// Asks the store for a value that it does not have, so many times, each time waiting for the answer; tells how long all took.
///
/// # Errors
///
/// When the system gives no thread.
pub fn call_cost(threading: &Threading, calls: u32) -> io::Result<Duration> {
    match threading.held_by() {
        References::Arc => call::<ArcRef>(threading, calls),
        References::Rc => call::<RcRef>(threading, calls),
    }
}

fn call<R: Reference>(threading: &Threading, calls: u32) -> io::Result<Duration> {
    let (done, batches) = bounded::<Batch<R>>(1);
    let tell: Tell<R> = Arc::new(move |batch| done.send(batch).is_ok());
    let nothing = || -> Make<R> { Box::new(|_| ()) };
    let store: Make<R> = Box::new(|station| station.host.add_store(Store::new(Vec::new())));
    let mut crew = Crew::start(threading, [nothing(), nothing(), store, nothing(), nothing()], &tell)?;
    let begin = Instant::now();
    for ticket in 0..u64::from(calls) {
        let look = StoreInput::Look { ticket, key: "name".to_owned(), wanted: 1 };
        crew.give(Item::Store(look));
        while !crew.answered(Instant::now())? {
            crew.take(batches.recv().map_err(io::Error::other)?)?;
        }
    }
    Ok(begin.elapsed())
}
