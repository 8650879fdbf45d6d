//! A network of slots to wake, and a poll that waits for it.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Instant,
};

use shuttle::rand::Rng as _;
use shuttle::sync::{Condvar, Mutex, atomic::AtomicUsize};

use crate::{
    alarm::Alarm,
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
    /// What the next turn does.
    within: Mutex<Option<Within>>,
}

struct Within(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Within {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Within").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    packets: Vec<Packet>,
    interrupted: bool,
    /// Datagrams that say nothing.
    rings: usize,
}

impl Wire {
    pub(crate) fn send(&self, packet: Packet) {
        self.state.lock().expect("no thread panics").packets.push(packet);
        self.changed.notify_all();
    }

    pub(crate) fn set_timer(&self, packet: Packet) {
        *self.timer.lock().expect("no thread panics") = Some(packet);
    }

    /// Has it done in the next turn, by whoever turns.
    pub(crate) fn do_within(&self, work: impl FnOnce() + Send + 'static) {
        *self.within.lock().expect("no thread panics") = Some(Within(Box::new(work)));
    }

    pub(crate) fn interrupt(&self) {
        self.state.lock().expect("no thread panics").interrupted = true;
        self.changed.notify_all();
    }

    pub(crate) fn ring(&self) {
        self.state.lock().expect("no thread panics").rings += 1;
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
        (state.interrupted, state.rings) = (false, 0);
        std::mem::take(&mut state.packets)
    }

    /// What a receive does: waits for one packet, deaf to interruptions.
    fn receive(&self) -> Vec<Packet> {
        let mut state = self.state.lock().expect("no thread panics");
        while state.packets.is_empty() && state.rings == 0 {
            state = self.changed.wait(state).expect("no thread panics");
        }
        if state.rings > 0 {
            state.rings -= 1;
            return Vec::new();
        }
        vec![state.packets.remove(0)]
    }
}

pub(crate) struct Network {
    pub(crate) wire: Arc<Wire>,
    pub(crate) alarm: Arc<Alarm>,
}

impl Turn for Network {
    fn turn(&mut self, deadline: Option<Instant>, sleep: &Sleep) -> bool {
        sleep.prepare();
        let timer = self.wire.timer.lock().expect("no thread panics").take();
        sleep.until(timer.as_ref().map(|_| clock::now()).or(deadline));
        let waits = deadline.is_none() && timer.is_none();
        let directly = waits && shuttle::rand::thread_rng().gen_bool(0.5);
        let deaf = if directly { self.alarm.will_receive() } else { None };
        let mut packets = if let Some(deaf) = deaf {
            let packets = self.wire.receive();
            drop(deaf);
            packets
        } else {
            self.alarm.will_poll();
            self.wire.poll(waits)
        };
        sleep.over();
        packets.extend(timer);
        let within = self.wire.within.lock().expect("no thread panics").take();
        if let Some(Within(work)) = within {
            work();
        }
        packets.into_iter().fold(false, |others, (slot, arrived)| {
            arrived.fetch_add(1, SeqCst);
            slot.wake_in_turn() | others
        })
    }
}
