use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use get_if_addrs::Interface;

use crate::io::changes::Changes;
use crate::io::clock;

/// Notices that this host has come into another network: its addresses have changed, or by which of them it reaches
/// others. An address counts as long as its interface is up.
///
/// It has no thread; whoever owns it calls [`poll`](Self::poll) when [`poll_timeout`](Self::poll_timeout) says so, and on Linux as
/// soon as [`as_fd`](Self::as_fd) can be read. Loopback and link-local addresses do not count.
///
/// ```
/// use std::time::Instant;
/// use beacon::NetworkWatch;
///
/// let mut watch = NetworkWatch::new();
/// if watch.poll(Instant::now()) {
///     println!("reached at {:?} now", watch.addresses());
/// }
/// ```
#[derive(Debug)]
pub struct NetworkWatch {
    changes: Changes,
    network: Network,
    last_read: Instant,
    next_read: Instant,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Network {
    addresses: Vec<IpAddr>,
    /// From where packets to the internet go, by IPv4 and IPv6.
    uplinks: [Option<IpAddr>; 2],
}

impl NetworkWatch {
    /// Begins with the network as it is now. Takes well under a millisecond.
    #[must_use]
    pub fn new() -> Self {
        let changes = Changes::open();
        let now = clock::now();
        let next_read = now + changes.reading_pause();
        Self { changes, network: Network::read().unwrap_or_default(), last_read: now, next_read }
    }

    /// The addresses of this host when it was last looked at, in order.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.network.addresses
    }

    /// Looks, if it is time to; tells whether the network is another one. Call it early as you like.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.changes.drain() {
            // Changes come in swarms, and one look serves all of a swarm.
            self.next_read = self.next_read.min(self.last_read.max(now) + LIST_PAUSE);
        }
        if now < self.next_read {
            return false;
        }
        self.last_read = now;
        self.next_read = now + self.changes.reading_pause();
        match Network::read() {
            Ok(network) if network != self.network => {
                tracing::debug!(addresses = ?network.addresses, uplinks = ?network.uplinks, "another network");
                self.network = network;
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(%error, "the system does not tell its addresses");
                false
            }
        }
    }

    /// When to look again, although nothing was said.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.next_read
    }

    /// What can be read when something may have changed; `None` where the system does not say so.
    #[cfg(unix)]
    #[must_use]
    pub fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.changes.as_fd()
    }
}

impl Default for NetworkWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Network {
    fn read() -> std::io::Result<Self> {
        let all = get_if_addrs::get_if_addrs()?;
        // An interface without a carrier keeps its addresses, which then lead nowhere.
        let mut addresses: Vec<IpAddr> =
            all.iter().filter(|one| one.is_oper_up()).map(Interface::ip).filter(counts).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(Self { addresses, uplinks: SOMEWHERE.map(source_towards) })
    }
}

fn counts(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// What the system would send from; connecting a UDP socket sends nothing.
fn source_towards(remote: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(SocketAddr::new(remote, DISCARD)).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

/// Addresses that only the default route leads to: those for documentation (RFC 5737, RFC 3849).
const SOMEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
const DISCARD: u16 = 9;
/// An address that is replaced is away for a moment.
const LIST_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_stays_the_same_is_read_at_its_time_and_tells_nothing() {
        let mut watch = NetworkWatch::new();
        let now = watch.poll_timeout();
        assert!(!watch.poll(now));
        assert!(watch.poll_timeout() > now);
        assert!(watch.addresses().iter().all(counts));
    }

    #[test]
    fn another_network_is_told_once() {
        let mut watch = NetworkWatch::new();
        watch.network.addresses.push(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)));
        let now = watch.poll_timeout();
        assert!(watch.poll(now));
        let now = watch.poll_timeout();
        assert!(!watch.poll(now));
    }
}
