//! What can wait for a moment, since mostly nothing is left to do then.
//!
//! A peer mostly ends its side of a stream that we have ended within a round trip, and a short stream ends before anybody could
//! notice that its peer is silent. To watch each of them from the first moment costs system calls and wakes the thread that
//! waits for the network; to look at all of them together after a while costs nothing for those that are over by then.

use std::{
    sync::{Mutex, Weak},
    time::{Duration, Instant},
};

use super::{clock, ending, lock::Lock as _, tcp::TcpConnection};
use crate::transport::Shared;

#[derive(Debug, Default)]
pub(crate) struct Later(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    items: Vec<Item>,
    /// There while there are items.
    look_at: Option<Instant>,
}

#[derive(Debug)]
pub(crate) enum Item {
    /// It has sent everything, and waits for the peer's end.
    Ending(ending::State),
    /// The kernel does not look after its peer yet.
    Young(Weak<TcpConnection>),
}

impl Later {
    /// Has it looked at, in a while or when there are many.
    pub(crate) fn put(shared: &Shared, item: Item) {
        let mut state = shared.later.0.hold();
        state.items.push(item);
        if state.items.len() >= AT_MOST {
            let all = state.take();
            drop(state);
            return settle(shared, all);
        }
        if state.look_at.is_some() {
            return;
        }
        let timer = clock::now() + A_WHILE;
        state.look_at = Some(timer);
        drop(state);
        shared.crank.poke(timer);
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.0.hold().look_at
    }

    pub(crate) fn handle_timers(shared: &Shared, now: Instant) {
        let mut state = shared.later.0.hold();
        if state.look_at.is_some_and(|look_at| look_at <= now) {
            let all = state.take();
            drop(state);
            settle(shared, all);
        }
    }

    /// Everything goes with the transport; what is still ending gets until the deadline.
    pub(crate) fn finish(&self, deadline: Instant) {
        let all = self.0.hold().take();
        for item in all {
            if let Item::Ending(ending) = item {
                ending.finish(deadline);
            }
        }
    }
}

impl State {
    fn take(&mut self) -> Vec<Item> {
        self.look_at = None;
        std::mem::take(&mut self.items)
    }
}

fn settle(shared: &Shared, items: Vec<Item>) {
    for item in items {
        match item {
            Item::Ending(ending) => ending.go_on(shared),
            Item::Young(connection) => {
                if let Some(connection) = connection.upgrade() {
                    connection.watch_peer();
                }
            }
        }
    }
}

/// Many round trips, and less than any deadline that a peer has.
const A_WHILE: Duration = Duration::from_millis(100);
/// They hold descriptors, of which a program may have few.
const AT_MOST: usize = 64;
