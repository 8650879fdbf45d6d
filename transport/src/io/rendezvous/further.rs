//! Ways to the peer that a call with `single` learns of while it is under way.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::half::Half;
use crate::{
    Interrupter, Scheme,
    io::{crank::Waited, lock::Lock as _, slot::Slot},
    protocol::offer::Offer,
    rendezvous::RendezvousError,
};

/// Shared by the call and those who find the ways.
#[derive(Debug, Default)]
pub(crate) struct Further {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    found: Found,
    next: IntroductionNumber,
    /// By which the call is told.
    slot: Option<Arc<Slot>>,
    /// By which those are told who wait for its end.
    waiting: Vec<Arc<Slot>>,
    is_over: bool,
}

/// What the call has not taken in yet.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) listeners: Vec<(Scheme, SocketAddr)>,
    pub(super) introductions: Vec<Way>,
    pub(super) ended: Vec<IntroductionNumber>,
}

/// One introduction.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) number: IntroductionNumber,
    pub(super) half: Arc<Half>,
    pub(super) theirs: Offer,
}

/// Tells the introductions of one call apart.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct IntroductionNumber(u64);

impl Further {
    /// The call begins; `slot` is woken by whatever is found. Its end is that of the guard.
    pub(super) fn begin(&self, slot: &Arc<Slot>) -> UnderWay<'_> {
        let mut state = self.state.hold();
        state.is_over = false;
        state.slot = Some(slot.clone());
        UnderWay(self)
    }

    pub(super) fn take(&self) -> Found {
        std::mem::take(&mut self.state.hold().found)
    }

    /// The peer may be dialled there as well.
    pub(crate) fn add_listeners(&self, listeners: impl IntoIterator<Item = (Scheme, SocketAddr)>) {
        let mut state = self.state.hold();
        for listener in listeners {
            if state.found.listeners.len() < MAX_LISTENERS && !state.found.listeners.contains(&listener) {
                state.found.listeners.push(listener);
            }
        }
        state.tell();
    }

    /// The peer may be met as it says. Blocks until the call is over.
    pub(crate) fn introduce(
        &self,
        half: &Arc<Half>,
        theirs: &Offer,
        interrupter: Option<&Interrupter>,
        deadline: Instant,
    ) -> Result<(), RendezvousError> {
        let crank = &half.shared().crank;
        let slot = crank.slot();
        let _watch = interrupter.map(|interrupter| interrupter.watch(&slot));
        let Some(number) = self.enter(half, theirs, &slot)? else { return Ok(()) };
        let result = loop {
            if self.state.hold().is_over {
                return Ok(());
            }
            if interrupter.is_some_and(Interrupter::is_interrupted) {
                break Err(RendezvousError::Interrupted);
            }
            match crank.wait(&slot, Some(deadline)) {
                Waited::Ready => {}
                Waited::TimedOut => break Err(RendezvousError::Interrupted),
                Waited::Closed => break Err(RendezvousError::Closed),
            }
        };
        self.state.hold().leave(number, &slot);
        result
    }

    /// `None`: the call is over.
    fn enter(
        &self,
        half: &Arc<Half>,
        theirs: &Offer,
        slot: &Arc<Slot>,
    ) -> Result<Option<IntroductionNumber>, RendezvousError> {
        let mut state = self.state.hold();
        if state.is_over {
            return Ok(None);
        }
        if state.waiting.len() >= MAX_INTRODUCTIONS {
            return Err(RendezvousError::Full);
        }
        let number = state.next;
        state.next.0 += 1;
        state.found.introductions.push(Way { number, half: half.clone(), theirs: theirs.clone() });
        state.waiting.push(slot.clone());
        state.tell();
        Ok(Some(number))
    }
}

impl State {
    fn leave(&mut self, number: IntroductionNumber, slot: &Arc<Slot>) {
        self.waiting.retain(|known| !Arc::ptr_eq(known, slot));
        self.found.introductions.retain(|way| way.number != number);
        if !self.is_over {
            self.found.ended.push(number);
            self.tell();
        }
    }

    fn tell(&self) {
        if let Some(slot) = &self.slot {
            slot.wake();
        }
    }
}

/// While it lives the call is under way.
pub(super) struct UnderWay<'f>(&'f Further);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.hold();
        (state.is_over, state.slot) = (true, None);
        state.found = Found::default();
        state.waiting.drain(..).for_each(|slot| slot.wake());
    }
}

/// At the same time; each has a handful of sockets and punches. Either side is introduced by four at most, and one that has failed is
/// replaced by the next.
const MAX_INTRODUCTIONS: usize = 16;
/// As many as an answer of a local network has, several times over.
const MAX_LISTENERS: usize = 64;
