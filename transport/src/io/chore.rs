//! What callers have done beside the streams: known to the poll as a source, done between two turns.

#[cfg(unix)]
mod readable;

use std::{
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Instant,
};

use mio::Token;

use super::{clock, lock::Lock as _, sources::Source};
use crate::transport::Shared;

/// One chore, for as long as its owner wants it done.
pub(crate) struct Task {
    token: Token,
    /// Until somebody does it, it is not asked for again.
    due: Mutex<bool>,
    /// Locked while it is done.
    work: Mutex<Option<Work>>,
    #[cfg(unix)]
    source: readable::Watched,
}

/// Says when it is to be done again although nothing happened.
type Work = Box<dyn FnMut(Instant) -> Option<Instant> + Send>;

impl Task {
    pub(crate) fn begin(shared: &Shared, first: Instant, work: Work) -> Arc<Self> {
        let mut sources = shared.sources.hold();
        let token = sources.reserve();
        let task = Arc::new(Self {
            token,
            due: Mutex::default(),
            work: Mutex::new(Some(work)),
            #[cfg(unix)]
            source: readable::Watched::default(),
        });
        sources.fill(token, Source::Chore(task.clone()));
        sources.set_timer(token, Some(first));
        drop(sources);
        shared.crank.poke(first);
        task
    }

    /// It is to be done, after this turn.
    pub(crate) fn come_due(self: &Arc<Self>, shared: &Arc<Shared>) {
        if !std::mem::replace(&mut *self.due.hold(), true) {
            let (task, within) = (self.clone(), Arc::downgrade(shared));
            shared.crank.send_on(Box::new(move || task.work(&within)));
        }
    }

    fn work(&self, within: &Weak<Shared>) {
        // Before the work: what happens meanwhile is its next occasion.
        *self.due.hold() = false;
        let mut work = self.work.hold();
        let (Some(shared), Some(call)) = (within.upgrade(), work.as_mut()) else { return };
        let next = call(clock::now());
        drop(work);
        shared.sources.hold().set_timer(self.token, next);
        if let Some(next) = next {
            shared.crank.poke(next);
        }
    }

    /// After this it is not done any more.
    pub(crate) fn end(&self, shared: &Shared) {
        #[cfg(unix)]
        self.source.unwatch(&shared.registry);
        let source = shared.sources.hold().remove(self.token);
        drop(source);
        let work = self.work.hold().take();
        drop(work);
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Task").field("token", &self.token).finish_non_exhaustive()
    }
}
