//! The part of a call that holds back what goes over a second relay; there is no TCP that it could wait for.

use std::time::{Duration, Instant};

use super::{Attempt, Begin, Call, Found};
use crate::{
    protocol::{paths::UdpSource, punching::RELAYS_AFTER},
    rendezvous::RendezvousRoad,
};

impl Call {
    /// The socket of that number is ours at a relay.
    pub(crate) fn add_relay(&mut self, socket: usize) {
        self.relays.push(socket);
    }

    /// When relays are used, if nothing direct has worked.
    pub(crate) fn relays_from(&self) -> Instant {
        if self.relay_at_once() { self.begun } else { self.begun + RELAYS_AFTER }
    }

    /// One of the two knows that a relay is needed.
    pub(super) fn relay_at_once(&self) -> bool {
        self.relay_at_once || self.theirs.as_ref().is_some_and(|theirs| theirs.relay_at_once)
    }

    /// Keeps a way over a relay for later, if QUIC has just begun on another; tells whether it did.
    pub(super) fn hold_back(&mut self, now: Instant, way: UdpSource) -> bool {
        let is_held = self.is_over_relay(way) && self.relays_wait_until().is_some_and(|until| now < until);
        if is_held {
            tracing::debug!(remote = %way.addr, "a relay waits for another");
            if !self.held.contains(&way) {
                self.held.push(way);
            }
        }
        is_held
    }

    /// A connection to begin on a way that was held back, once nothing else is to be waited for. Ask until `None`.
    pub(crate) fn poll_released(&mut self, now: Instant) -> Option<Begin> {
        loop {
            if self.held.is_empty() || self.relays_wait_until().is_some_and(|until| now < until) {
                return None;
            }
            let way = self.held.remove(0);
            if let Found::Dial(begin) = self.handle_way(now, way, true) {
                return Some(begin);
            }
        }
    }

    /// When to ask for one, if nothing happens before.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.relays_wait_until().filter(|_| !self.held.is_empty())
    }

    fn relays_wait_until(&self) -> Option<Instant> {
        // A handshake on each of the ways over two relays would be paid for, and one is used.
        let dialled =
            self.attempts.iter().filter(|attempt| attempt.is_under_way && self.goes_over_relay(attempt));
        dialled.map(|attempt| attempt.begun + BETWEEN_RELAYS).max()
    }

    fn goes_over_relay(&self, attempt: &Attempt) -> bool {
        match (attempt.road, attempt.via) {
            (RendezvousRoad::Punched { remote: Some(addr), .. }, Some(socket)) => {
                self.is_over_relay(UdpSource { socket, addr })
            }
            _ => false,
        }
    }

    /// Whether it begins or ends at a relay.
    fn is_over_relay(&self, way: UdpSource) -> bool {
        let is_theirs = self.theirs.as_ref().is_some_and(|theirs| theirs.is_relayed(way.addr));
        is_theirs || self.relays.contains(&way.socket)
    }
}

/// Before QUIC begins on a second way over a relay: the delay of RFC 8305 between attempts of one kind.
const BETWEEN_RELAYS: Duration = Duration::from_millis(250);
