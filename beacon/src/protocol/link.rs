//! A link: one network interface, and the networks that are directly on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The system's index of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// One network interface on which beacons are sent and heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface's index.
    pub id: LinkId,
    /// The interface's name, as the system shows it.
    pub name: String,
    /// The addresses of this machine on the interface, each with its prefix.
    pub networks: Vec<Network>,
    /// How many datagrams one announcement to everybody costs here: one for each broadcast address and each multicast
    /// group. Used to keep the load of many peers bounded.
    pub datagrams_per_round: usize,
}

impl Link {
    /// The addresses from which beacons are sent here: every IPv4 address, and link-local ones of IPv6.
    pub(super) fn speaking(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.networks.iter().map(|network| network.address);
        addresses.filter(|address| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        })
    }

    /// Tells whether `address` can be reached here without a router: it is in one of the link's networks, or it is a
    /// link-local address.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        link_local || self.networks.iter().any(|network| network.contains(address))
    }
}

/// An address of this machine and how many of its leading bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: IpAddr,
    /// The length of the network's prefix, in bits: at most 32 for IPv4 and 128 for IPv6.
    pub prefix_bits: u8,
}

impl Network {
    /// Tells whether `other` is in this network. Addresses of the other family never are.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let host_bits = Ipv4Addr::BITS.saturating_sub(u32::from(self.prefix_bits));
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let host_bits = Ipv6Addr::BITS.saturating_sub(u32::from(self.prefix_bits));
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(host_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_on_the_link_by_its_prefix() {
        let cases = [
            ("10.1.2.3", 24, "10.1.2.200", true),
            ("10.1.2.3", 24, "10.1.3.3", false),
            ("10.1.2.3", 0, "203.0.113.1", true),
            ("10.1.2.3", 32, "10.1.2.3", true),
            ("10.1.2.3", 32, "10.1.2.2", false),
            ("10.1.2.3", 255, "10.1.2.2", false),
            ("fd00::1", 64, "fd00::ffff:1", true),
            ("fd00::1", 64, "fd01::1", false),
            ("fd00::1", 0, "::1", true),
            ("10.1.2.3", 0, "fd00::1", false),
        ];

        for (own, prefix_bits, other, expected) in cases {
            let network = Network { address: parse(own), prefix_bits };
            assert_eq!(network.contains(parse(other)), expected, "{other} in {own}/{prefix_bits}");
        }
    }

    #[test]
    fn link_local_addresses_are_always_on_the_link() {
        let link = Link { id: LinkId(1), name: "net0".into(), networks: vec![], datagrams_per_round: 1 };

        assert!(link.is_on_link(parse("169.254.9.9")));
        assert!(link.is_on_link(parse("fe80::1")));
        assert!(!link.is_on_link(parse("192.0.2.1")));
    }

    fn parse(address: &str) -> IpAddr {
        address.parse().expect("a valid address")
    }
}
