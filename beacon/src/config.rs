use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::error::BeaconError;
use crate::protocol::GroupSecret;

/// How a beacon speaks and listens.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use beacon::{BeaconConfig, Interfaces};
///
/// let config = BeaconConfig::new(28_400)
///     .period(Duration::from_millis(500))
///     .interfaces(Interfaces::Named(vec!["eth0".into()]));
/// assert_eq!(config, config.clone());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeaconConfig {
    pub(crate) port: u16,
    pub(crate) id_bytes: usize,
    pub(crate) period: Duration,
    pub(crate) interfaces: Interfaces,
    pub(crate) secret: Option<GroupSecret>,
    pub(crate) broadcast: bool,
    pub(crate) group_v4: Option<Ipv4Addr>,
    pub(crate) group_v6: Option<Ipv6Addr>,
}

/// The interfaces on which a beacon speaks and listens. They are followed while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interfaces {
    /// Every interface that is up and not point-to-point; loopback only as long as there is no other, so that
    /// programs on one machine find each other without any network.
    #[default]
    Lan,
    /// The loopback interface alone: only this machine.
    Loopback,
    /// The interfaces of these names. Those that do not exist yet are taken when they appear, but at least one must
    /// be usable at the start.
    Named(Vec<String>),
}

impl BeaconConfig {
    /// The defaults, on `port`. All who want to find each other use one port; any number of programs on one machine
    /// share it. With 0 the system chooses a free one, which [`Beacon::port`](crate::Beacon::port) tells.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self { port, ..Self::default() }
    }

    /// Sets the number of random bytes that tell this beacon from others and its own echo from others' words.
    ///
    /// 16 by default, at most 32, and each is one less for the data. Few bytes may collide, and then two beacons do
    /// not see each other. With 0 the echo is not filtered, and peers are told apart by the address they send from.
    #[must_use]
    pub const fn id_bytes(mut self, id_bytes: usize) -> Self {
        self.id_bytes = id_bytes;
        self
    }

    /// Sets the time between two announcements: one second by default, taken as 20 ms if shorter, and as an hour if
    /// longer.
    ///
    /// Newcomers are answered at once whatever the period is; it decides how soon a peer that vanished without a
    /// goodbye is noticed (after four periods) and what the link carries. When many peers are heard, announcements
    /// become rarer by themselves.
    #[must_use]
    pub const fn period(mut self, period: Duration) -> Self {
        self.period = period;
        self
    }

    /// Sets the interfaces: [`Interfaces::Lan`] by default.
    #[must_use]
    pub fn interfaces(mut self, interfaces: Interfaces) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// Makes the beacon private: only those with the same secret are heard, and hear. Others on the link learn that somebody
    /// at this address has a private beacon, and neither who it is nor what it announces. None by default.
    ///
    /// The data may have about 150 bytes less. At least 16 bytes of identity are used.
    #[must_use]
    pub fn secret(mut self, secret: Option<GroupSecret>) -> Self {
        self.secret = secret;
        self
    }

    /// Sets whether IPv4 broadcast is used: yes by default, as it passes some access points that drop multicast.
    #[must_use]
    pub const fn broadcast(mut self, broadcast: bool) -> Self {
        self.broadcast = broadcast;
        self
    }

    /// Sets the IPv4 multicast group, or none: 239.255.98.99 by default, of the range for private use (RFC 2365).
    #[must_use]
    pub const fn group_v4(mut self, group: Option<Ipv4Addr>) -> Self {
        self.group_v4 = group;
        self
    }

    /// Sets the IPv6 multicast group, or none: ff12::6265:6163:6f6e by default, which stays on the link (RFC 4291).
    #[must_use]
    pub const fn group_v6(mut self, group: Option<Ipv6Addr>) -> Self {
        self.group_v6 = group;
        self
    }

    pub(crate) fn check(&self) -> Result<(), BeaconError> {
        let groups = [self.group_v4.map(IpAddr::V4), self.group_v6.map(IpAddr::V6)];
        match groups.into_iter().flatten().find(|group| !group.is_multicast()) {
            Some(group) => Err(BeaconError::NotMulticast { group }),
            None => Ok(()),
        }
    }
}

impl Default for BeaconConfig {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            id_bytes: DEFAULT_ID_BYTES,
            period: DEFAULT_PERIOD,
            interfaces: Interfaces::default(),
            secret: None,
            broadcast: true,
            group_v4: Some(DEFAULT_GROUP_V4),
            group_v6: Some(DEFAULT_GROUP_V6),
        }
    }
}

/// Not assigned to anybody, and below the range from which systems choose ports by themselves.
const DEFAULT_PORT: u16 = 28_321;

/// 2^64 beacons would have to meet before two are likely to be equal.
const DEFAULT_ID_BYTES: usize = 16;

/// A vanished peer is noticed in seconds, and a link of a hundred peers carries about 100 small datagrams a second.
const DEFAULT_PERIOD: Duration = Duration::from_secs(1);

const DEFAULT_GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 98, 99);

/// A group that is not permanently assigned, of link-local scope; the last six bytes spell "beacon".
const DEFAULT_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0x6265, 0x6163, 0x6f6e);
