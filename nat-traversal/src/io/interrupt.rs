use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;

/// Ends blocking calls from another thread: the calls of one
/// [`MappingContext`](crate::MappingContext) that run now, and all later ones.
///
/// ```
/// use nat_traversal::{MapError, MappedUdpSocket, MappingConfig, MappingContext};
///
/// let context = MappingContext::new(MappingConfig::new().port_map(false))?;
/// context.interrupter().interrupt();
/// assert!(matches!(MappedUdpSocket::new(&context), Err(MapError::Interrupted)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Interrupter {
    waits: Arc<Mutex<Waits>>,
}

impl Interrupter {
    /// Ends the calls. They return an error named `Interrupted` within milliseconds. Never blocks.
    pub fn interrupt(&self) {
        let wakers = {
            let mut waits = self.lock();
            waits.interrupted = true;
            waits.wakers.iter().map(|(_, waker)| Arc::clone(waker)).collect::<Vec<_>>()
        };
        for waker in wakers {
            if let Err(error) = waker.wake() {
                tracing::warn!(%error, "cannot wake a waiting call; it goes on until its deadline");
            }
        }
    }

    /// Whether [`interrupt`](Self::interrupt) has been called.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.lock().interrupted
    }

    /// Has `waker` woken by an interruption for as long as the guard lives.
    pub(crate) fn watch(&self, waker: impl Into<Arc<Waker>>) -> io::Result<Watch> {
        let mut waits = self.lock();
        if waits.wakers.len() >= MAX_WAITS {
            return Err(io::Error::other("too many calls wait on one mapping context"));
        }
        let number = waits.next;
        waits.next += 1;
        waits.wakers.push((number, waker.into()));
        drop(waits);
        Ok(Watch { interrupter: self.clone(), number })
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        // Whoever panicked under the lock left a list that is whole at every step.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupter").field("interrupted", &self.is_interrupted()).finish()
    }
}

/// One call that an interruption wakes.
pub(crate) struct Watch {
    interrupter: Interrupter,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.interrupter.lock().wakers.retain(|(number, _)| *number != self.number);
    }
}

#[derive(Default)]
struct Waits {
    interrupted: bool,
    wakers: Vec<(u64, Arc<Waker>)>,
    next: u64,
}

/// Calls at a time. Each has a thread of its own, so that more are a leak.
const MAX_WAITS: usize = 1_024;
