//! How the sockets of a service were seen from outside when servers were last asked.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nat_traversal::{MappedSocketAddr, PortRule};

/// What was seen, and from which network.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    hosts: Vec<SocketAddr>,
    /// The local address of each socket, its others, and when it was seen so.
    sockets: Vec<(SocketAddr, Vec<MappedSocketAddr>, Instant)>,
}

impl Outside {
    /// Servers have seen these sockets so while this host had the addresses `hosts`.
    pub(crate) fn learned(
        &mut self,
        now: Instant,
        hosts: Vec<SocketAddr>,
        seen: Vec<(SocketAddr, Vec<MappedSocketAddr>)>,
    ) {
        if self.hosts != hosts {
            self.hosts = hosts;
            self.sockets.clear();
        }
        for (local, seen) in seen {
            self.sockets.retain(|(known, ..)| *known != local);
            if self.sockets.len() >= MAX_SOCKETS {
                self.sockets.remove(0);
            }
            self.sockets.push((local, seen, now));
        }
    }

    /// What can still be told a peer, if this host has the addresses `hosts` now.
    pub(crate) fn known(
        &self,
        now: Instant,
        hosts: &[SocketAddr],
    ) -> Vec<(SocketAddr, Vec<MappedSocketAddr>)> {
        let same_network = self.hosts == hosts;
        let fresh = self.sockets.iter().filter(|(.., at)| same_network && now < *at + HOLDS);
        // The next port of a NAT that counts is another one by now.
        let keeps = |seen: &&MappedSocketAddr| !matches!(seen.ports, PortRule::Sequential(_));
        fresh.map(|(local, seen, _)| (*local, seen.iter().filter(keeps).copied().collect())).collect()
    }
}

/// NATs are to keep a mapping for two minutes (RFC 4787, section 4.3). Where one forgets it before, the addresses that are learned with
/// each meeting come a round trip later.
const HOLDS: Duration = Duration::from_secs(120);
/// Listeners of one service, and the sockets that dials go from.
const MAX_SOCKETS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn seen(ports: PortRule) -> Vec<MappedSocketAddr> {
        vec![MappedSocketAddr::reflexive(addr("198.51.100.1:40000"), ports)]
    }

    #[test]
    fn it_holds_on_the_same_network_for_as_long_as_nats_remember() {
        let (start, local, home) = (start(), addr("0.0.0.0:5000"), vec![addr("192.168.1.11:1")]);
        let mut outside = Outside::default();
        outside.learned(start, home.clone(), vec![(local, seen(PortRule::Stable))]);
        let last = start + HOLDS - Duration::from_millis(1);
        assert_eq!(outside.known(last, &home), [(local, seen(PortRule::Stable))]);
        assert!(outside.known(start + HOLDS, &home).is_empty(), "forgotten");
        assert!(outside.known(start, &[addr("10.0.0.7:1")]).is_empty(), "another network");
        outside.learned(start, vec![addr("10.0.0.7:1")], Vec::new());
        assert!(outside.known(start, &home).is_empty(), "back again, but the NAT may have forgotten");
    }

    #[test]
    fn ports_of_a_nat_that_counts_are_not_told_again() {
        let (start, local, home) = (start(), addr("0.0.0.0:5000"), vec![addr("192.168.1.11:1")]);
        let mut outside = Outside::default();
        outside.learned(start, home.clone(), vec![(local, seen(PortRule::Sequential(1)))]);
        assert_eq!(outside.known(start, &home), [(local, Vec::new())]);
    }

    #[test]
    fn it_is_bounded() {
        let (start, mut outside) = (start(), Outside::default());
        for port in 0..100 {
            let local = SocketAddr::from(([0; 4], port));
            outside.learned(start, Vec::new(), vec![(local, seen(PortRule::Stable))]);
        }
        assert_eq!(outside.known(start, &[]).len(), MAX_SOCKETS);
    }
}
