use std::io;
use std::net::{IpAddr, SocketAddr};

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
