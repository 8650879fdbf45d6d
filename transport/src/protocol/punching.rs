//! Punches for UDP, as far as the offers of a meeting tell.

use std::time::{Duration, Instant};

use nat_traversal::{
    AddrKind, MappedSocketAddr, PortRule, PrivRendezvousInfo, PubRendezvousInfo, PunchError, PunchOptions,
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

/// How much later a way over two relays is tried than other relayed ones: not where it may be what is needed, as where the NATs of both draw
/// ports, of which a relay then hears too late, or where one of the two gets nothing out by UDP.
pub(crate) fn between_relays(ours: &[MappedSocketAddr], theirs: &[MappedSocketAddr]) -> Duration {
    let is_steady = |side: &[MappedSocketAddr]| {
        let mut seen = side.iter().filter(|one| one.kind == AddrKind::Reflexive).peekable();
        seen.peek().is_some() && seen.all(|one| matches!(one.ports, PortRule::Stable | PortRule::Unknown))
    };
    if is_steady(ours) && is_steady(theirs) { BETWEEN_RELAYS } else { Duration::ZERO }
}

/// The delay of RFC 8305 between attempts of one kind.
const BETWEEN_RELAYS: Duration = Duration::from_millis(250);
/// What is direct gets so much time before a relay is tried.
pub(crate) const RELAYS_AFTER: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_over_two_relays_waits_only_where_both_are_seen_and_keep_their_ports() {
        let host = MappedSocketAddr::host("192.168.1.2:4000".parse().unwrap());
        let seen = |ports| MappedSocketAddr::reflexive("198.51.100.7:5000".parse().unwrap(), ports);
        let steady = [host, seen(PortRule::Stable)];
        assert_eq!(between_relays(&steady, &steady), BETWEEN_RELAYS);
        for other in [&[][..], &[host], &[host, seen(PortRule::Random)], &[seen(PortRule::Sequential(1))]] {
            assert_eq!(between_relays(&steady, other), Duration::ZERO);
            assert_eq!(between_relays(other, &steady), Duration::ZERO);
        }
    }
}
