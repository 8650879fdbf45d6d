//! What `kv --capture` has written down, and what of it a node on the way of an onion message may know.

use std::{collections::BTreeSet, fs, path::Path};

use crust::Endpoint;
use crust_examples::protocol::kv::onion::{PACKET_BYTES, Packet};

/// A message as a node has read or written it.
pub(crate) struct Captured {
    pub(crate) sent: bool,
    pub(crate) peer: String,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn read(file: &Path) -> Vec<Captured> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| {
        let [direction, peer, hex] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let bytes = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        Captured { sent: direction == "to", peer: peer.to_owned(), bytes }
    });
    lines.collect()
}

/// Whether these bytes are somewhere in a text.
pub(crate) fn has(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// What the node in the middle of three has seen, of a question and its answer that went over all of `way`.
pub(crate) fn check_hop(file: &Path, place: usize, way: &[Endpoint], texts: &[&str]) {
    let seen = read(file);
    let neighbours = [place - 1, place + 1].map(|place| way[place].public_key().to_string());
    assert!(seen.iter().all(|one| neighbours.contains(&one.peer)), "at {place} somebody else was there");
    for (other, endpoint) in way.iter().enumerate() {
        let address = endpoint.addr().to_string();
        let known = seen.iter().any(|one| has(&one.bytes, address.as_bytes()));
        assert_eq!(known, other.abs_diff(place) <= 1, "at {place} the address {address}");
    }
    for text in texts {
        assert!(seen.iter().all(|one| !has(&one.bytes, text.as_bytes())), "at {place} {text:?}");
    }
    let packets: Vec<&Captured> =
        seen.iter().filter(|one| Packet::from_bytes(&one.bytes).is_some()).collect();
    let passed: Vec<(bool, &str)> = packets.iter().map(|one| (one.sent, one.peer.as_str())).collect();
    let [before, after] = &neighbours;
    assert_eq!(passed, [(false, &**before), (true, after), (false, after), (true, before)], "at {place}");
    for (number, one) in packets.iter().enumerate() {
        assert_eq!(one.bytes.len(), PACKET_BYTES);
        for endpoint in way {
            assert!(!has(&one.bytes, &endpoint.public_key().as_bytes()[..8]), "at {place} a key");
        }
        for other in &packets[..number] {
            let windows: BTreeSet<&[u8]> = other.bytes.windows(8).collect();
            let same = one.bytes.windows(8).any(|window| windows.contains(window));
            assert!(!same, "at {place} what came in is known again in what went out");
        }
    }
}
