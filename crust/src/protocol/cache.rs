//! Where peers were reached, and when last: bounded, ageing, best first. Pure; the file is another's business.
//!
//! ```text
//!  0               8         9          11
//! +---------------+---------+----------+-------------------------------+----------+
//! | "crustend"    | version | number   | entries                       | checksum |
//! | 8 bytes       | = 1     | 2 bytes  |                               | 8 bytes  |
//! +---------------+---------+----------+-------------------------------+----------+
//!
//! entry:   | key (32) | when (8) | scheme (1) | family (1): 4 or 6 | address (4 or 16) | port (2) |
//! ```
//!
//! "When" is in seconds since 1970; the checksum is the front of SHA-256 over all before it.

use std::{collections::BTreeMap, net::SocketAddr};

use transport::{Endpoint, PublicKey};

use super::{
    contact_wire::{scheme_code, scheme_of},
    kept::{self, CacheFlaw, Kept},
};

/// The endpoints that led somewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cache {
    /// The latest first.
    entries: Vec<Entry>,
}

/// One endpoint, and when it worked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) endpoint: Endpoint,
    /// In seconds since 1970.
    pub(crate) worked: u64,
}

impl Cache {
    /// Notes that an endpoint works; tells whether that is worth writing down.
    pub(crate) fn record(&mut self, now: u64, endpoint: Endpoint) -> bool {
        let known = self.entries.iter().position(|entry| entry.endpoint == endpoint);
        let fresh = known.is_some_and(|index| self.entries[index].worked.saturating_add(FRESH) > now);
        if let Some(index) = known {
            self.entries.remove(index);
        }
        self.entries.insert(0, Entry { endpoint, worked: now });
        self.prune(now);
        !fresh
    }

    /// Forgets an endpoint; tells whether it was there.
    pub(crate) fn remove(&mut self, endpoint: &Endpoint) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.endpoint != *endpoint);
        self.entries.len() < before
    }

    /// Where a peer was reached, the latest first.
    pub(crate) fn of(&self, key: PublicKey) -> impl Iterator<Item = Endpoint> {
        let entries = self.entries.iter().filter(move |entry| entry.endpoint.public_key() == key);
        entries.map(|entry| entry.endpoint)
    }

    /// All, the latest first.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.entries.iter().map(|entry| entry.endpoint)
    }

    /// Keeps what is young enough, so many of each peer, so many in all.
    fn prune(&mut self, now: u64) {
        let mut of_peer: BTreeMap<PublicKey, usize> = BTreeMap::new();
        self.entries.retain(|entry| {
            let beside = of_peer.entry(entry.endpoint.public_key()).or_default();
            *beside += 1;
            // A clock that was wrong once must not keep an entry for ever.
            let young = entry.worked.saturating_add(LIFETIME) > now && entry.worked <= now + FRESH;
            young && *beside <= OF_ONE_PEER
        });
        self.entries.truncate(IN_ALL);
    }

    fn entries(number: u16, mut rest: &[u8]) -> Option<Self> {
        let mut cache = Self::default();
        for _ in 0..number {
            let (key, after) = rest.split_first_chunk::<32>()?;
            let (worked, after) = after.split_first_chunk::<8>()?;
            let (&[scheme, family], after) = after.split_first_chunk::<2>()?;
            let (addr, after) = address(family, after)?;
            rest = after;
            // A scheme of a later version is skipped.
            if let Some(scheme) = scheme_of(scheme) {
                let endpoint = Endpoint::new(scheme, addr, PublicKey::from_bytes(*key));
                cache.entries.push(Entry { endpoint, worked: u64::from_be_bytes(*worked) });
            }
        }
        rest.is_empty().then_some(cache)
    }
}

impl Kept for Cache {
    /// A file of at most sixty kilobytes.
    const MAX_BYTES: usize = kept::HEAD_BYTES + IN_ALL * (32 + 8 + 2 + 16 + 2) + kept::CHECKSUM_BYTES;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = kept::head(MAGIC, VERSION, self.entries.len());
        for entry in &self.entries {
            bytes.extend(entry.endpoint.public_key().as_bytes());
            bytes.extend(entry.worked.to_be_bytes());
            bytes.push(scheme_code(entry.endpoint.scheme()));
            match entry.endpoint.addr() {
                SocketAddr::V4(addr) => {
                    bytes.push(4);
                    bytes.extend(addr.ip().octets());
                }
                SocketAddr::V6(addr) => {
                    bytes.push(6);
                    bytes.extend(addr.ip().octets());
                }
            }
            bytes.extend(entry.endpoint.addr().port().to_be_bytes());
        }
        kept::finish(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CacheFlaw> {
        let (number, entries) = kept::open(MAGIC, VERSION, Self::MAX_BYTES, bytes)?;
        Self::entries(number, entries).ok_or(CacheFlaw::Damaged)
    }

    /// Of an endpoint that both know, the later word counts.
    fn merge(&mut self, now: u64, other: &Self) {
        for entry in &other.entries {
            match self.entries.iter_mut().find(|known| known.endpoint == entry.endpoint) {
                Some(known) => known.worked = known.worked.max(entry.worked),
                None => self.entries.push(*entry),
            }
        }
        self.entries.sort_by_key(|entry| std::cmp::Reverse(entry.worked));
        self.prune(now);
    }
}

fn address(family: u8, bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest): (std::net::IpAddr, _) = match family {
        4 => bytes.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest))?,
        6 => bytes.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

const MAGIC: &[u8; 8] = b"crustend";
const VERSION: u8 = 1;
/// Half a year without a word, and the peer has moved.
const LIFETIME: u64 = 180 * 24 * 3_600;
/// Within an hour nothing new is written: a peer that is dialled every second costs no disk.
const FRESH: u64 = 3_600;
/// Home, work and the road, by both schemes.
const OF_ONE_PEER: usize = 8;
/// Everybody one knows, and some more.
const IN_ALL: usize = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use transport::Scheme;

    use super::*;

    fn endpoint(key: u8, port: u16) -> Endpoint {
        let addr = SocketAddr::from(([192, 0, 2, 1], port));
        Endpoint::new(Scheme::Quic, addr, PublicKey::from_bytes([key; 32]))
    }

    fn filled() -> Cache {
        let mut cache = Cache::default();
        cache.record(NOW, endpoint(1, 1));
        let v6 =
            Endpoint::new(Scheme::Tcp, "[2001:db8::1]:2".parse().unwrap(), PublicKey::from_bytes([2; 32]));
        cache.record(NOW + 1, v6);
        cache
    }

    #[test]
    fn the_latest_comes_first_and_an_hour_passes_before_it_is_written_again() {
        let mut cache = filled();
        assert!(cache.record(NOW + 2, endpoint(1, 7)));
        assert_eq!(
            cache.of(PublicKey::from_bytes([1; 32])).collect::<Vec<_>>(),
            [endpoint(1, 7), endpoint(1, 1)]
        );
        assert!(!cache.record(NOW + 3, endpoint(1, 1)), "it was written a moment ago");
        assert_eq!(cache.endpoints().next(), Some(endpoint(1, 1)));
        assert!(cache.record(NOW + 3 + FRESH, endpoint(1, 1)));
        assert!(cache.remove(&endpoint(1, 1)) && !cache.remove(&endpoint(1, 1)));
    }

    #[test]
    fn there_is_a_bound_for_each_peer_for_all_and_for_age() {
        let mut cache = Cache::default();
        for port in 1..=20 {
            cache.record(NOW, endpoint(1, port));
        }
        assert_eq!(cache.of(PublicKey::from_bytes([1; 32])).count(), OF_ONE_PEER);
        for number in 0..2 * IN_ALL {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            cache.record(
                NOW,
                Endpoint::new(Scheme::Tcp, "192.0.2.1:1".parse().unwrap(), PublicKey::from_bytes(key)),
            );
        }
        assert_eq!(cache.endpoints().count(), IN_ALL);
        assert!(cache.encode().len() <= Cache::MAX_BYTES);
        cache.record(NOW + LIFETIME + 1, endpoint(1, 1));
        assert_eq!(cache.endpoints().count(), 1);
        cache.record(NOW, endpoint(1, 2));
        assert_eq!(cache.endpoints().count(), 1, "what is of the future is not believed");
    }

    #[test]
    fn what_two_processes_know_is_put_together() {
        let (mut one, mut other) = (filled(), filled());
        one.record(NOW + 5, endpoint(3, 3));
        other.record(NOW + 9, endpoint(1, 1));
        one.merge(NOW + 9, &other);
        let ports: Vec<u16> = one.endpoints().map(|endpoint| endpoint.addr().port()).collect();
        assert_eq!(ports, [1, 3, 2]);
    }

    #[test]
    fn the_golden_bytes_read_and_write() {
        let cache = filled();
        let mut golden = b"crustend\x01\x00\x02".to_vec();
        golden.extend([2; 32]);
        golden.extend(
            b"\x00\x00\x00\x00\x65\x53\xf1\x01\x01\x06\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x02",
        );
        golden.extend([1; 32]);
        golden.extend(b"\x00\x00\x00\x00\x65\x53\xf1\x00\x00\x04\xc0\x00\x02\x01\x00\x01");
        let bytes = cache.encode();
        assert_eq!(bytes[..golden.len()], golden);
        assert_eq!((bytes.len(), Cache::decode(&bytes)), (golden.len() + kept::CHECKSUM_BYTES, Ok(cache)));
    }

    #[test]
    fn whatever_is_changed_or_missing_is_noticed() {
        let bytes = filled().encode();
        for at in 0..bytes.len() {
            assert!(Cache::decode(&bytes[..at]).is_err(), "{at} bytes");
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(Cache::decode(&wrong).is_err(), "byte {at}");
        }
        let mut later = bytes;
        later[8] = 2;
        assert_eq!(Cache::decode(&later), Err(CacheFlaw::Version { found: 2, known: 1 }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), whole: bool) {
            if whole {
                bytes.splice(0..0, b"crustend\x01".iter().copied());
                let checksum = kept::checksum(&bytes);
                bytes.extend(checksum);
            }
            if let Ok(cache) = Cache::decode(&bytes) {
                prop_assert_eq!(Cache::decode(&cache.encode()), Ok(cache));
            }
        }
    }

    const NOW: u64 = 1_700_000_000;
}
