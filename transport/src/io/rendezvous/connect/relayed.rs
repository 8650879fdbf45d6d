//! The part of a call that holds relays back where a hole for TCP may come.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Attempt, Call};
use crate::{
    Scheme,
    io::udp::UdpSocket,
    protocol::{
        offer::Hole,
        precedence::{TcpHole, Told, held_back_until},
        punching::RELAYS_AFTER,
    },
    rendezvous::RendezvousRoad,
};

impl Call<'_> {
    /// Whether the peer has that address at a relay.
    pub(super) fn is_relayed(&self, remote: SocketAddr) -> bool {
        self.theirs.as_ref().is_some_and(|theirs| theirs.is_relayed(remote))
    }

    /// When relays are used, if nothing direct has worked.
    pub(super) fn relays_from(&self) -> Instant {
        if self.relay_at_once() { self.begun } else { self.begun + RELAYS_AFTER }
    }

    /// One of the two knows that a relay is needed.
    pub(super) fn relay_at_once(&self) -> bool {
        self.half.is_some_and(|half| half.relay_at_once)
            || self.theirs.as_ref().is_some_and(|theirs| theirs.relay_at_once)
    }

    /// Keeps a way over a relay for later, if a hole for TCP is to come first; tells whether it did.
    pub(super) fn hold_back(&mut self, now: Instant, socket: &Arc<UdpSocket>, remote: SocketAddr) -> bool {
        let is_relay = socket.is_relay() || self.is_relayed(remote);
        let is_held = is_relay && self.relays_wait_until().is_some_and(|until| now < until);
        if is_held {
            tracing::debug!(%remote, "a relay waits for a hole for TCP");
            self.held.push((socket.clone(), remote));
        }
        is_held
    }

    /// Begins on the ways that were held back, once nothing else is to be waited for.
    pub(super) fn release_relays(&mut self, now: Instant) {
        if self.held.is_empty() || self.relays_wait_until().is_some_and(|until| now < until) {
            return;
        }
        for (socket, remote) in std::mem::take(&mut self.held) {
            self.way_found(now, socket, remote, true);
        }
    }

    /// When to look at them again, if nothing happens before.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.relays_wait_until().filter(|_| !self.held.is_empty())
    }

    fn relays_wait_until(&self) -> Option<Instant> {
        let told = |hole: Hole| Told {
            ours: self.ours.iter().find(|(of, _)| *of == hole).map_or(&[][..], |(_, all)| all),
            theirs: self.theirs.as_ref().map_or(&[][..], |theirs| theirs.endpoints(hole)),
        };
        let [udp, tcp] = [Hole::UdpV4, Hole::TcpV4].map(told);
        let for_tcp = held_back_until(self.begun, self.relay_at_once(), udp, tcp, self.tcp_hole());
        // A handshake on each of the ways over two relays would be paid for, and one is used.
        let dialled =
            self.attempts.iter().filter(|attempt| attempt.dial.is_some() && self.is_over_relay(attempt));
        let for_another = dialled.map(|attempt| attempt.begun + BETWEEN_RELAYS).max();
        for_tcp.into_iter().chain(for_another).max()
    }

    fn is_over_relay(&self, attempt: &Attempt) -> bool {
        let RendezvousRoad::Punched { remote: Some(remote), .. } = attempt.road else { return false };
        let from_relay = self.relays.iter().any(|relay| Some(relay.socket().number()) == attempt.via);
        from_relay || self.is_relayed(remote)
    }

    fn tcp_hole(&self) -> TcpHole {
        let is_tls =
            |road: RendezvousRoad| matches!(road, RendezvousRoad::Punched { scheme: Scheme::Tcp, .. });
        if self.attempts.iter().any(|attempt| attempt.dial.is_some() && is_tls(attempt.road)) {
            TcpHole::Found
        } else if self.tcp_punches > 0 {
            TcpHole::Punching
        } else {
            TcpHole::Over
        }
    }
}

/// Before QUIC begins on a second way over a relay: the delay of RFC 8305 between attempts of one kind.
const BETWEEN_RELAYS: Duration = Duration::from_millis(250);
