use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::protocol::is_global;

/// Whom clients of a relay may reach.
///
/// Only addresses of the public internet: not loopback, link-local, private, shared, multicast, broadcast or reserved ones,
/// none that carry such an IPv4 address within, and not the places where clouds hand out secrets to their machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPolicy {
    allowed: Vec<Cidr>,
    own: Vec<IpAddr>,
}

impl TargetPolicy {
    /// The public internet.
    #[must_use]
    pub const fn strict() -> Self {
        Self { allowed: Vec::new(), own: Vec::new() }
    }

    /// Admits these networks as well, for tests and closed networks.
    #[must_use]
    pub fn allow(mut self, networks: impl IntoIterator<Item = Cidr>) -> Self {
        self.allowed.extend(networks);
        self
    }

    /// The addresses of the relay's own host: there only what the relay lends is reached, nothing else of the host.
    #[must_use]
    pub fn own(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.own.extend(addresses.into_iter().map(|ip| ip.to_canonical()));
        self
    }

    /// Whether a peer may be reached there.
    #[must_use]
    pub fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.allowed.iter().any(|network| network.contains(ip)) || is_public(ip)
    }

    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip.to_canonical())
    }
}

fn is_public(ip: IpAddr) -> bool {
    let denied = match ip {
        IpAddr::V4(_) => &DENIED_V4[..],
        IpAddr::V6(_) => &DENIED_V6[..],
    };
    is_global(ip) && !denied.iter().any(|network| network.contains(ip))
}

/// A network, such as `10.0.0.0/8`.
///
/// ```
/// use nat_traversal::protocol::turn::Cidr;
///
/// let network: Cidr = "192.168.0.0/16".parse()?;
/// assert!(network.contains("192.168.7.7".parse().unwrap()));
/// assert!("192.168.0.1/16".parse::<Cidr>().is_err(), "that names a host, not a network");
/// # Ok::<(), nat_traversal::protocol::turn::ParseCidrError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.network.is_ipv4() && masked(ip, self.bits) == self.network
    }
}

/// The address with all but its first bits cleared.
fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, bits) = text.split_once('/').ok_or(ParseCidrError)?;
        let network: IpAddr = ip.parse().map_err(|_| ParseCidrError)?;
        let bits: u8 = bits.parse().map_err(|_| ParseCidrError)?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        (bits <= most && masked(network, bits) == network)
            .then_some(Self { network, bits })
            .ok_or(ParseCidrError)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.bits)
    }
}

/// A text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a network such as 10.0.0.0/8 or fd00::/8, with nothing set after its first bits")]
pub struct ParseCidrError;

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Cidr {
    Cidr { network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
}

const fn v6(first: u16, second: u16, bits: u8) -> Cidr {
    Cidr { network: IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)), bits }
}

/// Beyond what `is_global` knows: "this network", protocol assignments, benchmarks, the reserved class (RFC 6890), and the
/// address at which one cloud answers its machines.
const DENIED_V4: [Cidr; 5] = [
    v4(0, 0, 0, 0, 8),
    v4(192, 0, 0, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(240, 0, 0, 0, 4),
    v4(168, 63, 129, 16, 32),
];
/// Addresses with an IPv4 address inside: compatible (RFC 4291), translated (RFC 6052, RFC 8215), Teredo and 6to4; discard-only
/// and site-local ones.
const DENIED_V6: [Cidr; 6] = [
    v6(0, 0, 8),
    v6(0x64, 0xff9b, 32),
    v6(0x2001, 0, 32),
    v6(0x2002, 0, 16),
    v6(0x100, 0, 64),
    v6(0xfec0, 0, 10),
];
