//! Punches for UDP, as far as the offers of a meeting tell.

use std::time::{Duration, Instant};

use nat_traversal::{
    AddrKind, MappedSocketAddr, PrivRendezvousInfo, PubRendezvousInfo, PunchError, PunchOptions,
    protocol::{Seed, UdpPuncher},
};

use crate::{PathKind, path::PathKinds};

/// A punch that is told of all addresses [later](UdpPuncher::learn), those included that are known.
pub(crate) fn begin_punch(
    now: Instant,
    info: PrivRendezvousInfo,
    told: &PubRendezvousInfo,
    (is_direct, peer_has_begun): (bool, bool),
    options: &PunchOptions,
    seed: Seed,
) -> Result<UdpPuncher, PunchError> {
    let keys = info.agree(&without_addresses(told))?;
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
pub(crate) fn without_addresses(told: &PubRendezvousInfo) -> PubRendezvousInfo {
    told.with_endpoints(Vec::new())
}

/// Those of the peer's addresses to which a way from a socket of ours is wanted.
pub(crate) fn reachable(theirs: &[MappedSocketAddr], ways: PathKinds) -> Vec<MappedSocketAddr> {
    let is_wanted = |endpoint: &&MappedSocketAddr| {
        let relayed = endpoint.kind == AddrKind::Relayed;
        ways.contains(if relayed { PathKind::Relayed } else { PathKind::Punched })
    };
    theirs.iter().filter(is_wanted).copied().collect()
}

/// What is direct gets so much time before a relay is tried.
pub(crate) const RELAYS_AFTER: Duration = Duration::from_millis(300);
