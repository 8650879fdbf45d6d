use std::{
    net::SocketAddr,
    sync::{Condvar, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, bounded};
use nat_traversal::PortLease;
use transport::{ListenEndpoint, SetWaker};

use crate::{
    io::{clock, lock::Lock as _},
    protocol::forwarding::is_announceable,
};

/// What routers forward to a service at the moment, between the thread that asks them and those who want to know.
#[derive(Debug)]
pub(crate) struct Forwarded {
    state: Mutex<State>,
    /// Told whenever the routers have had their say, and at the end.
    settled: Condvar,
    /// One place is enough: that there is news is one message.
    news: (Sender<()>, Receiver<()>),
    /// Wakes the thread that asks for listeners' ports, if there is one.
    waker: OnceLock<SetWaker>,
    /// There is to be such a thread.
    is_wanted: bool,
    /// The router was named, and so may be on loopback as well.
    is_named: bool,
}

#[derive(Debug, Default)]
struct State {
    leases: Vec<(ListenEndpoint, PortLease)>,
    /// How often it was wanted that routers are asked, and up to which of these they have been.
    wanted: u64,
    done: u64,
    /// Why no router forwards a port, as it was told last.
    failure: Option<String>,
    closed: bool,
    /// Being given back.
    ending: Vec<PortLease>,
}

/// Tells the thread that asks that there is something to look at.
#[derive(Debug, Clone)]
pub(crate) struct Nudge {
    sender: Sender<()>,
    waker: Option<SetWaker>,
}

impl Nudge {
    pub(crate) fn nudge(&self) {
        // It is full if nobody has looked since the last time, which serves as well.
        let _ = self.sender.try_send(());
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

impl Forwarded {
    /// `is_wanted`: the ports of listeners are to be forwarded without further request; `is_named`: by a router that was named.
    pub(crate) fn new(is_wanted: bool, is_named: bool) -> Self {
        let state = Mutex::new(State { wanted: 1, ..State::default() });
        Self { state, settled: Condvar::new(), news: bounded(1), waker: OnceLock::new(), is_wanted, is_named }
    }

    pub(crate) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether a router is to be asked for one of these.
    pub(crate) fn is_wanted_for(&self, places: &[ListenEndpoint]) -> bool {
        self.is_wanted && places.iter().any(|place| self.is_named || !place.addr().ip().is_loopback())
    }

    /// From now on a thread asks, which this wakes.
    pub(crate) fn asked_by(&self, waker: SetWaker) {
        let _ = self.waker.set(waker);
        self.nudge().nudge();
    }

    pub(crate) fn nudge(&self) -> Nudge {
        Nudge { sender: self.news.0.clone(), waker: self.waker.get().cloned() }
    }

    /// Whether there is news since this was last asked.
    pub(crate) fn take_news(&self) -> bool {
        self.news.1.try_recv().is_ok()
    }

    /// Where a listener is reached from outside.
    pub(crate) fn leads_to(&self, place: &ListenEndpoint) -> Option<SocketAddr> {
        let state = self.state.hold();
        let lease = state.leases.iter().find(|(leased, _)| leased == place);
        lease.and_then(|(_, lease)| lease.external()).filter(|addr| is_announceable(*addr))
    }

    /// All that is forwarded to a listener or another socket, whether it leads there at the moment or not.
    pub(crate) fn places(&self) -> Vec<ListenEndpoint> {
        self.state.hold().leases.iter().map(|(place, _)| *place).collect()
    }

    /// Asks something about the lease of a place.
    pub(crate) fn with_lease<R>(
        &self,
        place: &ListenEndpoint,
        ask: impl FnOnce(&PortLease) -> R,
    ) -> Option<R> {
        let state = self.state.hold();
        state.leases.iter().find(|(leased, _)| leased == place).map(|(_, lease)| ask(lease))
    }

    /// Keeps a lease for as long as the service lives, instead of the one that there was for this place.
    pub(crate) fn keep(&self, place: ListenEndpoint, lease: PortLease) {
        self.give_back(&place);
        let mut state = self.state.hold();
        if state.closed {
            lease.begin_release();
            state.ending.push(lease);
        } else {
            state.failure = None;
            state.leases.push((place, lease));
        }
    }

    /// Gives a port back, without waiting for the router.
    pub(crate) fn give_back(&self, place: &ListenEndpoint) {
        let mut state = self.state.hold();
        let at = state.leases.iter().position(|(leased, _)| leased == place);
        let lease = at.map(|at| state.leases.swap_remove(at).1);
        drop(state);
        if let Some(lease) = lease {
            lease.release(clock::now());
        }
    }

    /// No router forwards a port, and why.
    pub(crate) fn failed(&self, reason: Option<String>) {
        self.state.hold().failure = reason;
    }

    /// Wants routers to be asked again now; gives the number of the wish.
    pub(crate) fn want(&self) -> u64 {
        let mut state = self.state.hold();
        state.wanted += 1;
        let number = state.wanted;
        drop(state);
        self.nudge().nudge();
        number
    }

    /// The number of the last wish.
    pub(crate) fn wanted(&self) -> u64 {
        self.state.hold().wanted
    }

    /// Routers have been asked up to that wish.
    pub(crate) fn settle(&self, number: u64) {
        let mut state = self.state.hold();
        if state.done < number {
            state.done = number;
            drop(state);
            self.settled.notify_all();
        }
    }

    /// Waits until routers have been asked up to that wish, at most until `deadline`; not at all where nobody asks them.
    pub(crate) fn wait(&self, number: u64, deadline: Instant) {
        if self.waker.get().is_none() {
            return;
        }
        let mut state = self.state.hold();
        while state.done < number && !state.closed {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return;
            }
            let waited = self.settled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a thread asks for the ports of listeners.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.waker.get().is_some()
    }

    /// What routers do, for a person to read; `None` where none is asked.
    pub(crate) fn summary(&self) -> Option<String> {
        let state = self.state.hold();
        let lines = state.leases.iter().map(|(place, lease)| match lease.external() {
            Some(external) => format!("{external} leads to {place}, by {}", lease.method()),
            None => format!("nothing leads to {place} now"),
        });
        let lines: Vec<_> = lines.collect();
        if !lines.is_empty() {
            return Some(lines.join("; "));
        }
        state.failure.as_ref().map(|reason| format!("no port is forwarded: {reason}"))
    }

    /// Begins to give everything back. Returns at once.
    pub(crate) fn close(&self) {
        let mut state = self.state.hold();
        state.closed = true;
        let leases: Vec<_> = state.leases.drain(..).map(|(_, lease)| lease).collect();
        for lease in &leases {
            lease.begin_release();
        }
        state.ending.extend(leases);
        drop(state);
        self.settled.notify_all();
    }

    /// Waits until everything is given back, at most until `deadline`; what is left then goes on in the background.
    pub(crate) fn finish(&self, deadline: Instant) {
        let ending = std::mem::take(&mut self.state.hold().ending);
        for lease in ending {
            lease.release(deadline);
        }
    }
}
