//! What worked with whom from which network: bounded, ageing, the latest first. Pure; the file is another's business.
//!
//! ```text
//! entry:   | network (8) | key (32) | when (8) | road (1) | scheme (1), + 128: UDP was silent | took, ms (4) |
//! ```
//!
//! The file is that of [`kept`](super::kept), named `crustnet`. A network is known by a hash of this host's addresses in it.
//!
//! It says what to try first, and what not to wait for. What fails is forgotten, so that a network that has changed costs one
//! attempt.

use std::net::IpAddr;

use ring::digest::{SHA256, digest};
use transport::{PublicKey, Scheme};

use super::{
    contact_wire::{scheme_code, scheme_of},
    kept::{self, CacheFlaw, Kept},
};

/// A network, as far as this host can tell it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetworkId([u8; 8]);

impl NetworkId {
    /// From this host's addresses: the first half of each counts, since the rest may be drawn anew each day. `None` without an
    /// address that leads anywhere.
    pub(crate) fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Option<Self> {
        let mut prefixes: Vec<Vec<u8>> = Vec::new();
        for ip in addresses {
            match ip.to_canonical() {
                ip if ip.is_loopback() || ip.is_unspecified() => {}
                IpAddr::V4(ip) => prefixes.push(ip.octets()[..3].to_vec()),
                IpAddr::V6(ip) if ip.is_unicast_link_local() => {}
                IpAddr::V6(ip) => prefixes.push(ip.octets()[..8].to_vec()),
            }
        }
        prefixes.sort();
        prefixes.dedup();
        let text: Vec<u8> = prefixes.iter().flat_map(|one| [&[one.len() as u8][..], one].concat()).collect();
        let hash = digest(&SHA256, &text);
        (!prefixes.is_empty()).then(|| Self(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes")))
    }
}

/// How a peer was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) way: Way,
    pub(crate) scheme: Scheme,
    /// How long that took, in milliseconds.
    pub(crate) took: u32,
    /// Servers were asked by UDP, and none answered.
    pub(crate) udp_silent: bool,
}

/// By what kind of way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Lan,
    Direct,
    Punched,
    Relayed,
}

/// What worked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NetworkMemory {
    /// The latest first.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    network: NetworkId,
    peer: PublicKey,
    met: Met,
    /// In seconds since 1970.
    when: u64,
}

impl NetworkMemory {
    /// Notes how a peer was met; tells whether that is worth writing down.
    pub(crate) fn record(&mut self, now: u64, network: NetworkId, peer: PublicKey, met: Met) -> bool {
        let known = self.entries.iter().find(|entry| entry.network == network && entry.peer == peer);
        let fresh = known.is_some_and(|known| {
            let same = |met: Met| (met.way, met.scheme, met.udp_silent);
            same(known.met) == same(met) && now.saturating_sub(known.when) < FRESH
        });
        self.insert(now, Entry { network, peer, met, when: now });
        !fresh
    }

    /// How a peer was met from this network.
    pub(crate) fn recall(&self, now: u64, network: NetworkId, peer: PublicKey) -> Option<Met> {
        let found = self.entries.iter().find(|entry| entry.network == network && entry.peer == peer)?;
        let age = now.saturating_sub(found.when);
        let udp_silent = found.met.udp_silent && age < WITHOUT_UDP;
        (age < LIFETIME).then_some(Met { udp_silent, ..found.met })
    }

    /// What worked works no more; tells whether something was known.
    pub(crate) fn forget(&mut self, network: NetworkId, peer: PublicKey) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.network != network || entry.peer != peer);
        self.entries.len() < before
    }

    fn insert(&mut self, now: u64, new: Entry) {
        self.entries.retain(|entry| !entry.is_about(&new));
        self.entries.insert(0, new);
        self.prune(now);
    }

    fn prune(&mut self, now: u64) {
        // A clock that was wrong once must not keep an entry for ever.
        self.entries.retain(|entry| {
            entry.when.saturating_add(LIFETIME) > now && entry.when <= now.saturating_add(FRESH)
        });
        self.entries.truncate(IN_ALL);
    }
}

impl Entry {
    fn is_about(&self, other: &Self) -> bool {
        (self.network, self.peer) == (other.network, other.peer)
    }
}

impl Kept for NetworkMemory {
    const MAX_BYTES: usize = kept::HEAD_BYTES + IN_ALL * ENTRY_BYTES + kept::CHECKSUM_BYTES;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = kept::head(MAGIC, VERSION, self.entries.len());
        for Entry { network, peer, met, when } in &self.entries {
            bytes.extend(network.0);
            bytes.extend(peer.as_bytes());
            bytes.extend(when.to_be_bytes());
            let silent = if met.udp_silent { UDP_SILENT } else { 0 };
            bytes.extend([met.way.code(), scheme_code(met.scheme) | silent]);
            bytes.extend(met.took.to_be_bytes());
        }
        kept::finish(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CacheFlaw> {
        let (number, entries) = kept::open(MAGIC, VERSION, Self::MAX_BYTES, bytes)?;
        let chunks = entries.as_chunks::<ENTRY_BYTES>();
        if chunks.0.len() != usize::from(number) || !chunks.1.is_empty() {
            return Err(CacheFlaw::Damaged);
        }
        // Ways and schemes of a later version are skipped.
        Ok(Self { entries: chunks.0.iter().filter_map(read).collect() })
    }

    fn merge(&mut self, now: u64, other: &Self) {
        for entry in &other.entries {
            match self.entries.iter_mut().find(|known| known.is_about(entry)) {
                Some(known) if known.when <= entry.when => *known = *entry,
                Some(_) => {}
                None => self.entries.push(*entry),
            }
        }
        self.entries.sort_by_key(|entry| std::cmp::Reverse(entry.when));
        self.prune(now);
    }
}

fn read(bytes: &[u8; ENTRY_BYTES]) -> Option<Entry> {
    let (network, rest) = bytes.split_first_chunk::<8>()?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (when, rest) = rest.split_first_chunk::<8>()?;
    let (&[way, scheme], rest) = rest.split_first_chunk::<2>()?;
    let took = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    let udp_silent = scheme & UDP_SILENT != 0;
    let met = Met { way: Way::of(way)?, scheme: scheme_of(scheme & !UDP_SILENT)?, took, udp_silent };
    let peer = PublicKey::from_bytes(*key);
    Some(Entry { network: NetworkId(*network), peer, met, when: u64::from_be_bytes(*when) })
}

impl Way {
    const fn code(self) -> u8 {
        match self {
            Self::Lan => 0,
            Self::Direct => 1,
            Self::Punched => 2,
            Self::Relayed => 3,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Lan),
            1 => Some(Self::Direct),
            2 => Some(Self::Punched),
            3 => Some(Self::Relayed),
            _ => None,
        }
    }
}

const MAGIC: &[u8; 8] = b"crustnet";
const VERSION: u8 = 1;
const UDP_SILENT: u8 = 128;
const ENTRY_BYTES: usize = 8 + 32 + 8 + 1 + 1 + 4;
/// A month: routers and subscriptions change.
const LIFETIME: u64 = 30 * 24 * 3_600;
/// A network that lets UDP through again is noticed within this time.
const WITHOUT_UDP: u64 = 12 * 3_600;
/// Within an hour nothing is written that is known.
const FRESH: u64 = 3_600;
/// A file of at most thirty kilobytes.
const IN_ALL: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }

    fn network(third: u8) -> NetworkId {
        NetworkId::of([IpAddr::from([192, 168, third, 7])]).unwrap()
    }

    const fn met(way: Way, took: u32) -> Met {
        Met { way, scheme: Scheme::Quic, took, udp_silent: false }
    }

    fn filled() -> NetworkMemory {
        let mut memory = NetworkMemory::default();
        memory.record(NOW, network(1), key(1), met(Way::Punched, 412));
        memory.record(NOW + 1, network(2), key(1), met(Way::Relayed, 1_800));
        let silent = Met { udp_silent: true, scheme: Scheme::Tcp, ..met(Way::Punched, 900) };
        memory.record(NOW + 2, network(3), key(2), silent);
        memory
    }

    #[test]
    fn a_network_is_known_by_the_front_of_its_addresses() {
        let of = |all: &[&str]| NetworkId::of(all.iter().map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(of(&["192.168.1.7"]), of(&["192.168.1.9", "127.0.0.1", "::1", "fe80::7"]));
        assert_eq!(of(&["192.168.1.7", "2001:db8::1"]), of(&["2001:db8::abcd", "192.168.1.7"]));
        assert_ne!(of(&["192.168.1.7"]), of(&["192.168.2.7"]));
        assert_ne!(of(&["192.168.1.7"]), of(&["192.168.1.7", "2001:db8::1"]));
        assert_eq!(of(&["127.0.0.1", "fe80::1"]), None);
    }

    #[test]
    fn each_network_has_its_own_word_of_a_peer() {
        let memory = filled();
        assert_eq!(memory.recall(NOW, network(1), key(1)).unwrap().way, Way::Punched);
        assert_eq!(memory.recall(NOW, network(2), key(1)).unwrap().took, 1_800);
        assert_eq!(memory.recall(NOW, network(3), key(1)), None);
        assert_eq!(memory.recall(NOW, network(1), key(2)), None);
        assert!(memory.recall(NOW + 2, network(3), key(2)).unwrap().udp_silent);
        let later = memory.recall(NOW + 2 + WITHOUT_UDP, network(3), key(2)).unwrap();
        assert!(!later.udp_silent, "it is tried again");
        let mut memory = memory;
        assert!(memory.forget(network(1), key(1)) && !memory.forget(network(1), key(1)));
        assert_eq!(memory.recall(NOW, network(1), key(1)), None);
    }

    #[test]
    fn what_is_known_is_not_written_again_and_what_changes_is() {
        let mut memory = filled();
        assert!(!memory.record(NOW + 9, network(1), key(1), met(Way::Punched, 90)));
        assert!(memory.record(NOW + 9, network(1), key(1), met(Way::Relayed, 90)));
        assert!(memory.record(NOW + 9 + FRESH, network(1), key(1), met(Way::Relayed, 90)));
        let silent = Met { udp_silent: true, ..met(Way::Relayed, 90) };
        assert!(memory.record(NOW + 10 + FRESH, network(1), key(1), silent));
    }

    #[test]
    fn it_forgets_with_time_and_keeps_to_its_bound() {
        let mut memory = filled();
        assert_eq!(memory.recall(NOW + LIFETIME, network(1), key(1)), None);
        for number in 0..2 * IN_ALL {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            memory.record(NOW + 3, network(1), PublicKey::from_bytes(key), met(Way::Direct, 1));
        }
        assert_eq!(memory.entries.len(), IN_ALL);
        assert_eq!(memory.encode().len(), NetworkMemory::MAX_BYTES);
        memory.record(NOW + 3 + LIFETIME, network(1), key(1), met(Way::Direct, 1));
        assert_eq!(memory.entries.len(), 1);
        memory.record(NOW, network(1), key(2), met(Way::Direct, 1));
        assert_eq!(memory.entries.len(), 1, "what is of the future is not believed");
    }

    #[test]
    fn what_two_processes_know_is_put_together() {
        let (mut one, mut other) = (filled(), filled());
        one.record(NOW + 5, network(1), key(3), met(Way::Direct, 1));
        other.record(NOW + 9, network(1), key(1), met(Way::Relayed, 7));
        one.merge(NOW + 9, &other);
        assert_eq!(one.recall(NOW + 9, network(1), key(1)).unwrap().way, Way::Relayed);
        assert_eq!((one.entries.len(), one.recall(NOW + 9, network(1), key(3)).is_some()), (4, true));
    }

    #[test]
    fn the_golden_bytes_read_and_write() {
        let mut memory = NetworkMemory::default();
        memory.insert(
            NOW,
            Entry { network: NetworkId([9; 8]), peer: key(2), met: met(Way::Punched, 412), when: NOW },
        );
        let mut golden = b"crustnet\x01\x00\x01".to_vec();
        golden.extend([9; 8]);
        golden.extend([2; 32]);
        golden.extend(b"\x00\x00\x00\x00\x65\x53\xf1\x00\x02\x00\x00\x00\x01\x9c");
        let bytes = memory.encode();
        assert_eq!(bytes[..golden.len()], golden);
        assert_eq!((bytes.len(), NetworkMemory::decode(&bytes)), (golden.len() + 8, Ok(memory)));
    }

    #[test]
    fn whatever_is_changed_or_missing_is_noticed() {
        let bytes = filled().encode();
        for at in 0..bytes.len() {
            assert!(NetworkMemory::decode(&bytes[..at]).is_err(), "{at} bytes");
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(NetworkMemory::decode(&wrong).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), whole: bool) {
            if whole {
                bytes.splice(0..0, b"crustnet\x01".iter().copied());
                let checksum = kept::checksum(&bytes);
                bytes.extend(checksum);
            }
            if let Ok(memory) = NetworkMemory::decode(&bytes) {
                prop_assert_eq!(NetworkMemory::decode(&memory.encode()), Ok(memory));
            }
        }
    }
}
