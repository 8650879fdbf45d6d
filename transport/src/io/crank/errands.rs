//! Work of others that is due, done between two turns by a thread that does not hold the crank.

use std::fmt;

use super::super::{
    lock::Lock as _,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// Each is done once.
pub(crate) type Errand = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Errands {
    due: Mutex<Vec<Errand>>,
    /// So that asking costs no lock.
    some: AtomicBool,
}

impl Errands {
    pub(super) fn push(&self, errand: Errand) {
        self.due.hold().push(errand);
        self.some.store(true, SeqCst);
    }

    /// It may say no for a moment after the last was taken, and never yes after one was pushed.
    pub(super) fn is_empty(&self) -> bool {
        !self.some.load(SeqCst)
    }

    pub(super) fn take(&self) -> Vec<Errand> {
        self.some.store(false, SeqCst);
        std::mem::take(&mut *self.due.hold())
    }
}

impl fmt::Debug for Errands {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Errands").finish_non_exhaustive()
    }
}
