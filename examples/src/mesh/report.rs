//! What a node of the program `mesh` prints: a line of JSON each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Histogram, Traffic};
use crate::protocol::mesh::Counters;

/// One line. Times are microseconds since 1970, by the clock that all processes of a machine share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// It is reached here.
    Listening {
        /// An endpoint, as the command `peers` takes it.
        endpoint: String,
    },
    /// The command `peers` was carried out.
    Peers {
        /// How many there are now, whether they are up or not.
        known: usize,
    },
    /// A peer takes messages.
    Up {
        /// What it calls itself.
        peer: String,
        /// How many do so now.
        up: usize,
        /// When.
        at: u64,
    },
    /// A peer was dialled in vain, for another reason than the last time.
    Unreached {
        /// Its key.
        peer: String,
        /// Why.
        reason: String,
    },
    /// A peer is gone.
    Down {
        /// What it called itself.
        peer: String,
        /// Why.
        reason: String,
        /// When.
        at: u64,
    },
    /// A load is over: all was sent, and all that its peers sent has come.
    Loaded(Loaded),
    /// The last line.
    Report(Report),
}

/// How a load went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// How long the longest call took that queued a message, in microseconds.
    pub slowest_send: u64,
    /// What the mesh has counted so far, by what peers call themselves.
    pub ledger: BTreeMap<String, Counters>,
}

/// What one node has done and seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What it calls itself.
    pub name: String,
    /// Its peers, by what they call themselves.
    pub peers: BTreeMap<String, PeerReport>,
}

/// What one node has done and seen with one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// What the mesh has counted.
    pub counters: Counters,
    /// Bytes, as the driver has counted them and as the stack has.
    pub traffic: Traffic,
    /// Messages of a load that never came.
    pub lost: u64,
    /// Messages of a load that came again, or after a later one.
    pub misplaced: u64,
    /// How long messages were under way, in microseconds.
    pub latencies: Histogram,
}
