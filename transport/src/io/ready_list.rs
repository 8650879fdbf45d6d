use super::{
    lock::Lock as _,
    slot::Slot,
    sync::{
        Arc, Mutex, Waker,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// The keys of a set's members that became ready since the set last looked. At most one entry a slot, since a slot's
/// flag stays up until its member is read.
#[derive(Debug)]
pub(crate) struct ReadyList {
    keys: Mutex<Vec<usize>>,
    /// Woken while the set waits by the crank.
    slot: Arc<Slot>,
    /// Woken while the set waits in a poll of its own.
    waker: Waker,
    polling: AtomicBool,
    /// Somebody wants the set to return, whether or not a member is ready.
    interrupted: AtomicBool,
}

impl ReadyList {
    pub(crate) fn new(slot: Arc<Slot>, waker: Waker) -> Self {
        Self {
            keys: Mutex::default(),
            slot,
            waker,
            polling: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
        }
    }

    /// The slot by which the set waits at the crank.
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Says whether the set waits in a poll of its own. Set it before looking at the keys for the last time.
    pub(crate) fn set_polling(&self, polling: bool) {
        self.polling.store(polling, SeqCst);
    }

    /// Adds a key; tells whether somebody else than the leader of this turn was told.
    pub(super) fn push(&self, key: usize, in_turn: bool) -> bool {
        let first = {
            let mut keys = self.keys.hold();
            keys.push(key);
            keys.len() == 1
        };
        first && self.notify(in_turn)
    }

    fn notify(&self, in_turn: bool) -> bool {
        if self.polling.load(SeqCst) {
            if let Err(error) = self.waker.wake() {
                tracing::warn!(%error, "cannot interrupt the poll of a stream set");
            }
            true
        } else if in_turn {
            self.slot.wake_in_turn()
        } else {
            self.slot.wake();
            true
        }
    }

    /// Moves the keys out, into the place of an emptied list.
    pub(crate) fn take(&self, keys: &mut Vec<usize>) {
        keys.clear();
        std::mem::swap(keys, &mut self.keys.hold());
    }

    /// Wakes the set without any key.
    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, SeqCst);
        self.notify(false);
    }

    /// Whether `interrupt` was called since the last look.
    pub(crate) fn take_interrupted(&self) -> bool {
        self.interrupted.swap(false, SeqCst)
    }
}
