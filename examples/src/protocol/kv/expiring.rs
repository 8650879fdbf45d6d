use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeFrom,
    time::Instant,
};

/// A bounded map whose entries end at a time of their own.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    entries: BTreeMap<K, (Instant, V)>,
    order: BTreeSet<(Instant, K)>,
    limit: usize,
}

impl<K: Ord + Clone, V> Expiring<K, V> {
    pub(super) const fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), order: BTreeSet::new(), limit }
    }

    /// Adds an entry. Gives it back when there is one of that key, or no room.
    pub(super) fn insert(&mut self, until: Instant, key: K, value: V) -> Result<(), (K, V)> {
        if self.entries.len() >= self.limit || self.entries.contains_key(&key) {
            return Err((key, value));
        }
        self.order.insert((until, key.clone()));
        self.entries.insert(key, (until, value));
        Ok(())
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Lets an entry end sooner.
    pub(super) fn shorten(&mut self, key: &K, until: Instant) {
        if let Some((ends, _)) = self.entries.get_mut(key).filter(|(ends, _)| *ends > until) {
            self.order.remove(&(*ends, key.clone()));
            self.order.insert((until, key.clone()));
            *ends = until;
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (until, value) = self.entries.remove(key)?;
        self.order.remove(&(until, key.clone()));
        Some(value)
    }

    pub(super) fn range(&self, keys: RangeFrom<K>) -> impl Iterator<Item = (&K, &V)> {
        self.entries.range(keys).map(|(key, (_, value))| (key, value))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the first one ends.
    pub(super) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(until, _)| *until)
    }

    /// Takes out the first one that has ended.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(Instant, (K, V))> {
        self.order.first().filter(|(until, _)| *until <= now)?;
        let (until, key) = self.order.pop_first()?;
        let (_, value) = self.entries.remove(&key)?;
        Some((until, (key, value)))
    }

    /// Removes what does not meet a condition.
    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.entries.retain(|key, (until, value)| {
            let kept = keep(value);
            if !kept {
                self.order.remove(&(*until, key.clone()));
            }
            kept
        });
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.pop_expired(now).is_some() {}
    }
}
