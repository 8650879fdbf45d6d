use crust::PublicKey;
use ring::digest::{SHA256, digest};

/// Which peers a node prefers for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Those nearest to the name by exclusive or of their hashes, as in Kademlia: every node prefers the same ones.
    Kademlia,
    /// Whichever come first by their keys.
    Simple,
}

impl Route {
    /// So many of these, the preferred first.
    #[must_use]
    pub fn choose(self, name: &str, mut peers: Vec<PublicKey>, number: usize) -> Vec<PublicKey> {
        if self == Self::Kademlia {
            let place = hash(name.as_bytes());
            peers.sort_by_cached_key(|peer| {
                let mut distance = hash(peer.as_bytes());
                distance.iter_mut().zip(&place).for_each(|(byte, other)| *byte ^= other);
                distance
            });
        }
        peers.truncate(number);
        peers
    }
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}
