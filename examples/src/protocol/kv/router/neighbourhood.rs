use std::collections::{BTreeMap, BTreeSet};

use crust::PublicKey;

use crate::protocol::{
    kv::{Peer, Reference},
    mesh::MAX_PEERS,
};

/// A node's neighbours, and whom these have said to be theirs.
#[derive(Debug)]
pub(super) struct Neighbourhood<R: Reference>(BTreeMap<PublicKey, Neighbour<R>>);

#[derive(Debug)]
struct Neighbour<R: Reference> {
    peer: R::To<Peer>,
    theirs: BTreeSet<PublicKey>,
}

impl<R: Reference> Neighbourhood<R> {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds one, if there is room; tells whether it is new.
    pub(super) fn add(&mut self, peer: R::To<Peer>) -> bool {
        let new = self.0.len() < MAX_PEERS && !self.0.contains_key(&peer.key);
        if new {
            self.0.insert(peer.key, Neighbour { peer, theirs: BTreeSet::new() });
        }
        new
    }

    /// Removes one; tells whether it was there.
    pub(super) fn remove(&mut self, peer: &PublicKey) -> bool {
        self.0.remove(peer).is_some()
    }

    /// Takes what a neighbour says of its own.
    pub(super) fn learn(&mut self, from: &PublicKey, came: Vec<PublicKey>, left: &[PublicKey]) {
        let Some(neighbour) = self.0.get_mut(from) else { return };
        for peer in left {
            neighbour.theirs.remove(peer);
        }
        for peer in came {
            if neighbour.theirs.len() < MAX_PEERS {
                neighbour.theirs.insert(peer);
            }
        }
    }

    /// Whether to ask this neighbour falls to this node, and not to another of those who were asked together with it: it falls to the
    /// one nearest to the neighbour, by exclusive or of the keys, among those that the neighbour says to have.
    ///
    /// All of them come to the same answer, and to one at least: every node within reach is still asked by somebody.
    pub(super) fn falls_to(&self, me: &PublicKey, together: &[PublicKey], neighbour: &PublicKey) -> bool {
        let Some(Neighbour { theirs, .. }) = self.0.get(neighbour) else { return false };
        let mine = distance(me, neighbour);
        let others = together.iter().filter(|other| *other != me && theirs.contains(*other));
        others.map(|other| distance(other, neighbour)).all(|distance| mine <= distance)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = PublicKey> {
        self.0.keys().copied()
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &R::To<Peer>> {
        self.0.values().map(|neighbour| &neighbour.peer)
    }

    /// How many others its neighbours have said to have, together.
    pub(super) fn second_hand(&self) -> usize {
        self.0.values().map(|neighbour| neighbour.theirs.len()).sum()
    }
}

/// The first half of the keys tells them apart well enough.
fn distance(one: &PublicKey, other: &PublicKey) -> u128 {
    let half = |key: &PublicKey| {
        let (half, _) = key.as_bytes().split_first_chunk::<16>().expect("a key has 32 bytes");
        u128::from_be_bytes(*half)
    };
    half(one) ^ half(other)
}
