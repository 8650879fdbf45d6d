use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crust::PublicKey;

use super::{announcement::Announcement, build::Hop};
use crate::protocol::kv::expiring::Expiring;

/// What nodes have told of themselves. Ways are drawn from it, so that nobody need be asked, who would learn whom one wants to write to.
#[derive(Debug)]
pub(super) struct Directory {
    known: Expiring<PublicKey, Announcement>,
}

impl Directory {
    pub(super) const fn new() -> Self {
        Self { known: Expiring::new(MAX_KNOWN) }
    }

    /// Takes what a node says, if it is news and the node's; tells whether it is to be told to others.
    pub(super) fn learn(&mut self, now: Instant, new: &Announcement) -> bool {
        let old = self.known.get(&new.node);
        if old.is_some_and(|old| old.version >= new.version) || !new.is_genuine() {
            return false;
        }
        self.known.remove(&new.node);
        self.known.insert(now + LIFE, new.node, new.clone()).is_ok()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.known.expire(now);
    }

    pub(super) fn first(&self) -> Option<Instant> {
        self.known.first()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Announcement> {
        self.known.range(PublicKey::from_bytes([0; 32])..).map(|(_, announcement)| announcement)
    }

    /// A node with its key. `None` where it has told nothing.
    pub(super) fn hop(&self, node: PublicKey) -> Option<Hop> {
        self.known.get(&node).map(|announcement| Hop { node, key: announcement.key })
    }
}

/// Which nodes can pass on to which, as far as is known here.
pub(super) struct Map<'a> {
    directory: &'a Directory,
    me: PublicKey,
    /// Who is online here.
    neighbours: &'a BTreeSet<PublicKey>,
}

impl<'a> Map<'a> {
    pub(super) const fn new(
        directory: &'a Directory,
        me: PublicKey,
        neighbours: &'a BTreeSet<PublicKey>,
    ) -> Self {
        Self { directory, me, neighbours }
    }

    /// Whether two nodes are neighbours: both say so. This one knows of its own better than anybody, and need not tell.
    pub(super) fn joins(&self, one: &PublicKey, other: &PublicKey) -> bool {
        if *one == self.me {
            return self.neighbours.contains(other);
        }
        if *other == self.me {
            return self.neighbours.contains(one);
        }
        let says = |one: &PublicKey, other: &PublicKey| {
            self.directory.known.get(one).is_some_and(|told| told.neighbours.contains(other))
        };
        says(one, other) && says(other, one)
    }

    /// Draws so many different nodes that lead from one to another: any such way may come, though not each as often. `draw` gives numbers by chance. `None` where there
    /// is no such way, or none was found in a bearable time.
    pub(super) fn way(
        &self,
        from: PublicKey,
        to: PublicKey,
        relays: usize,
        mut draw: impl FnMut() -> u64,
    ) -> Option<Vec<PublicKey>> {
        let distances = self.distances(to, from);
        let mut way = vec![from];
        // For each node of the way, who may come next and was not tried.
        let mut open = vec![self.next(&way, relays, to, &distances, &mut draw)];
        for _ in 0..MAX_STEPS {
            if way.len() == relays + 1 && self.joins(way.last()?, &to) {
                return Some(way.split_off(1));
            }
            while open.last_mut()?.is_empty() {
                open.pop();
                way.pop();
                if open.is_empty() {
                    return None;
                }
            }
            way.push(open.last_mut()?.pop()?);
            open.push(self.next(&way, relays, to, &distances, &mut draw));
        }
        None
    }

    /// Who may follow on a way, in an order by chance: neighbours of its last node, from where the rest is long enough.
    fn next(
        &self,
        way: &[PublicKey],
        relays: usize,
        to: PublicKey,
        distances: &BTreeMap<PublicKey, usize>,
        draw: &mut impl FnMut() -> u64,
    ) -> Vec<PublicKey> {
        // The next one would be so far along, and have so many steps to go.
        let Some(steps) = (relays + 1).checked_sub(way.len()).filter(|steps| *steps > 0) else {
            return Vec::new();
        };
        let Some(last) = way.last() else { return Vec::new() };
        let fits = |node: &PublicKey| {
            *node != to && !way.contains(node) && distances.get(node).is_some_and(|far| *far <= steps)
        };
        let mut next: Vec<(u64, PublicKey)> =
            self.neighbours_of(last).into_iter().filter(fits).map(|node| (draw(), node)).collect();
        next.sort_unstable();
        next.into_iter().map(|(_, node)| node).collect()
    }

    /// How far each node is from the end of a way; nothing goes through its begin.
    fn distances(&self, to: PublicKey, from: PublicKey) -> BTreeMap<PublicKey, usize> {
        let mut distances = BTreeMap::from([(to, 0)]);
        let mut near = VecDeque::from([(to, 0)]);
        while let Some((node, far)) = near.pop_front() {
            for next in self.neighbours_of(&node) {
                if next != from && !distances.contains_key(&next) {
                    distances.insert(next, far + 1);
                    near.push_back((next, far + 1));
                }
            }
        }
        distances
    }

    fn neighbours_of(&self, node: &PublicKey) -> Vec<PublicKey> {
        let told = self.directory.known.get(node).map_or(&[][..], |told| &told.neighbours);
        let mine = self.neighbours.iter().filter(|_| *node == self.me);
        // Who hides tells nobody of this node, and this node knows it all the same.
        let me = Some(&self.me).filter(|_| self.neighbours.contains(node));
        let all: BTreeSet<PublicKey> = told.iter().chain(mine).chain(me).copied().collect();
        all.into_iter().filter(|other| self.joins(node, other) && self.is_known(other)).collect()
    }

    fn is_known(&self, node: &PublicKey) -> bool {
        *node == self.me || self.directory.known.get(node).is_some()
    }
}

/// Nodes that are known: what they say, 2 KiB each at most, fits in the queue of one neighbour.
pub(super) const MAX_KNOWN: usize = 256;
/// How long a node is known that says nothing new: three times as long as it may be silent.
const LIFE: Duration = Duration::from_secs(900);
/// Nodes that are tried for one way: some milliseconds.
const MAX_STEPS: usize = 4_096;
