//! Punches for UDP from the sockets of a transport.

use std::time::Instant;

use nat_traversal::{
    MappedSocketAddr, PrivRendezvousInfo, PubRendezvousInfo, PunchOptions,
    protocol::{Seed, SocketIndex, UdpPuncher},
};

use super::Hold;
pub(super) use crate::protocol::punching::{reachable, without_addresses};
use crate::{
    io::{entropy, udp::SharedMachine},
    protocol::punching::{self, between_relays},
    rendezvous::RendezvousError,
};

/// A punch that is told of all addresses [later](UdpPuncher::learn), those included that are known.
pub(super) fn begin_punch(
    now: Instant,
    info: PrivRendezvousInfo,
    told: &PubRendezvousInfo,
    how: (bool, bool),
    options: &PunchOptions,
) -> Result<UdpPuncher, RendezvousError> {
    let seed = Seed::from_bytes(entropy::bytes());
    punching::begin_punch(now, info, told, how, options, seed).map_err(|_| RendezvousError::Offer)
}

/// Has the punch use relays of ours as well, those known before included. From there every address is a relayed way.
pub(super) fn add_relays(
    machine: &mut SharedMachine<UdpPuncher>,
    now: Instant,
    relays: &[Hold],
    (ours, theirs): (&[MappedSocketAddr], &[MappedSocketAddr]),
    first: Instant,
) {
    let to_relays = between_relays(ours, theirs);
    for (index, relay) in (FIRST_RELAY..).map(SocketIndex).zip(relays) {
        machine.add_socket(index, relay.socket());
        let at = (index, relay.socket().local());
        machine.machine_mut().add_relay(now, at, theirs, first, to_relays);
    }
}

/// Far beyond the numbers that a punch gives to sockets of its own.
const FIRST_RELAY: u16 = 0xff00;
