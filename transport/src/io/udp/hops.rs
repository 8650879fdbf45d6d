//! Datagrams that routers drop after some hops, on sockets that others send from at the same time.

use std::{
    io::{self, IoSlice},
    net::{SocketAddr, UdpSocket},
};

use socket2::{MsgHdr, SockRef};

/// Sends one datagram with a hop limit of its own. The limit goes along with the datagram as ancillary data (RFC 3542 §6.3, ip(7)),
/// so that the socket's own, and with it what other threads send meanwhile, stays as it is.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, hops: u8) -> io::Result<()> {
    const IP: (i32, i32) = (0, 2);
    const IPV6: (i32, i32) = (41, 52);
    let (level, kind) = if to.is_ipv4() { IP } else { IPV6 };
    // struct cmsghdr: a length of the machine's word, level, type; then the value, filled up to a word.
    let head = size_of::<usize>() + 8;
    let mut control = (head + 4).to_ne_bytes().to_vec();
    control.extend(level.to_ne_bytes());
    control.extend(kind.to_ne_bytes());
    control.extend(i32::from(hops).to_ne_bytes());
    control.resize(control.len().next_multiple_of(size_of::<usize>()), 0);
    let (to, slices) = (to.into(), [IoSlice::new(bytes)]);
    let message = MsgHdr::new().with_addr(&to).with_buffers(&slices).with_control(&control);
    SockRef::from(socket).sendmsg(&message, 0).map(drop)
}

/// Elsewhere the socket's own limit is changed for a moment. What another thread sends just then gets no further either, and is
/// repeated like whatever is lost.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, hops: u8) -> io::Result<()> {
    let (options, slices) = (SockRef::from(socket), [IoSlice::new(bytes)]);
    let addr = to.into();
    let message = MsgHdr::new().with_addr(&addr).with_buffers(&slices);
    if to.is_ipv4() {
        let usual = options.ttl_v4()?;
        options.set_ttl_v4(u32::from(hops))?;
        let sent = options.sendmsg(&message, 0);
        options.set_ttl_v4(usual)?;
        sent.map(drop)
    } else {
        let usual = options.unicast_hops_v6()?;
        options.set_unicast_hops_v6(u32::from(hops))?;
        let sent = options.sendmsg(&message, 0);
        options.set_unicast_hops_v6(usual)?;
        sent.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_datagram_arrives_and_the_sockets_own_limit_stays() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(receiver) = UdpSocket::bind(addr) else { continue };
            let sender = UdpSocket::bind(addr).unwrap();
            let usual = sender.ttl().ok();
            send(&sender, b"near", receiver.local_addr().unwrap(), 1).unwrap();
            let mut buffer = [0; 8];
            assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
            assert_eq!(sender.ttl().ok(), usual);
        }
    }
}
