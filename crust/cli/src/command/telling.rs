use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam::{
    channel::{Sender, bounded},
    select,
};
use crust::ServiceController;

use super::tell_event;
use crate::{events::Output, failure::Failure};

/// Tells what happens when it does: the DHT is told where we are some seconds after the start, and then again and again.
pub(super) struct Telling {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Telling {
    pub(super) fn start(controller: &Arc<ServiceController>, output: Output) -> Result<Self, Failure> {
        let events = controller.events().clone();
        let (stop, stopped) = bounded::<()>(0);
        let work = move || {
            loop {
                select! {
                    recv(events) -> event => match event {
                        Ok(event) => tell_event(event, output),
                        Err(_) => return,
                    },
                    recv(stopped) -> _ => return,
                }
            }
        };
        let thread = thread::Builder::new().name("crust-events".into()).spawn(work);
        let thread = thread.map_err(|error| Failure::of("system", &error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
