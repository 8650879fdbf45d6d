use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use get_if_addrs::IfAddr;

/// The addresses at which a socket bound to `bound` is reached on this host's networks. Loopback is among them only if
/// the socket is bound to it.
pub(crate) fn host_addresses(bound: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    if !bound.ip().is_unspecified() {
        return Ok(vec![bound]);
    }
    let mut addresses = Vec::new();
    for interface in get_if_addrs::get_if_addrs()? {
        let ip = match interface.addr {
            IfAddr::V4(v4) => IpAddr::V4(v4.ip),
            IfAddr::V6(v6) => IpAddr::V6(v6.ip),
        };
        // A link-local IPv6 address means nothing to a peer without the interface's number.
        let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if ip.is_ipv4() == bound.is_ipv4()
            && !ip.is_loopback()
            && !link_local
            && addresses.len() < MAX_ADDRESSES
        {
            addresses.push(SocketAddr::new(ip, bound.port()));
        }
    }
    Ok(addresses)
}

/// Hosts with more addresses are routers or run many containers; a peer accepts no more than 16 in all.
const MAX_ADDRESSES: usize = 8;

/// Whether the system tells its interfaces at all.
pub(crate) fn check() -> io::Result<()> {
    get_if_addrs::get_if_addrs().map(drop)
}

/// One address of this host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface {
    pub(crate) ip: IpAddr,
    /// How much of it is the network's.
    pub(crate) prefix_bits: u8,
    pub(crate) index: Option<u32>,
}

impl Interface {
    /// Whether an address is on the same network.
    pub(crate) fn has_neighbour(&self, other: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_bits.min(128))).unwrap_or(0);
        self.ip.is_ipv4() == other.is_ipv4() && (bits(self.ip) ^ bits(other)) & mask == 0
    }
}

/// All addresses of this host but link-local ones of IPv6.
pub(crate) fn all() -> io::Result<Vec<Interface>> {
    let interfaces = get_if_addrs::get_if_addrs()?.into_iter().map(|interface| {
        let (ip, prefix_bits) = match &interface.addr {
            IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        Interface { ip, prefix_bits, index: interface.index }
    });
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    Ok(interfaces.filter(|interface| !link_local(interface.ip)).collect())
}

/// The address from which this host sends to another. Nothing is sent.
pub(crate) fn local_towards(remote: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(super::socket::unspecified_like(remote), 0)).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// A router that the system sends to what is not on its own networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DefaultRouter {
    pub(crate) ip: IpAddr,
    /// The interface's number, for addresses that have a meaning on their link only.
    pub(crate) scope: u32,
}

/// The default router of an address family, the one of the best metric if there are several.
///
/// Linux tells it in `/proc`. Elsewhere `None`: UPnP finds the router by its search, and for PCP and NAT-PMP it can be
/// named in the configuration.
pub(crate) fn default_router(is_ipv4: bool) -> Option<DefaultRouter> {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        let file = if is_ipv4 { "route" } else { "ipv6_route" };
        // Of this thread's network namespace, which may be another than the process's.
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok()?;
        return if is_ipv4 { routes::best_v4(&text) } else { routes::best_v6(&text, index_of) };
    }
    None
}

fn index_of(name: &str) -> Option<u32> {
    get_if_addrs::get_if_addrs().ok()?.into_iter().find(|interface| interface.name == name)?.index
}

/// Linux's tables of routes.
mod routes {
    use super::{DefaultRouter, IpAddr, Ipv6Addr};

    /// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses as hexadecimal numbers in the host's order.
    pub(super) fn best_v4(text: &str) -> Option<DefaultRouter> {
        let routes = text.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, "00000000", gateway, flags, _, _, metric, "00000000", ..] = fields[..] else {
                return None;
            };
            let gateway = u32::from_str_radix(gateway, 16).ok()?;
            let usable = u16::from_str_radix(flags, 16).ok()? & UP_AND_GATEWAY == UP_AND_GATEWAY;
            let ip = IpAddr::from(gateway.to_ne_bytes());
            usable.then_some((metric.parse::<u32>().ok()?, DefaultRouter { ip, scope: 0 }))
        });
        routes.min_by_key(|(metric, _)| *metric).map(|(_, router)| router)
    }

    /// `destination prefix source prefix next-hop metric refcnt use flags interface`, all hexadecimal.
    pub(super) fn best_v6(text: &str, index_of: impl Fn(&str) -> Option<u32>) -> Option<DefaultRouter> {
        let routes = text.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [destination, "00", _, _, gateway, metric, _, _, flags, name] = fields[..] else {
                return None;
            };
            let any = destination.bytes().all(|digit| digit == b'0');
            let flags = u32::from_str_radix(flags, 16).ok()?;
            let ip = Ipv6Addr::from_bits(u128::from_str_radix(gateway, 16).ok()?);
            let usable = any && flags & u32::from(UP_AND_GATEWAY) == u32::from(UP_AND_GATEWAY);
            let metric = u32::from_str_radix(metric, 16).ok()?;
            usable.then_some((metric, ip, name))
        });
        let (_, ip, name) = routes.min_by_key(|(metric, ..)| *metric)?;
        Some(DefaultRouter { ip: ip.into(), scope: index_of(name).unwrap_or(0) })
    }

    /// `RTF_UP` and `RTF_GATEWAY` of `linux/route.h`.
    const UP_AND_GATEWAY: u16 = 0x0003;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_default_route_is_read_from_the_tables_of_linux() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            wlan0\t00000000\t0102A8C0\t0003\t0\t0\t50\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t1\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let v6 = "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
            00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
            fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
            00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        if cfg!(target_endian = "little") {
            let expected = DefaultRouter { ip: "192.168.2.1".parse().unwrap(), scope: 0 };
            assert_eq!(routes::best_v4(v4), Some(expected));
        }
        let expected = DefaultRouter { ip: "fe80::1".parse().unwrap(), scope: 7 };
        assert_eq!(routes::best_v6(v6, |name| (name == "eth0").then_some(7)), Some(expected));
        assert_eq!((routes::best_v4("noise"), routes::best_v6("noise", |_| None)), (None, None));
    }

    #[test]
    fn a_neighbour_shares_the_network_part() {
        let interface =
            |ip: &str, prefix_bits| Interface { ip: ip.parse().unwrap(), prefix_bits, index: None };
        for (one, bits, other, near) in [
            ("192.168.1.11", 24, "192.168.1.1", true),
            ("192.168.1.11", 24, "192.168.2.1", false),
            ("192.168.1.11", 32, "192.168.1.11", true),
            ("10.0.0.1", 0, "203.0.113.1", true),
            ("2001:db8::1", 64, "2001:db8::2", true),
            ("2001:db8::1", 64, "2001:db8:1::2", false),
            ("10.0.0.1", 8, "::1", false),
        ] {
            assert_eq!(interface(one, bits).has_neighbour(other.parse().unwrap()), near, "{one} {other}");
        }
    }
}
