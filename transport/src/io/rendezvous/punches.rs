//! Punches for UDP from the sockets of a transport.

use std::time::Instant;

use nat_traversal::{
    AddrKind, MappedSocketAddr, PrivRendezvousInfo, PubRendezvousInfo, PunchOptions,
    protocol::{Seed, SocketIndex, UdpPuncher},
};

use super::Hold;
use crate::{
    PathKind,
    io::{entropy, udp::SharedMachine},
    path::PathKinds,
    rendezvous::RendezvousError,
};

/// A punch that is told of all addresses [later](UdpPuncher::learn), those included that are known.
pub(super) fn begin_punch(
    now: Instant,
    info: PrivRendezvousInfo,
    told: &PubRendezvousInfo,
    (is_direct, peer_has_begun): (bool, bool),
    options: &PunchOptions,
) -> Result<UdpPuncher, RendezvousError> {
    let keys = info.agree(&without_addresses(told)).map_err(|_| RendezvousError::Offer)?;
    let seed = Seed::from_bytes(entropy::bytes());
    let mut puncher = UdpPuncher::new(now, &[], &[], keys, seed).options(options);
    if peer_has_begun {
        puncher = puncher.peer_has_begun();
    }
    if !is_direct {
        puncher = puncher.only_further();
    }
    Ok(puncher.more_to_come())
}

/// What keys are agreed on with: it is the same in every offer of a meeting, and addresses are not.
pub(super) fn without_addresses(told: &PubRendezvousInfo) -> PubRendezvousInfo {
    told.with_endpoints(Vec::new())
}

/// Those of the peer's addresses to which a way from a socket of ours is wanted.
pub(super) fn reachable(theirs: &[MappedSocketAddr], ways: PathKinds) -> Vec<MappedSocketAddr> {
    let is_wanted = |endpoint: &&MappedSocketAddr| {
        let relayed = endpoint.kind == AddrKind::Relayed;
        ways.contains(if relayed { PathKind::Relayed } else { PathKind::Punched })
    };
    theirs.iter().filter(is_wanted).copied().collect()
}

/// Has the punch use relays of ours as well, those known before included. From there every address is a relayed way.
pub(super) fn add_relays(
    machine: &mut SharedMachine<UdpPuncher>,
    now: Instant,
    relays: &[Hold],
    theirs: &[MappedSocketAddr],
    first: Instant,
) {
    for (index, relay) in (FIRST_RELAY..).map(SocketIndex).zip(relays) {
        machine.add_socket(index, relay.socket());
        machine.machine_mut().add_socket(now, index, theirs, first);
    }
}

/// Far beyond the numbers that a punch gives to sockets of its own.
const FIRST_RELAY: u16 = 0xff00;
