//! What beacons said: which key is reached where on the local network. Everything in it is a hint.

use std::{collections::BTreeMap, net::SocketAddr};

use transport::{Endpoint, PublicKey};

/// Who was heard, and where.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    table: BTreeMap<PublicKey, Vec<Sighting>>,
    clock: u64,
}

/// A beacon that named a key. Several may name the same: a peer with two interfaces, or somebody who lies.
#[derive(Debug)]
struct Sighting {
    speaker: Speaker,
    endpoints: Vec<Endpoint>,
    /// Counts up with each word that is heard.
    heard: u64,
}

/// Who speaks: an interface, and the addresses that a beacon has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Speaker {
    pub(crate) interface_index: u32,
    pub(crate) source: SocketAddr,
    pub(crate) other_source: Option<SocketAddr>,
}

impl Neighbours {
    /// Notes what a beacon said of itself; gives what was not known of that key.
    pub(crate) fn heard(
        &mut self,
        speaker: Speaker,
        key: PublicKey,
        endpoints: Vec<Endpoint>,
    ) -> Vec<Endpoint> {
        let known = self.lookup(key);
        self.left(speaker);
        if endpoints.is_empty() {
            return Vec::new();
        }
        self.make_room(key);
        self.clock += 1;
        let sightings = self.table.entry(key).or_default();
        if sightings.len() >= MAX_SIGHTINGS {
            let oldest = (0..sightings.len()).min_by_key(|&index| sightings[index].heard);
            oldest.map(|index| sightings.swap_remove(index));
        }
        let new = endpoints.iter().filter(|endpoint| !known.contains(endpoint)).copied().collect();
        sightings.push(Sighting { speaker, endpoints, heard: self.clock });
        new
    }

    /// Forgets what a beacon said.
    pub(crate) fn left(&mut self, speaker: Speaker) {
        self.table.retain(|_, sightings| {
            sightings.retain(|sighting| !sighting.speaker.is(speaker));
            !sightings.is_empty()
        });
    }

    /// Where a key is said to be, the latest word first.
    pub(crate) fn lookup(&self, key: PublicKey) -> Vec<Endpoint> {
        let mut sightings: Vec<&Sighting> = self.table.get(&key).into_iter().flatten().collect();
        sightings.sort_by_key(|sighting| std::cmp::Reverse(sighting.heard));
        let mut endpoints = Vec::new();
        for endpoint in sightings.into_iter().flat_map(|sighting| &sighting.endpoints) {
            if !endpoints.contains(endpoint) {
                endpoints.push(*endpoint);
            }
        }
        endpoints
    }

    /// All keys that were heard.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        self.table.keys().copied().collect()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
    }

    fn make_room(&mut self, key: PublicKey) {
        if self.table.len() < MAX_KEYS || self.table.contains_key(&key) {
            return;
        }
        let latest = |sightings: &[Sighting]| sightings.iter().map(|sighting| sighting.heard).max();
        let oldest = self.table.iter().min_by_key(|(_, sightings)| latest(sightings)).map(|(key, _)| *key);
        oldest.map(|key| self.table.remove(&key));
    }
}

impl Speaker {
    /// A service that multicast DNS tells of: no interface has the number 0.
    #[cfg(feature = "mdns")]
    pub(crate) const fn by_mdns(address: SocketAddr) -> Self {
        Self { interface_index: 0, source: address, other_source: None }
    }

    /// Whether two words came from the same beacon: its sockets have ports of their own.
    fn is(&self, other: Self) -> bool {
        let sources = |it: Self| [Some(it.source), it.other_source].into_iter().flatten();
        self.interface_index == other.interface_index
            && sources(*self).any(|source| sources(other).any(|it| it == source))
    }
}

/// As many peers as a beacon remembers.
const MAX_KEYS: usize = 1024;

/// A peer with more interfaces is found by those heard last. Whoever names another's key takes the place of the least
/// recently heard, and a peer that is there is heard again in every period.
const MAX_SIGHTINGS: usize = 8;

#[cfg(test)]
mod tests {
    use transport::Scheme;

    use super::*;

    #[test]
    fn a_key_is_found_where_it_was_heard_until_it_leaves() {
        let mut neighbours = Neighbours::default();

        assert_eq!(neighbours.heard(speaker(1), key(1), vec![endpoint(1, 1)]), [endpoint(1, 1)]);
        assert_eq!(neighbours.heard(speaker(1), key(1), vec![endpoint(1, 1)]), []);
        assert_eq!(neighbours.heard(speaker(2), key(2), vec![endpoint(2, 1)]), [endpoint(2, 1)]);
        assert_eq!(neighbours.lookup(key(1)), [endpoint(1, 1)]);
        assert_eq!(neighbours.keys(), [key(1), key(2)]);

        neighbours.left(speaker(1));
        assert_eq!(neighbours.lookup(key(1)), []);
        assert_eq!(neighbours.heard(speaker(1), key(1), vec![endpoint(1, 1)]), [endpoint(1, 1)], "back");
    }

    #[test]
    fn what_is_said_anew_takes_the_place_of_what_was_said_before_also_under_another_key() {
        let mut neighbours = Neighbours::default();
        neighbours.heard(speaker(1), key(1), vec![endpoint(1, 1), endpoint(1, 2)]);

        assert_eq!(
            neighbours.heard(speaker(1), key(1), vec![endpoint(1, 2), endpoint(1, 3)]),
            [endpoint(1, 3)]
        );
        assert_eq!(neighbours.lookup(key(1)), [endpoint(1, 2), endpoint(1, 3)]);
        neighbours.heard(speaker(1), key(2), vec![endpoint(2, 9)]);
        assert_eq!(neighbours.lookup(key(1)), []);
        neighbours.heard(speaker(1), key(2), vec![]);
        assert_eq!(neighbours.keys(), []);
    }

    #[test]
    fn a_beacon_is_the_same_by_either_of_its_addresses_and_another_on_another_interface() {
        let mut neighbours = Neighbours::default();
        let v6 = "[fe80::1%7]:5".parse().unwrap();
        neighbours.heard(Speaker { other_source: Some(v6), ..speaker(1) }, key(1), vec![endpoint(1, 1)]);
        neighbours.heard(Speaker { interface_index: 8, ..speaker(1) }, key(1), vec![endpoint(1, 2)]);

        assert_eq!(neighbours.lookup(key(1)), [endpoint(1, 2), endpoint(1, 1)], "the latest word first");
        neighbours.left(Speaker { source: v6, ..speaker(1) });
        assert_eq!(neighbours.lookup(key(1)), [endpoint(1, 2)]);
    }

    #[test]
    fn liars_without_end_take_bounded_room() {
        let mut neighbours = Neighbours::default();
        for number in 0..5_000 {
            neighbours.heard(speaker(number), key(number), vec![endpoint(number, 1)]);
            neighbours.heard(speaker(number), key(1), vec![endpoint(1, number + 1)]);
        }
        assert!(neighbours.table.len() <= MAX_KEYS);
        assert!(neighbours.lookup(key(1)).len() <= MAX_SIGHTINGS);
        neighbours.heard(speaker(9_999), key(1), vec![endpoint(1, 9_999)]);
        assert_eq!(neighbours.lookup(key(1))[0], endpoint(1, 9_999), "the honest one is heard again");
    }

    fn key(number: u16) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    fn endpoint(number: u16, port: u16) -> Endpoint {
        Endpoint::new(Scheme::Tcp, SocketAddr::from(([10, 0, 0, 1], port)), key(number))
    }

    fn speaker(port: u16) -> Speaker {
        let source = SocketAddr::from(([10, 0, 0, 1], port));
        Speaker { interface_index: 7, source, other_source: None }
    }
}
