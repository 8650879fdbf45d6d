//! What stands in for the standard library and for mio.

use std::{io, sync::Arc as StdArc};

pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, atomic};

use crate::wire::Wire;

pub(crate) mod thread {
    pub(crate) use shuttle::thread::{Thread, current, panicking, park};

    /// There is no time here: whatever others do may happen before it is over.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        shuttle::thread::yield_now();
    }
}

/// Interrupts the wait for a packet alone.
#[derive(Debug)]
pub(crate) struct Bell(pub(crate) StdArc<Wire>);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.ring();
    }
}

/// Interrupts the wait for a wire.
#[derive(Debug)]
pub(crate) struct Waker(pub(crate) StdArc<Wire>);

impl Waker {
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.0.interrupt();
        Ok(())
    }
}
