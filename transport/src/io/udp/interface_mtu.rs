use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use crate::{io::clock, protocol::quic::PathMtu};

/// What the interfaces of this host carry at most, so that no larger datagram is ever tried on a path.
#[derive(Debug, Default)]
pub(crate) struct InterfaceMtus {
    by_addr: BTreeMap<IpAddr, u16>,
    read: Option<Instant>,
}

impl InterfaceMtus {
    /// The largest datagram worth trying between us and `remote`, if ours is the address `local`.
    pub(crate) fn of_path(&mut self, local: Option<IpAddr>, remote: SocketAddr) -> PathMtu {
        if remote.ip().to_canonical().is_loopback() {
            return PathMtu { largest: self.largest(Ipv4Addr::LOCALHOST.into()), is_known: true };
        }
        let local = local.or_else(|| source_for(remote));
        PathMtu { largest: local.map_or(ETHERNET, |local| self.largest(local)), is_known: false }
    }

    fn largest(&mut self, local: IpAddr) -> u16 {
        let now = clock::now();
        if self.read.is_none_or(|read| now.saturating_duration_since(read) > FRESH) {
            self.by_addr = read_interfaces();
            self.read = Some(now);
        }
        self.by_addr.get(&local.to_canonical()).copied().unwrap_or(ETHERNET)
    }
}

/// The address that the system would send from. Nothing is sent for it.
fn source_for(remote: SocketAddr) -> Option<IpAddr> {
    let unspecified: SocketAddr = if remote.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(unspecified).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn read_interfaces() -> BTreeMap<IpAddr, u16> {
    let interfaces = get_if_addrs::get_if_addrs().unwrap_or_default();
    let largest =
        |interface: &get_if_addrs::Interface| Some((interface.ip(), payload(mtu_of(&interface.name)?)));
    interfaces.iter().filter_map(largest).collect()
}

/// The MTU of an interface, where the system tells by a file.
fn mtu_of(name: &str) -> Option<u32> {
    if !cfg!(any(target_os = "linux", target_os = "android")) || name.contains('/') {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?.trim().parse().ok()
}

fn payload(mtu: u32) -> u16 {
    u16::try_from(mtu.saturating_sub(HEADER_BYTES)).unwrap_or(u16::MAX)
}

/// IPv6 and UDP: the larger of the two IP headers, so that one bound serves both.
const HEADER_BYTES: u32 = 48;
/// An Ethernet frame's payload less the headers: what to try where nothing better is known.
const ETHERNET: u16 = 1_500 - HEADER_BYTES as u16;
/// Interfaces change seldom, and a wrong bound costs a few lost probes.
const FRESH: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_leave_room_for_headers() {
        assert_eq!((payload(1_500), payload(65_536), payload(20)), (1_452, 65_488, 0));
    }

    #[test]
    fn an_unknown_address_counts_as_ethernet() {
        let mut mtus = InterfaceMtus { by_addr: BTreeMap::new(), read: Some(clock::now()) };
        let remote = "192.0.2.1:9".parse().unwrap();
        let ethernet = PathMtu { largest: 1_452, is_known: false };
        assert_eq!(mtus.of_path(Some("192.0.2.7".parse().unwrap()), remote), ethernet);
        mtus.by_addr.insert("192.0.2.7".parse().unwrap(), 8_952);
        assert_eq!(mtus.of_path(Some("::ffff:192.0.2.7".parse().unwrap()), remote).largest, 8_952);
    }
}
