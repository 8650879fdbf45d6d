use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
        let (wakers, parts) = {
            let mut waits = self.lock();
            waits.interrupted = true;
            let wakers = waits.wakers.iter().map(|(_, waker)| Arc::clone(waker)).collect::<Vec<_>>();
            (wakers, std::mem::take(&mut waits.parts))
        };
        for waits in parts.iter().filter_map(Weak::upgrade) {
            Self { waits }.interrupt();
        }
        for waker in wakers {
            if let Err(error) = waker.wake() {
                tracing::warn!(%error, "cannot wake a waiting call; it goes on until its deadline");
            }
        }
    }

    /// One for a part of the calls: it is interrupted with this one, but not the other way round.
    pub(crate) fn part(&self) -> Self {
        let part = Self::default();
        let mut waits = self.lock();
        waits.parts.retain(|known| known.strong_count() > 0);
        waits.parts.push(Arc::downgrade(&part.waits));
        part.lock().interrupted = waits.interrupted;
        drop(waits);
        part
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
#[derive(Debug)]
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
    /// Each belongs to a context that somebody holds.
    parts: Vec<Weak<Mutex<Self>>>,
    next: u64,
}

/// Calls at a time. Each has a thread of its own, so that more are a leak.
const MAX_WAITS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_with_the_whole_and_not_the_other_way_round() {
        let whole = Interrupter::default();
        let (one, other) = (whole.part(), whole.part());
        one.interrupt();
        assert!(one.is_interrupted() && !other.is_interrupted() && !whole.is_interrupted());
        whole.interrupt();
        assert!(other.is_interrupted() && whole.part().is_interrupted(), "those that come later too");
    }
}
