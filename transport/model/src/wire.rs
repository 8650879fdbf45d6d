//! A network of slots to wake, and a poll that waits for it.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Instant,
};

use shuttle::sync::{Condvar, Mutex, atomic::AtomicUsize};

use crate::{
    clock,
    crank::{Sleep, Turn},
    slot::Slot,
    sync::Waker,
};

/// Whom it is for, and how many have arrived there.
pub(crate) type Packet = (Arc<Slot>, Arc<AtomicUsize>);

#[derive(Debug, Default)]
pub(crate) struct Wire {
    state: Mutex<State>,
    changed: Condvar,
    /// Rings as soon as somebody who turns has seen it.
    timer: Mutex<Option<Packet>>,
}

#[derive(Debug, Default)]
struct State {
    packets: Vec<Packet>,
    interrupted: bool,
}

impl Wire {
    pub(crate) fn send(&self, packet: Packet) {
        self.state.lock().expect("no thread panics").packets.push(packet);
        self.changed.notify_all();
    }

    pub(crate) fn set_timer(&self, packet: Packet) {
        *self.timer.lock().expect("no thread panics") = Some(packet);
    }

    pub(crate) fn interrupt(&self) {
        self.state.lock().expect("no thread panics").interrupted = true;
        self.changed.notify_all();
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker(self.clone())
    }

    /// What a poll does: waits for packets or an interruption, or looks only.
    fn poll(&self, waits: bool) -> Vec<Packet> {
        let mut state = self.state.lock().expect("no thread panics");
        while waits && state.packets.is_empty() && !state.interrupted {
            state = self.changed.wait(state).expect("no thread panics");
        }
        state.interrupted = false;
        std::mem::take(&mut state.packets)
    }
}

pub(crate) struct Network(pub(crate) Arc<Wire>);

impl Turn for Network {
    fn turn(&mut self, deadline: Option<Instant>, sleep: &Sleep) -> bool {
        sleep.prepare();
        let timer = self.0.timer.lock().expect("no thread panics").take();
        sleep.until(timer.as_ref().map(|_| clock::now()).or(deadline));
        let mut packets = self.0.poll(deadline.is_none() && timer.is_none());
        sleep.over();
        packets.extend(timer);
        packets.into_iter().fold(false, |others, (slot, arrived)| {
            arrived.fetch_add(1, SeqCst);
            slot.wake_in_turn() | others
        })
    }
}
