//! Where one thread waits for one thing: half a stream, a dial, an accept queue.

use std::{fmt, time::Instant};

use super::{
    alarm::Alarm,
    clock,
    lock::Lock as _,
    ready_list::ReadyList,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
        thread::{self, Thread},
    },
};

/// A flag that stays up until it is looked at, and whoever is to be told.
///
/// No wake-up is lost, by the order of steps alone: a waiter first says how it waits, then looks at the flag; a waker
/// first puts the flag up, then looks who waits. Whichever comes second sees the other.
pub(crate) struct Slot {
    ready: AtomicBool,
    waiting: AtomicU8,
    place: Mutex<Place>,
    /// Interrupts whoever turns the crank, if that is the waiter.
    alarm: Arc<Alarm>,
}

#[derive(Default)]
struct Place {
    thread: Option<Thread>,
    list: Option<(Arc<ReadyList>, usize)>,
}

/// How the one who waits wants to be told; the values of `Slot::waiting`.
const NOBODY: u8 = 0;
const PARKED: u8 = 1;
const LEADING: u8 = 2;
const LISTED: u8 = 3;

impl Slot {
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        Self { ready: AtomicBool::new(false), waiting: AtomicU8::new(NOBODY), place: Mutex::default(), alarm }
    }

    /// Puts the flag up and tells whoever waits. Never call it under a lock: the woken thread may preempt the caller and
    /// run into that very lock.
    pub(crate) fn wake(&self) {
        self.signal(false);
    }

    /// The same from within a turn of the crank, whose leader looks at its own flag after the turn. Tells whether
    /// somebody else than that leader was told.
    pub(super) fn wake_in_turn(&self) -> bool {
        self.signal(true)
    }

    fn signal(&self, in_turn: bool) -> bool {
        if self.ready.swap(true, SeqCst) {
            return false; // Whoever put it up has told, or will.
        }
        match self.waiting.load(SeqCst) {
            PARKED => {
                // The handle is cloned and the lock left before the thread wakes, lest it run into the lock.
                let thread = self.place.hold().thread.clone();
                if let Some(thread) = thread {
                    thread.unpark();
                }
                true
            }
            LEADING if !in_turn => {
                self.alarm.wake();
                true
            }
            LISTED => {
                let list = self.place.hold().list.clone();
                list.is_some_and(|(list, key)| list.push(key, in_turn))
            }
            _ => false,
        }
    }

    /// Takes the flag down and tells whether it was up.
    pub(crate) fn take_ready(&self) -> bool {
        // The plain load keeps the common case, nothing there, free of a locked instruction.
        self.ready.load(SeqCst) && self.ready.swap(false, SeqCst)
    }

    /// Whether somebody waits, or a set listens.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(SeqCst) != NOBODY
    }

    /// Whether a set listens.
    pub(crate) fn is_listed(&self) -> bool {
        self.waiting.load(SeqCst) == LISTED
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(SeqCst)
    }

    /// Makes the calling thread the one to be unparked.
    pub(super) fn wait_parked(&self) {
        let thread = thread::current();
        {
            let mut place = self.place.hold();
            if place.thread.as_ref().is_none_or(|known| known.id() != thread.id()) {
                place.thread = Some(thread);
            }
        }
        self.waiting.store(PARKED, SeqCst);
    }

    /// Says that the waiter now turns the crank itself.
    pub(super) fn wait_leading(&self) {
        self.waiting.store(LEADING, SeqCst);
    }

    /// Says that nobody waits, unless a set listens.
    pub(super) fn wait_over(&self) {
        self.waiting.store(NOBODY, SeqCst);
    }

    /// Parks the calling thread, which has called `wait_parked`, until the flag is up or the deadline has passed.
    /// Tells whether the flag was up, and takes it down.
    pub(super) fn park(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.take_ready() {
                return true;
            }
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
    }

    /// Waits without the crank, for what another thread does. Tells whether the flag was up.
    #[cfg(test)]
    pub(super) fn wait_alone(&self, deadline: Option<Instant>) -> bool {
        self.wait_parked();
        let ready = self.park(deadline);
        self.wait_over();
        ready
    }

    /// Lets a set listen: from now on a wake puts `key` into its list. What is ready already is put there at once.
    pub(crate) fn attach(&self, list: &Arc<ReadyList>, key: usize) {
        self.place.hold().list = Some((list.clone(), key));
        self.waiting.store(LISTED, SeqCst);
        if self.is_ready() {
            list.push(key, false);
        }
    }

    /// Ends what `attach` began.
    pub(crate) fn detach(&self) {
        self.waiting.store(NOBODY, SeqCst);
        self.place.hold().list = None;
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Slot").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

/// Slots to wake, collected under locks and woken after them.
#[derive(Debug, Default)]
pub(crate) struct Wakes(Vec<Arc<Slot>>);

impl Wakes {
    pub(crate) fn push(&mut self, slot: &Arc<Slot>) {
        self.0.push(slot.clone());
    }

    /// Wakes them all. No lock may be held.
    pub(crate) fn fire(&mut self) {
        for slot in self.0.drain(..) {
            slot.wake();
        }
    }

    /// The same from within a turn; tells whether somebody else than the leader was told.
    pub(super) fn fire_in_turn(&mut self) -> bool {
        self.0.drain(..).fold(false, |others, slot| slot.wake_in_turn() | others)
    }
}
