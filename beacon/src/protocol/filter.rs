//! What is not worth a look: our own echo, senders from beyond the link, and senders that talk too much.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::answers::Allowance;
use super::{Link, Packet};

/// Decides whether a datagram is looked at.
#[derive(Debug)]
pub(super) struct Filter {
    recent: BTreeMap<SocketAddr, Allowance>,
    earlier: BTreeMap<SocketAddr, Allowance>,
    refusals: Refusals,
}

/// How many datagrams were not looked at, by reason. Counted since the start; the numbers never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusals {
    /// Our own datagrams that came back.
    pub own_echo: u64,
    /// Not a beacon, cut off, too long, or of another version.
    pub malformed: u64,
    /// From an address that is not directly on the link it came by.
    pub off_link: u64,
    /// From a sender that sent more than its share.
    pub too_frequent: u64,
    /// Not sealed under this beacon's group secret: of another group, of none, or forged.
    pub not_of_group: u64,
    /// Of this group, but not sent from where it came from: somebody passes it on.
    pub passed_on: u64,
    /// Of this group, but perhaps recorded and said again.
    pub not_fresh: u64,
}

impl Filter {
    pub(super) fn new() -> Self {
        Self { recent: BTreeMap::new(), earlier: BTreeMap::new(), refusals: Refusals::default() }
    }

    /// Reads a datagram and says whether it deserves a look.
    pub(super) fn admit<'a>(
        &mut self,
        now: Instant,
        link: &Link,
        source: SocketAddr,
        own_id: &[u8],
        bytes: &'a [u8],
    ) -> Option<Packet<'a>> {
        let Ok(packet) = Packet::decode(bytes) else {
            self.refusals.malformed += 1;
            return None;
        };
        if !own_id.is_empty() && packet.id == own_id {
            self.refusals.own_echo += 1;
            return None;
        }
        if !link.is_on_link(source.ip()) {
            self.refusals.off_link += 1;
            return None;
        }
        if !self.allowance(now, source).take(now) {
            self.refusals.too_frequent += 1;
            return None;
        }
        Some(packet)
    }

    /// Counts something that others decided.
    pub(super) fn count(&mut self, count: impl FnOnce(&mut Refusals) -> &mut u64) {
        *count(&mut self.refusals) += 1;
    }

    pub(super) const fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Two generations: when the newer is full it becomes the older, and what was in the older is forgotten. So the
    /// busiest senders are kept, at a bounded size and without a search for the least recent one.
    fn allowance(&mut self, now: Instant, source: SocketAddr) -> &mut Allowance {
        let known = self.earlier.remove(&source);
        if self.recent.len() >= MAX_SOURCES && !self.recent.contains_key(&source) {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent
            .entry(source)
            .or_insert_with(|| known.unwrap_or_else(|| Allowance::new(now, SOURCE_BURST, SOURCE_PAUSE)))
    }
}

/// Senders remembered a generation; two of them take less than 200 kB.
const MAX_SOURCES: usize = 1024;

/// A sender with three ways to reach us searches with 12 datagrams, announces new data 50 times a second at most, and
/// answers at most 20 times: what is above is not from a beacon.
const SOURCE_BURST: u32 = 100;
const SOURCE_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::super::{Kind, LinkId, Network, any_instant};
    use super::*;

    #[test]
    fn own_echo_is_dropped_unless_there_are_no_identity_bytes() {
        let now = any_instant();
        let mut filter = Filter::new();

        assert!(filter.admit(now, &link(), source(1), b"me", &announcement(b"me")).is_none());
        assert!(filter.admit(now, &link(), source(1), b"me", &announcement(b"you")).is_some());
        assert!(filter.admit(now, &link(), source(1), b"", &announcement(b"")).is_some());
        assert_eq!(filter.refusals().own_echo, 1);
    }

    #[test]
    fn a_sender_beyond_the_link_is_not_heard() {
        let now = any_instant();
        let mut filter = Filter::new();
        let far = SocketAddr::from(([203, 0, 113, 1], 9));

        assert!(filter.admit(now, &link(), far, b"me", &announcement(b"you")).is_none());
        assert_eq!(filter.refusals().off_link, 1);
    }

    #[test]
    fn a_sender_that_floods_is_held_to_its_share_and_others_are_heard() {
        let start = any_instant();
        let mut filter = Filter::new();

        let mut heard = 0;
        for step in 0..5_000_u64 {
            let now = start + Duration::from_micros(step * 200);
            let packet = announcement(&step.to_be_bytes());
            heard += usize::from(filter.admit(now, &link(), source(1), b"me", &packet).is_some());
        }

        assert!((250..=300).contains(&heard), "{heard} of 5,000 heard");
        let later = start + Duration::from_secs(1);
        assert!(filter.admit(later, &link(), source(2), b"me", &announcement(b"you")).is_some());
    }

    #[test]
    fn senders_without_end_take_bounded_room() {
        let now = any_instant();
        let mut filter = Filter::new();

        for port in 1..=u16::MAX {
            filter.admit(now, &link(), source(port), b"me", &announcement(b"you"));
        }

        assert!(filter.recent.len() + filter.earlier.len() <= 2 * MAX_SOURCES);
    }

    fn link() -> Link {
        let network = Network { address: [10, 0, 0, 2].into(), prefix_bits: 24 };
        Link { id: LinkId(1), name: "net0".into(), networks: vec![network], datagrams_per_round: 1 }
    }

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn announcement(id: &[u8]) -> Vec<u8> {
        let packet = Packet {
            kind: Kind::Announce,
            sequence: 1,
            interval: Duration::from_secs(1),
            id,
            data: b"data",
            known: &[],
        };
        packet.encode().expect("small")
    }
}
