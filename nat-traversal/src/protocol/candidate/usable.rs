use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{AddrKind, MappedSocketAddr};

/// Which of a peer's addresses are worth a packet from us, the most promising first, each once, at most
/// [`MAX_CANDIDATES`].
///
/// A peer may list what it likes. An address that only has a meaning on its own network is used only if we are on a
/// network that looks the same, so that nobody can have us knock at the doors of our own network from afar.
pub(crate) fn usable(ours: &[MappedSocketAddr], theirs: &[MappedSocketAddr]) -> Vec<MappedSocketAddr> {
    let mut usable: Vec<MappedSocketAddr> = Vec::new();
    for candidate in theirs.iter().take(MAX_CANDIDATES) {
        let family = ours.iter().any(|our| our.addr.is_ipv4() == candidate.addr.is_ipv4());
        let known = usable.iter().any(|known| known.addr == candidate.addr);
        if family && !known && is_reachable(ours, candidate.addr) {
            usable.push(*candidate);
        }
    }
    usable.sort_by_key(preference);
    usable
}

/// Smaller is better: what stays on the LAN, then what no NAT can break, then the rest.
fn preference(candidate: &MappedSocketAddr) -> (AddrKind, bool) {
    (candidate.kind, candidate.addr.is_ipv4())
}

fn is_reachable(ours: &[MappedSocketAddr], theirs: SocketAddr) -> bool {
    if theirs.port() == 0 {
        return false;
    }
    match scope(theirs.ip()) {
        Scope::Nowhere => false,
        Scope::Global => true,
        // Loopback is the peer's own machine: only if we are there as well, or on the same network.
        Scope::Local => {
            ours.iter().any(|our| our.kind == AddrKind::Host && same_network(our.addr.ip(), theirs.ip()))
        }
    }
}

/// Whether an address means the same everywhere.
pub(crate) fn is_global(ip: IpAddr) -> bool {
    scope(ip) == Scope::Global
}

/// How far an address has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Global,
    Local,
    Nowhere,
}

fn scope(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(ip) => {
            let carrier = ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64;
            if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
                Scope::Nowhere
            } else if ip.is_private() || ip.is_loopback() || ip.is_link_local() || carrier {
                Scope::Local
            } else {
                Scope::Global
            }
        }
        IpAddr::V6(ip) => {
            if ip.is_unspecified() || ip.is_multicast() || ip.to_ipv4_mapped().is_some() {
                Scope::Nowhere
            } else if ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local() {
                Scope::Local
            } else {
                Scope::Global
            }
        }
    }
}

/// Whether two addresses have the prefix of one network: 24 bits, the common size at home, or 64.
fn same_network(ours: IpAddr, theirs: IpAddr) -> bool {
    match (ours, theirs) {
        (IpAddr::V4(ours), IpAddr::V4(theirs)) => prefix_v4(ours) == prefix_v4(theirs),
        (IpAddr::V6(ours), IpAddr::V6(theirs)) => prefix_v6(ours) == prefix_v6(theirs),
        _ => false,
    }
}

fn prefix_v4(ip: Ipv4Addr) -> [u8; 3] {
    let [a, b, c, _] = ip.octets();
    [a, b, c]
}

fn prefix_v6(ip: Ipv6Addr) -> [u16; 4] {
    let [a, b, c, d, ..] = ip.segments();
    [a, b, c, d]
}

/// Addresses accepted from a peer. A host with several networks, both families and a NAT has fewer.
const MAX_CANDIDATES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PortRule;

    #[test]
    fn local_addresses_of_a_peer_are_used_only_on_a_network_that_looks_the_same() {
        let ours = [host("192.168.1.11:4000")];
        let theirs =
            ["192.168.1.12:1", "192.168.2.12:1", "127.0.0.1:1", "169.254.1.1:1", "100.64.3.4:1"].map(host);
        assert_eq!(usable(&ours, &theirs), [host("192.168.1.12:1")]);
        let loopback = [host("127.0.0.1:4000")];
        assert_eq!(usable(&loopback, &theirs), [host("127.0.0.1:1")]);
    }

    #[test]
    fn addresses_that_are_no_destination_are_left_out() {
        let ours = [host("192.168.1.11:4000"), host("[2001:db8::1]:4000")];
        let theirs = [
            "0.0.0.0:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "198.51.100.2:0",
            "[::]:1",
            "[ff02::1]:1",
            "[::ffff:1.2.3.4]:1",
        ]
        .map(host);
        assert_eq!(usable(&ours, &theirs), []);
    }

    #[test]
    fn at_most_sixteen_are_taken_each_once_and_only_of_our_families() {
        let ours = [host("192.168.1.11:4000")];
        let mut theirs: Vec<MappedSocketAddr> = Vec::new();
        theirs.extend([host("198.51.100.2:1"), host("198.51.100.2:1"), host("[2001:db8::1]:1")]);
        theirs.extend((1..1_000).map(|port| host(&format!("198.51.100.3:{port}"))));
        let usable = usable(&ours, &theirs);
        assert_eq!(usable.len(), 14, "16 looked at, of which one repeated and one of another family");
    }

    #[test]
    fn the_lan_comes_first_and_a_relay_last() {
        let ours = [host("192.168.1.11:4000")];
        let reflexive = MappedSocketAddr::reflexive("198.51.100.2:1".parse().unwrap(), PortRule::Stable);
        let relayed = MappedSocketAddr { kind: AddrKind::Relayed, ..host("203.0.113.5:1") };
        let theirs = [relayed, reflexive, host("192.168.1.12:1")];
        assert_eq!(usable(&ours, &theirs), [host("192.168.1.12:1"), reflexive, relayed]);
    }

    fn host(text: &str) -> MappedSocketAddr {
        MappedSocketAddr::host(text.parse().unwrap())
    }
}
