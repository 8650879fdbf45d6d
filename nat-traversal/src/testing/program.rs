use std::fmt::Debug;
use std::time::Instant;

use super::Segment;
use crate::protocol::{Datagram, Machine, Transmit};

/// What a host of a [`Net`](super::Net) runs: a [`Machine`] whose events are kept, as [`Running`] makes it.
pub trait Program {
    /// Takes down the events that there are already.
    fn collect(&mut self, now: Instant);

    /// Takes in a datagram.
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>);

    /// Takes in a TCP segment. Programs without TCP ignore it; a host that runs none refuses connections.
    fn handle_segment(&mut self, now: Instant, segment: Segment) {
        let _ = (now, segment);
    }

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// The next datagram to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// The next TCP segment to send.
    fn poll_segment(&mut self) -> Option<Segment> {
        None
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    fn poll_timeout(&self) -> Option<Instant>;

    /// Whether a run is to wait for its end; not so with a program that serves others.
    fn is_to_end(&self) -> bool;

    /// Whether it has come to that end.
    fn has_ended(&self) -> bool;
}

/// A machine on a host and the events it gave, with their times.
#[derive(Debug)]
pub struct Running<M: Machine> {
    machine: M,
    events: Vec<(Instant, M::Event)>,
    end: Option<fn(&M::Event) -> bool>,
    ended: bool,
}

impl<M: Machine> Running<M> {
    /// A machine that serves others: a run does not wait for it.
    pub const fn new(machine: M) -> Self {
        Self { machine, events: Vec::new(), end: None, ended: false }
    }

    /// A machine that runs until it gives an event of this kind.
    pub const fn until(machine: M, end: fn(&M::Event) -> bool) -> Self {
        Self { machine, events: Vec::new(), end: Some(end), ended: false }
    }

    /// The machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, to tell it something between two runs.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// What it has told, and when.
    pub fn events(&self) -> &[(Instant, M::Event)] {
        &self.events
    }
}

impl<M: Machine> Program for Running<M> {
    fn collect(&mut self, now: Instant) {
        while let Some(event) = self.machine.poll_event() {
            self.ended |= self.end.is_some_and(|end| end(&event));
            self.events.push((now, event));
        }
    }

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.machine.handle_datagram(now, datagram);
        self.collect(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        self.collect(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.machine.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn is_to_end(&self) -> bool {
        self.end.is_some()
    }

    fn has_ended(&self) -> bool {
        self.ended
    }
}
