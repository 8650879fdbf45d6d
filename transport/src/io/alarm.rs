//! Wakes whoever turns the crank, wherever it waits: in the poll, or in a receive.

use std::fmt;

use super::{
    lock::Lock as _,
    sync::{
        Arc, Bell, Mutex, Waker,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// A leader that waits in a receive does not hear the poll's waker, so it is sent a datagram.
///
/// No wake-up is lost, by the order of steps alone: who wakes first says so, **then** looks whether the leader is deaf; the
/// leader first says that it is deaf, **then** looks whether it was woken since it last asked the poll.
pub(crate) struct Alarm {
    waker: Waker,
    /// Somebody has woken the leader, and it has not asked the poll since.
    rung: AtomicBool,
    /// The leader waits in a receive, or is about to.
    deaf: AtomicBool,
    /// What ends that receive.
    bell: Mutex<Option<Arc<Bell>>>,
}

impl Alarm {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { waker, rung: AtomicBool::new(false), deaf: AtomicBool::new(false), bell: Mutex::default() }
    }

    /// Ends the leader's wait, or its next one.
    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "cannot interrupt the poll");
        }
        self.wake_receiver();
    }

    /// Has a leader that waits in a receive, or is about to, ask the poll.
    pub(crate) fn wake_receiver(&self) {
        self.rung.store(true, SeqCst);
        if self.deaf.load(SeqCst) {
            let bell = self.bell.hold().clone();
            if let Some(bell) = bell {
                bell.ring();
            }
        }
    }

    /// Call it before each poll, which hears whatever was rung before.
    pub(crate) fn will_poll(&self) {
        if self.rung.load(SeqCst) {
            self.rung.store(false, SeqCst);
        }
    }

    /// By what a leader is woken that waits in a receive.
    pub(crate) fn set_bell(&self, bell: Option<Arc<Bell>>) {
        *self.bell.hold() = bell;
    }

    /// Call it before waiting in a receive. `None`: the leader was woken since it last asked the poll, and is to ask it again.
    pub(crate) fn will_receive(&self) -> Option<Deaf<'_>> {
        self.deaf.store(true, SeqCst);
        let deaf = Deaf(self);
        (!self.rung.load(SeqCst)).then_some(deaf)
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Alarm").field("rung", &self.rung.load(SeqCst)).finish_non_exhaustive()
    }
}

/// The leader waits in a receive, until this is dropped.
pub(crate) struct Deaf<'a>(&'a Alarm);

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.0.deaf.store(false, SeqCst);
    }
}
