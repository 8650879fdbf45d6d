use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A TCP socket bound to `address` in a way that lets further ones be bound to the same address.
pub(crate) fn reusable_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sends a datagram that routers drop after so many hops, and sets the socket's own limit again.
pub(crate) fn send_with_hops(
    socket: &UdpSocket,
    bytes: &[u8],
    destination: SocketAddr,
    hops: u8,
) -> io::Result<usize> {
    let options = SockRef::from(socket);
    if destination.is_ipv4() {
        let usual = options.ttl_v4()?;
        options.set_ttl_v4(u32::from(hops))?;
        let sent = socket.send_to(bytes, destination);
        options.set_ttl_v4(usual)?;
        sent
    } else {
        let usual = options.unicast_hops_v6()?;
        options.set_unicast_hops_v6(u32::from(hops))?;
        let sent = socket.send_to(bytes, destination);
        options.set_unicast_hops_v6(usual)?;
        sent
    }
}

/// The unspecified address of the same family.
pub(crate) const fn unspecified_like(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
