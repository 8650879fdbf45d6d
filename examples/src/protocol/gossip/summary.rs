//! Which entries somebody has, in a few numbers a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::store::MAX_ORIGINS;

/// One run of one node: whoever numbers entries. A node that was restarted begins to number anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    /// The node's name.
    pub node: String,
    /// Tells its runs apart.
    pub run: u32,
}

/// Names an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dot {
    /// Where it came in.
    pub origin: Origin,
    /// As the how manieth, from 1.
    pub seq: u64,
}

/// The numbers that somebody has of one origin: all up to one, and single ones beyond. As a list: `[12, 14, 17]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Sequences {
    prefix: u64,
    beyond: BTreeSet<u64>,
}

/// What somebody has of all origins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Summary(BTreeMap<Origin, Sequences>);

impl Sequences {
    /// Adds a number and tells whether it is new. Numbers from 1; one too far beyond a gap is not taken: it comes again
    /// when the gap has closed.
    pub fn insert(&mut self, seq: u64) -> bool {
        if seq > self.prefix.saturating_add(MAX_BEYOND) || self.contains(seq) {
            return false;
        }
        self.beyond.insert(seq);
        self.close_gap();
        true
    }

    /// Whether it is among them.
    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        seq <= self.prefix || self.beyond.contains(&seq)
    }

    /// The number after the highest.
    pub(super) fn next(&self) -> u64 {
        self.beyond.last().copied().unwrap_or(self.prefix) + 1
    }

    /// Whether all of these are among `other`.
    fn within(&self, other: &Self) -> bool {
        (self.prefix <= other.prefix || (other.prefix + 1..=self.prefix).all(|seq| other.contains(seq)))
            && self.beyond.iter().all(|seq| other.contains(*seq))
    }

    /// Up to where all are there.
    pub(super) const fn prefix(&self) -> u64 {
        self.prefix
    }

    fn merge(&mut self, other: &Self) {
        self.prefix = self.prefix.max(other.prefix);
        self.beyond.extend(&other.beyond);
        self.close_gap();
        while self.beyond.len() > MAX_BEYOND as usize {
            self.beyond.pop_last();
        }
    }

    fn close_gap(&mut self) {
        while let Some(first) =
            self.beyond.first().copied().filter(|first| *first <= self.prefix.saturating_add(1))
        {
            self.beyond.pop_first();
            self.prefix = self.prefix.max(first);
        }
    }
}

impl Summary {
    /// Whether that entry is in it.
    #[must_use]
    pub fn has(&self, dot: &Dot) -> bool {
        self.0.get(&dot.origin).is_some_and(|sequences| sequences.contains(dot.seq))
    }

    /// Whether everything in this is also in `other`.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        let none = Sequences::default();
        self.0.iter().all(|(origin, sequences)| sequences.within(other.of(origin).unwrap_or(&none)))
    }

    pub(super) fn of(&self, origin: &Origin) -> Option<&Sequences> {
        self.0.get(origin)
    }

    /// Adds what another has; origins beyond the bound are left out.
    pub(super) fn merge(&mut self, other: &Self) {
        for (origin, sequences) in &other.0 {
            if let Some(mine) = self.0.get_mut(origin) {
                mine.merge(sequences);
            } else if self.0.len() < MAX_ORIGINS {
                self.0.insert(origin.clone(), sequences.clone());
            }
        }
    }

    /// Adds one entry and tells whether it is new.
    pub(super) fn insert(&mut self, dot: &Dot) -> bool {
        if let Some(sequences) = self.0.get_mut(&dot.origin) {
            return sequences.insert(dot.seq);
        }
        self.0.len() < MAX_ORIGINS && self.0.entry(dot.origin.clone()).or_default().insert(dot.seq)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.node, self.run)
    }
}

impl FromStr for Origin {
    type Err = NotSummary;

    fn from_str(text: &str) -> Result<Self, NotSummary> {
        let (node, run) = text.rsplit_once('/').ok_or(NotSummary)?;
        if node.len() > MAX_NAME {
            return Err(NotSummary);
        }
        Ok(Self { node: node.to_owned(), run: run.parse().map_err(|_| NotSummary)? })
    }
}

impl TryFrom<String> for Origin {
    type Error = NotSummary;

    fn try_from(text: String) -> Result<Self, NotSummary> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

impl TryFrom<Vec<u64>> for Sequences {
    type Error = NotSummary;

    fn try_from(list: Vec<u64>) -> Result<Self, NotSummary> {
        let (prefix, beyond) = list.split_first().ok_or(NotSummary)?;
        if beyond.len() > MAX_BEYOND as usize {
            return Err(NotSummary);
        }
        let mut sequences = Self { prefix: *prefix, beyond: beyond.iter().copied().collect() };
        sequences.close_gap();
        Ok(sequences)
    }
}

impl From<Sequences> for Vec<u64> {
    fn from(sequences: Sequences) -> Self {
        std::iter::once(sequences.prefix).chain(sequences.beyond).collect()
    }
}

/// A part of a summary is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is a name of at most {MAX_NAME} bytes, a slash and a number; its numbers are a list that is not empty, at most {MAX_BEYOND} beyond the first"
)]
pub struct NotSummary;

/// The longest name of a node, in bytes: summaries bear the names of all.
pub const MAX_NAME: usize = 255;
/// How far beyond a gap numbers are taken.
const MAX_BEYOND: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[u64]) -> Sequences {
        list.to_vec().try_into().unwrap()
    }

    #[test]
    fn gaps_close() {
        let mut sequences = Sequences::default();
        assert!(sequences.insert(2) && sequences.insert(4) && !sequences.insert(4) && sequences.insert(1));
        assert_eq!(sequences, of(&[2, 4]));
        sequences.merge(&of(&[3, 7]));
        assert_eq!(Vec::from(sequences), [4, 7]);
    }

    #[test]
    fn within_sees_what_is_missing() {
        assert!(of(&[3]).within(&of(&[1, 2, 3])) && of(&[1, 4]).within(&of(&[4])));
        assert!(!of(&[3]).within(&of(&[2, 4])) && !of(&[1, 4]).within(&of(&[3])));
        assert_eq!(of(&[1, 4]).next(), 5);
    }

    #[test]
    fn a_number_far_away_is_not_taken() {
        let mut sequences = Sequences::default();
        assert!(!sequences.insert(MAX_BEYOND + 1) && !sequences.insert(u64::MAX) && !sequences.insert(0));
        assert!(of(&[u64::MAX]).contains(5), "whoever claims all harms only itself");
        let mut all = of(&[u64::MAX]);
        all.merge(&of(&[2, 4]));
        assert_eq!(all, of(&[u64::MAX]));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut summary = Summary::default();
        for seq in [1, 2, 5] {
            summary.insert(&Dot { origin: Origin { node: "a/b".to_owned(), run: 7 }, seq });
        }
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(text, r#"{"a/b/7":[2,5]}"#);
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
        for wrong in [r#"{"a":[1]}"#, r#"{"a/x":[1]}"#, r#"{"a/1":[]}"#, r#"{"a/1":[-1]}"#, r#"{"a/1":1}"#] {
            assert!(serde_json::from_str::<Summary>(wrong).is_err(), "{wrong}");
        }
        let origin = |length| format!("{}/1", "n".repeat(length)).parse::<Origin>();
        assert!(origin(MAX_NAME).is_ok() && origin(MAX_NAME + 1).is_err());
    }
}
