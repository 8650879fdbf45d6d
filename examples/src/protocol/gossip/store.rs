use std::{collections::BTreeMap, time::Instant};

use super::{
    message::Entries,
    summary::{Dot, Origin, Summary},
};

/// The entries that a node has, and since when.
#[derive(Debug, Default)]
pub(super) struct Store {
    have: Summary,
    entries: BTreeMap<Origin, BTreeMap<u64, (i64, Instant)>>,
    number: usize,
}

impl Store {
    /// Keeps an entry and tells whether it is new. A full store takes none.
    pub(super) fn insert(&mut self, now: Instant, dot: Dot, entry: i64) -> bool {
        let new = self.number < MAX_ENTRIES && self.have.insert(&dot);
        if new {
            self.number += 1;
            self.entries.entry(dot.origin).or_default().insert(dot.seq, (entry, now));
        }
        new
    }

    pub(super) const fn have(&self) -> &Summary {
        &self.have
    }

    pub(super) fn has(&self, dot: &Dot) -> bool {
        self.have.has(dot)
    }

    pub(super) fn get(&self, dot: &Dot) -> Option<i64> {
        self.entries.get(&dot.origin)?.get(&dot.seq).map(|(entry, _)| *entry)
    }

    pub(super) fn next_seq(&self, origin: &Origin) -> u64 {
        self.have.of(origin).map_or(1, |sequences| sequences.next())
    }

    /// What is not in `known` and was learned before `since`, at most `limit`.
    pub(super) fn missing(&self, known: &Summary, since: Instant, limit: usize) -> Entries {
        let mut found = Entries::new();
        let mut number = 0;
        for (origin, entries) in &self.entries {
            let theirs = known.of(origin);
            let from = theirs.map_or(0, |sequences| sequences.prefix()).saturating_add(1);
            for (seq, (entry, learned)) in entries.range(from..) {
                if number == limit {
                    return found;
                }
                if *learned <= since && !theirs.is_some_and(|sequences| sequences.contains(*seq)) {
                    found.entry(origin.clone()).or_default().push((*seq, *entry));
                    number += 1;
                }
            }
        }
        found
    }
}

/// The most entries that a node keeps, a few dozen bytes each.
pub const MAX_ENTRIES: usize = 1 << 20;
/// The most origins whose entries are kept: nodes, and their runs.
pub const MAX_ORIGINS: usize = 1_024;
