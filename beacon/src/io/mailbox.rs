//! What callers ask of the thread, and what the thread tells them: the latest word counts, so nothing can pile up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;

use crate::stats::Stats;
use crate::warning::Warning;

/// Shared between the controllers and the thread.
#[derive(Debug)]
pub(crate) struct Mailbox {
    requests: Mutex<Requests>,
    report: Mutex<Report>,
    waker: Waker,
}

/// What is asked of the thread.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) data: Option<Data>,
    pub(crate) period: Option<Duration>,
    pub(crate) search: bool,
    pub(crate) close: bool,
}

/// What to announce.
#[derive(Debug)]
pub(crate) enum Data {
    Announced(Vec<u8>),
    Hidden,
}

/// What the thread has to tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) warnings: Vec<Warning>,
    pub(crate) stats: Stats,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { requests: Mutex::default(), report: Mutex::default(), waker }
    }

    /// Changes what is asked of the thread, and wakes it.
    pub(crate) fn request(&self, change: impl FnOnce(&mut Requests)) {
        change(&mut lock(&self.requests));
        // A failed wake-up cannot be mended; the thread still looks in at its next timer.
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "the beacon's thread could not be woken");
        }
    }

    /// Takes what was asked since the last call.
    pub(crate) fn take(&self) -> Requests {
        std::mem::take(&mut lock(&self.requests))
    }

    /// Changes the report.
    pub(crate) fn report(&self, change: impl FnOnce(&mut Report)) {
        change(&mut lock(&self.report));
    }

    /// The report as it stands.
    pub(crate) fn read(&self) -> Report {
        lock(&self.report).clone()
    }
}

/// Both contents are whole at every step, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
