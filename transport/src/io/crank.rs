//! Who turns the crank: which thread waits for the network and hands out what came.
//!
//! A caller that must wait takes the crank if it is free (it *leads*), polls the sockets itself and leaves when its own
//! slot is ready: no other thread runs between the packet and the caller. Others that wait meanwhile *follow*: parked, and
//! woken through their slots. The background thread stands in when nobody leads.
//!
//! ```text
//!              free? ──yes──► lead: turn until my slot is ready ──► leave: pass on, or leave it to the background
//!  wait(slot) ─┤                                   │
//!              └──no──► follow: park ◄── slot woken┘       background: TICK ─(nobody turned for some)──► lead
//!                                                                     ▲                                    │
//!                                                                     └────── a caller wants the crank ◄───┘
//! ```
//!
//! The orders of steps that lose no hand-over, all sequentially consistent:
//! * a follower enters the list, **then** tries the crank once more, then parks; a leader frees the crank, **then** looks
//!   into the list, or whether it grew;
//! * the dozing background thread says so, **then** tries the crank once more; a leader frees it, **then** looks for it;
//! * whoever has an errand for the background thread puts it down, **then** looks whether that dozes; the thread says that it
//!   dozes, **then** looks for errands;
//! * a leader says that it sleeps without end, **then** reads the timers; a caller sets a timer, **then** looks how long the
//!   leader sleeps;
//! * a leader that waits in a receive is deaf to the poll's waker: [`Alarm`] has the order for that.

#[path = "crank/errands.rs"] // said, since `transport/model` includes this file from elsewhere
mod errands;
#[path = "crank/sleep.rs"] // the same
mod sleep;

use std::time::{Duration, Instant};

use self::errands::Errands;
pub(crate) use self::{errands::Errand, sleep::Sleep};
use super::{
    alarm::Alarm,
    clock,
    lock::Lock as _,
    slot::Slot,
    sync::{
        Arc, Mutex, MutexGuard, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst, fence},
        thread::{self, Thread},
    },
};

/// What the crank turns.
pub(crate) trait Turn {
    /// Waits for the network until the deadline at the latest, and deals with what came. `sleep` is told how long the wait
    /// will be, in the order given above. Tells whether a slot other than the leader's was woken.
    fn turn(&mut self, deadline: Option<Instant>, sleep: &Sleep) -> bool;
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The slot was woken, perhaps for nothing: look again.
    Ready,
    /// The deadline passed.
    TimedOut,
    /// The transport is closed, or its driver has panicked.
    Closed,
}

pub(crate) struct Crank<D> {
    driver: Mutex<Driven<D>>,
    followers: Mutex<Vec<Arc<Slot>>>,
    sleep: Sleep,
    background: Background,
    errands: Errands,
    turns: AtomicU64,
    /// How often somebody began to follow.
    arrivals: AtomicU64,
    /// Many callers wait at a time: the background thread turns for all, which is as cheap and needs no hand-over.
    crowded: AtomicBool,
    closed: AtomicBool,
}

struct Driven<D> {
    driver: D,
    /// Above 0 while turns lately woke others than their leader.
    shared: u32,
}

#[derive(Default)]
struct Background {
    thread: Mutex<Option<Thread>>,
    exists: AtomicBool,
    turning: AtomicBool,
    dozing: AtomicBool,
    /// It ticks slowly, since callers have been at it for long; whoever takes this down wants it to look soon.
    is_slow: AtomicBool,
    /// A caller wants the crank that the background thread holds.
    wanted: AtomicBool,
}

impl<D: Turn> Crank<D> {
    pub(crate) fn new(driver: D, alarm: Arc<Alarm>) -> Self {
        Self {
            driver: Mutex::new(Driven { driver, shared: 0 }),
            followers: Mutex::default(),
            sleep: Sleep::new(alarm),
            background: Background::default(),
            errands: Errands::default(),
            turns: AtomicU64::new(0),
            arrivals: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Wakes whoever turns.
    pub(crate) fn alarm(&self) -> &Alarm {
        &self.sleep.alarm
    }

    /// A slot whose waits go by this crank.
    pub(crate) fn slot(&self) -> Arc<Slot> {
        Arc::new(Slot::new(self.sleep.alarm.clone()))
    }

    /// Waits until the slot is woken, turning the crank if nobody else does. One thread a slot at a time.
    pub(crate) fn wait(&self, slot: &Arc<Slot>, deadline: Option<Instant>) -> Waited {
        let waited = self.wait_in_place(slot, deadline);
        slot.wait_over();
        waited
    }

    fn wait_in_place(&self, slot: &Arc<Slot>, deadline: Option<Instant>) -> Waited {
        let mut made_room = false;
        loop {
            if slot.take_ready() {
                return Waited::Ready;
            }
            if let Some(end) = self.end_of_wait(deadline) {
                return end;
            }
            let mut place = None;
            let free = if made_room {
                None
            } else {
                self.try_lead().or_else(|| {
                    place = Some(self.follow(slot));
                    self.try_lead()
                })
            };
            if let Some(driven) = free {
                drop(place);
                match self.lead(driven, slot, deadline) {
                    Led::Until(waited) => return waited,
                    Led::MadeRoom => made_room = true,
                    Led::ToAnErrand => self.run_errands(),
                }
                continue;
            }
            let _place = place.unwrap_or_else(|| self.follow(slot));
            if self.closed.load(SeqCst) {
                return Waited::Closed;
            }
            if slot.park(deadline) {
                return Waited::Ready;
            }
        }
    }

    /// One turn for an application that lends its own thread ([`crate::Driver::Caller`]): until something happened.
    pub(crate) fn turn_once(&self, deadline: Instant) -> Waited {
        if let Some(end) = self.end_of_wait(Some(deadline)) {
            return end;
        }
        if let Some(mut driven) = self.try_lead() {
            let guard = CloseOnPanic(self);
            driven.driver.turn(Some(deadline), &self.sleep);
            drop(driven);
            drop(guard);
            self.let_go();
            if !self.background.exists.load(SeqCst) {
                self.run_errands();
            }
            return self.end_of_wait(None).unwrap_or(Waited::Ready);
        }
        // Somebody else turns; when it leaves, it is our turn.
        self.wait(&self.slot(), Some(deadline))
    }

    fn lead(&self, mut driven: MutexGuard<'_, Driven<D>>, slot: &Slot, deadline: Option<Instant>) -> Led {
        slot.wait_leading();
        let guard = CloseOnPanic(self);
        let mut others = false;
        let mut for_others = 0;
        let waited = loop {
            if slot.take_ready() {
                break Waited::Ready;
            }
            if let Some(end) = self.end_of_wait(deadline) {
                break end;
            }
            others = driven.driver.turn(deadline, &self.sleep);
            driven.shared = if others { SHARED_FOR_TURNS } else { driven.shared.saturating_sub(1) };
            self.turns.fetch_add(1, SeqCst);
            for_others += u32::from(others);
            if for_others >= STEP_DOWN_AFTER && others && self.background.exists.load(SeqCst) {
                // Those just woken come back for the crank; if they do not, the background thread sees to it.
                driven.shared = 0;
                slot.wait_parked();
                drop(driven);
                drop(guard);
                fence(SeqCst);
                if self.background.dozing.load(SeqCst) {
                    self.background.unpark();
                }
                return Led::MadeRoom;
            }
            if !self.errands.is_empty() && !self.background.exists.load(SeqCst) {
                slot.wait_parked();
                drop(driven);
                drop(guard);
                fence(SeqCst);
                self.promote();
                return Led::ToAnErrand;
            }
        };
        let shared = driven.shared > 0;
        drop(driven);
        drop(guard);
        self.pass_on(others, shared);
        Led::Until(waited)
    }

    /// Has something done between two turns: by the background thread, or where there is none by whoever leads. For whoever
    /// turns, and from within the turn.
    pub(crate) fn send_on(&self, errand: Errand) {
        self.errands.push(errand);
        fence(SeqCst);
        if self.background.dozing.load(SeqCst) {
            self.background.unpark();
        }
    }

    fn run_errands(&self) {
        if self.errands.is_empty() {
            return;
        }
        let _guard = CloseOnPanic(self);
        self.errands.take().into_iter().for_each(|errand| errand());
    }

    /// What a leader does after it has freed the crank.
    fn pass_on(&self, others: bool, shared: bool) {
        fence(SeqCst);
        if !self.background.exists.load(SeqCst) {
            // Those just woken may stay away for long, so somebody who still waits must take over.
            return self.promote();
        }
        if shared && self.followers.hold().len() >= CROWD {
            self.crowded.store(true, SeqCst);
            return self.background.unpark();
        }
        // Whoever was woken comes back for the crank. If nobody was, and none of the followers had anything to do lately,
        // the leader is likely to be back before them; the background thread sees to it within a tick.
        if shared && !others {
            self.promote();
        }
        if self.background.dozing.load(SeqCst) {
            self.background.unpark();
        }
    }

    /// Passes the crank on, if it is free, before the calling thread goes away for long.
    pub(crate) fn leave(&self) {
        if let Ok(free) = self.driver.try_lock() {
            drop(free);
            self.let_go();
        }
    }

    /// What whoever held the crank for a moment does after freeing it. The background thread may have found it taken.
    fn let_go(&self) {
        fence(SeqCst);
        self.promote();
        if self.background.dozing.load(SeqCst) {
            self.background.unpark();
        }
    }

    /// Wakes one follower for nothing, so that it tries for the crank: the one who came last, since those who sit there for
    /// long, such as one that accepts, would turn for others only.
    fn promote(&self) {
        let next = self.followers.hold().iter().rev().find(|slot| !slot.is_ready()).cloned();
        if let Some(slot) = next {
            slot.wake();
        }
    }

    fn follow<'c>(&'c self, slot: &'c Arc<Slot>) -> Following<'c> {
        slot.wait_parked();
        self.followers.hold().push(slot.clone());
        self.arrivals.fetch_add(1, SeqCst);
        fence(SeqCst);
        if self.background.turning.load(SeqCst) && !self.crowded.load(SeqCst) {
            self.background.wanted.store(true, SeqCst);
            self.sleep.alarm.wake();
        }
        Following { followers: &self.followers, slot }
    }

    fn try_lead(&self) -> Option<MutexGuard<'_, Driven<D>>> {
        if self.crowded.load(SeqCst) {
            return None;
        }
        self.try_hold()
    }

    fn try_hold(&self) -> Option<MutexGuard<'_, Driven<D>>> {
        match self.driver.try_lock() {
            Ok(driven) => Some(driven),
            Err(TryLockError::WouldBlock) => None,
            // `CloseOnPanic` has closed us or is about to.
            Err(TryLockError::Poisoned(_)) => None,
        }
    }

    fn end_of_wait(&self, deadline: Option<Instant>) -> Option<Waited> {
        if self.closed.load(SeqCst) {
            return Some(Waited::Closed);
        }
        deadline.is_some_and(|deadline| clock::now() >= deadline).then_some(Waited::TimedOut)
    }

    /// Tells a sleeping leader of a timer, if it is earlier than those it knows. Set the timer first.
    pub(crate) fn poke(&self, timer: Instant) {
        self.sleep.poke(timer);
        // The caller may not come back for long, and somebody must see to the timer.
        if self.background.is_slow.load(SeqCst)
            && !self.sleep.is_on()
            && timer < clock::now() + LONGEST_TICK
            && self.background.is_slow.swap(false, SeqCst)
        {
            self.background.unpark();
        }
    }

    /// Ends every wait, now and in future.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.sleep.alarm.wake();
        let followers: Vec<_> = self.followers.hold().clone();
        for slot in followers {
            slot.wake();
        }
        self.background.unpark();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Takes the crank once it is free, to take things down after `close`.
    pub(crate) fn with_driver<R>(&self, work: impl FnOnce(&mut D) -> R) -> R {
        work(&mut self.driver.hold().driver)
    }

    /// The life of the background thread, until `close`.
    pub(crate) fn run_background(&self) {
        *self.background.thread.hold() = Some(thread::current());
        self.background.exists.store(true, SeqCst);
        let mut looks = 0;
        let mut tick = TICK;
        while !self.is_closed() {
            self.run_errands();
            let seen = self.turns.load(SeqCst);
            if !self.crowded.load(SeqCst) {
                if self.background.wait_for(tick) {
                    tick = TICK;
                    continue;
                }
                tick = (tick * 2).min(LONGEST_TICK);
                if self.turns.load(SeqCst) != seen && !self.crowded.load(SeqCst) {
                    looks = 0;
                    continue; // Callers are at it.
                }
            }
            tick = TICK;
            match self.try_hold() {
                Some(driven) if looks < LOOKS && !self.crowded.load(SeqCst) => {
                    looks += 1;
                    self.look(driven);
                }
                Some(driven) => self.lead_in_background(driven),
                None => self.doze(),
            }
        }
    }

    /// Deals with what is there and leaves the crank at once: callers that are at work between two waits are likely to be back
    /// soon, and taking it from them and giving it back would cost more than it saves.
    fn look(&self, mut driven: MutexGuard<'_, Driven<D>>) {
        let seen = self.arrivals.load(SeqCst);
        let guard = CloseOnPanic(self);
        driven.driver.turn(Some(clock::now()), &self.sleep);
        drop(driven);
        drop(guard);
        fence(SeqCst);
        if self.arrivals.load(SeqCst) != seen {
            self.promote(); // Whoever came found the crank taken.
        }
    }

    /// A leader sits there: sleep until it leaves.
    fn doze(&self) {
        self.background.dozing.store(true, SeqCst);
        fence(SeqCst);
        if let Some(driven) = self.try_hold() {
            self.lead_in_background(driven);
        } else if !self.is_closed() && self.errands.is_empty() {
            thread::park();
        }
        self.background.dozing.store(false, SeqCst);
    }

    fn lead_in_background(&self, mut driven: MutexGuard<'_, Driven<D>>) {
        self.background.dozing.store(false, SeqCst);
        self.background.turning.store(true, SeqCst);
        let guard = CloseOnPanic(self);
        let mut thin = 0;
        while !self.is_closed() {
            driven.driver.turn(None, &self.sleep);
            if self.crowded.load(SeqCst) {
                thin = if self.followers.hold().len() < CROWD { thin + 1 } else { 0 };
                // A crowd that is being served is never complete, so it is over only when it stays away.
                if thin > SHARED_FOR_TURNS {
                    self.crowded.store(false, SeqCst);
                }
            }
            let is_wanted = self.background.wanted.swap(false, SeqCst) && !self.crowded.load(SeqCst);
            if is_wanted || !self.errands.is_empty() {
                break;
            }
        }
        self.background.turning.store(false, SeqCst);
        drop(driven);
        drop(guard);
        fence(SeqCst);
        self.promote();
    }
}

/// Why a leader leads no more.
enum Led {
    /// Its wait is over.
    Until(Waited),
    /// It turned for others only, and steps down so that one of those leads; it now waits parked.
    MadeRoom,
    /// There is something to do between two turns, and nobody else to do it; it now waits parked.
    ToAnErrand,
}

/// A place in the list of followers, given up on drop.
struct Following<'c> {
    followers: &'c Mutex<Vec<Arc<Slot>>>,
    slot: &'c Arc<Slot>,
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        let mut followers = self.followers.hold();
        if let Some(index) = followers.iter().position(|one| Arc::ptr_eq(one, self.slot)) {
            followers.swap_remove(index);
        }
    }
}

impl Background {
    /// Waits for a tick; tells whether it ended early, since somebody wants shorter ones.
    fn wait_for(&self, tick: Duration) -> bool {
        let slow = tick > TICK;
        self.is_slow.store(slow, SeqCst);
        thread::park_timeout(tick);
        slow && !self.is_slow.swap(false, SeqCst)
    }

    fn unpark(&self) {
        let thread = self.thread.hold().clone();
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}

/// Ends every wait if the thread that turns panics, so that callers get an error and never hang.
struct CloseOnPanic<'c, D: Turn>(&'c Crank<D>);

impl<D: Turn> Drop for CloseOnPanic<'_, D> {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("the driver of a transport panicked; it is closed");
            self.0.close();
        }
    }
}

/// How long nobody may turn before the background thread does: a caller between two reads is back long before.
const TICK: Duration = Duration::from_millis(1);
/// The same after callers have been at it for long, since each tick costs the one it interrupts a hundredth of a tick.
const LONGEST_TICK: Duration = Duration::from_millis(5);
/// In how many such ticks it only looks, before it takes the crank for good.
const LOOKS: u32 = 4;
/// From so many parked callers on, handing the crank from one to the next costs more than a thread that keeps it.
const CROWD: usize = 4;
/// A leader whose own slot stays quiet, such as one that accepts, makes room for those it keeps waking: else each of their
/// packets costs a switch of threads.
const STEP_DOWN_AFTER: u32 = 4;
/// For how many turns the crank counts as shared after a turn that woke others.
const SHARED_FOR_TURNS: u32 = 64;

#[cfg(test)]
#[path = "crank/tests.rs"] // said, since `transport/model` includes this file from elsewhere
mod tests;
