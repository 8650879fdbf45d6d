//! How many handshakes strangers may keep us busy with.

use std::{collections::BTreeMap, net::IpAddr};

/// Counts incoming handshakes in progress, in all and for each network they come from.
#[derive(Debug)]
pub(crate) struct Pending {
    total: usize,
    by_prefix: BTreeMap<Prefix, usize>,
    max_total: usize,
    max_per_prefix: usize,
}

/// Whether one more handshake may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// Too many in all.
    Full,
    /// Too many from that network.
    PrefixFull,
}

impl Pending {
    pub(crate) fn new(max_total: usize, max_per_prefix: usize) -> Self {
        Self { total: 0, by_prefix: BTreeMap::new(), max_total, max_per_prefix }
    }

    /// Whether there is room for a handshake from anywhere.
    pub(crate) fn has_room(&self) -> bool {
        self.total < self.max_total
    }

    /// Counts one handshake, if there is room. Each one that was let in is given back by `leave`.
    pub(crate) fn enter(&mut self, source: IpAddr) -> Room {
        let room = self.room(source);
        if room == Room::Free {
            self.total += 1;
            if let Some(prefix) = Prefix::of(source) {
                *self.by_prefix.entry(prefix).or_insert(0) += 1;
            }
        }
        room
    }

    fn room(&self, source: IpAddr) -> Room {
        let crowded = |prefix| self.by_prefix.get(&prefix).is_some_and(|&count| count >= self.max_per_prefix);
        if !self.has_room() {
            Room::Full
        } else if Prefix::of(source).is_some_and(crowded) {
            Room::PrefixFull
        } else {
            Room::Free
        }
    }

    /// Gives a place back.
    pub(crate) fn leave(&mut self, source: IpAddr) {
        self.total = self.total.saturating_sub(1);
        let Some(prefix) = Prefix::of(source) else { return };
        if let Some(count) = self.by_prefix.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.by_prefix.remove(&prefix);
            }
        }
    }
}

/// What one customer usually holds: a /24 of IPv4, a /48 of IPv6 (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Prefix {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Prefix {
    /// `None` for loopback, link-local and private sources: many honest peers share those.
    fn of(source: IpAddr) -> Option<Self> {
        match source.to_canonical() {
            IpAddr::V4(addr) if addr.is_loopback() || addr.is_private() || addr.is_link_local() => None,
            IpAddr::V4(addr) => {
                let [a, b, c, _] = addr.octets();
                Some(Self::V4([a, b, c]))
            }
            IpAddr::V6(addr)
                if addr.is_loopback() || addr.is_unique_local() || addr.is_unicast_link_local() =>
            {
                None
            }
            IpAddr::V6(addr) => {
                let [a, b, c, d, e, f, ..] = addr.octets();
                Some(Self::V6([a, b, c, d, e, f]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(pending: &mut Pending, source: &str) -> Room {
        pending.enter(source.parse().unwrap())
    }

    #[test]
    fn one_network_cannot_take_all_places() {
        let mut pending = Pending::new(10, 2);
        assert_eq!(enter(&mut pending, "198.51.100.1"), Room::Free);
        assert_eq!(enter(&mut pending, "198.51.100.200"), Room::Free);
        assert_eq!(enter(&mut pending, "198.51.100.3"), Room::PrefixFull);
        assert_eq!(enter(&mut pending, "::ffff:198.51.100.3"), Room::PrefixFull);
        assert_eq!(enter(&mut pending, "198.51.101.3"), Room::Free);
        pending.leave("198.51.100.1".parse().unwrap());
        assert_eq!(enter(&mut pending, "198.51.100.3"), Room::Free);
    }

    #[test]
    fn loopback_and_private_sources_share_only_the_total() {
        let mut pending = Pending::new(4, 1);
        for source in ["127.0.0.1", "127.0.0.1", "10.0.0.1", "fe80::1"] {
            assert_eq!(enter(&mut pending, source), Room::Free);
        }
        assert_eq!(enter(&mut pending, "127.0.0.1"), Room::Full);
    }

    #[test]
    fn what_left_leaves_nothing_behind() {
        let mut pending = Pending::new(4, 4);
        enter(&mut pending, "2001:db8:1::1");
        pending.leave("2001:db8:1:ffff::9".parse().unwrap());
        assert!(pending.by_prefix.is_empty() && pending.total == 0);
    }
}
