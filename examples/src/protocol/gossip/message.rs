use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::summary::{Origin, Summary};

/// What one node says to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it asks for.
    pub kind: Kind,
    /// Whose turn it is to relay, as the sender knows it.
    pub term: u64,
    /// All that the sender has.
    pub have: Summary,
    /// Entries that the receiver may lack.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub entries: Entries,
    /// What the sender has sent to all lately, whether the receiver lacks it or not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spread: Spread,
}

/// Numbered entries by origin.
pub type Entries = BTreeMap<Origin, Vec<(u64, i64)>>;

/// Numbers of entries by origin.
pub type Spread = BTreeMap<Origin, BTreeSet<u64>>;

/// What the receiver of a message shall do, beyond keeping its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Spread these entries with the next batch.
    Relay,
    /// The same, unless another's batch comes first.
    Standby,
    /// Nothing: all nodes get them.
    Batch,
    /// Nothing: you were missing these.
    Repair,
    /// Answer with what is missing in the summary, if anything. An acknowledgement is the same.
    Digest,
}
