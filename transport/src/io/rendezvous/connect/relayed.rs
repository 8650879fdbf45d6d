//! The part of a call that holds relays back where a hole for TCP may come.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Attempt, Call};
use crate::{
    Scheme,
    io::{rendezvous::further::IntroductionNumber, udp::UdpSocket},
    protocol::{
        offer::Hole,
        precedence::{TcpHole, held_back_until},
    },
    rendezvous::RendezvousRoad,
};

/// A way over a relay, for later.
pub(super) struct Held {
    pub(super) introduced: IntroductionNumber,
    socket: Arc<UdpSocket>,
    remote: SocketAddr,
}

impl Call<'_> {
    /// Whether the peer has that address at a relay.
    pub(super) fn is_relayed(&self, remote: SocketAddr) -> bool {
        self.introductions.iter().any(|introduced| introduced.theirs.is_relayed(remote))
    }

    /// Keeps a way over a relay for later, if a hole for TCP is to come first; tells whether it did.
    pub(super) fn hold_back(
        &mut self,
        now: Instant,
        introduced: Option<IntroductionNumber>,
        socket: &Arc<UdpSocket>,
        remote: SocketAddr,
    ) -> bool {
        let is_relay = socket.is_relay() || self.is_relayed(remote);
        let Some(introduced) = introduced.filter(|_| is_relay) else { return false };
        let is_held = self.relays_wait_until(introduced).is_some_and(|until| now < until);
        if is_held {
            tracing::debug!(%remote, "a relay waits for a hole for TCP");
            self.held.push(Held { introduced, socket: socket.clone(), remote });
        }
        is_held
    }

    /// Begins on the ways that were held back, once nothing else is to be waited for.
    pub(super) fn release_relays(&mut self, now: Instant) {
        let is_due = |call: &Self, held: &Held| {
            call.relays_wait_until(held.introduced).is_none_or(|until| until <= now)
        };
        while let Some(index) = self.held.iter().position(|held| is_due(self, held)) {
            let Held { introduced, socket, remote } = self.held.remove(index);
            self.way_found(now, Some(introduced), socket, remote, true);
        }
    }

    /// When to look at them again, if nothing happens before.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held.iter().filter_map(|held| self.relays_wait_until(held.introduced)).min()
    }

    fn relays_wait_until(&self, introduced: IntroductionNumber) -> Option<Instant> {
        let introduced = self.introductions.iter().find(|one| one.number == introduced);
        let for_tcp = introduced.and_then(|introduced| {
            let [udp, tcp] = [Hole::UdpV4, Hole::TcpV4].map(|hole| introduced.told(hole));
            held_back_until(introduced.begun, introduced.relay_at_once(), udp, tcp, self.tcp_hole())
        });
        // A handshake on each of the ways over two relays would be paid for, and one is used.
        let dialled =
            self.attempts.iter().filter(|attempt| attempt.dial.is_some() && self.is_over_relay(attempt));
        let for_another = dialled.map(|attempt| attempt.begun + BETWEEN_RELAYS).max();
        for_tcp.into_iter().chain(for_another).max()
    }

    fn is_over_relay(&self, attempt: &Attempt) -> bool {
        let RendezvousRoad::Punched { remote: Some(remote), .. } = attempt.road else { return false };
        let mut relays = self.introductions.iter().flat_map(|introduced| &introduced.relays);
        relays.any(|relay| Some(relay.socket().number()) == attempt.via) || self.is_relayed(remote)
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
