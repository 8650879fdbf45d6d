//! How files travel over one stream: pure, bytes in and out.
//!
//! ```text
//! sender (accepts)                              receiver (dials)
//!   Offer: version, entries, bytes        ──►
//!   Entry: kind, size, path               ──►     one for each file and folder
//!                                         ◄──   Have: what of a file is here already, and its hash
//!                                         ◄──   Start
//!   File: which, from where on            ──►     for each file in the order of the entries
//!   Data                                  ──►     any number
//!   End: BLAKE3 of the whole file         ──►
//!                                         ◄──   Done: all of it is on the disk under its name
//! ```
//!
//! Either side may say Failed with a reason instead, which ends it.
//!
//! ```text
//!  0       1                5
//! +-------+----------------+------+
//! | kind  | length, 4      | body |
//! +-------+----------------+------+
//! ```
//!
//! Numbers are in network order. Kinds from 128 on are extensions and skipped; others that are unknown are refused.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod path;
mod receiving;
mod record;
mod sending;

pub use path::{EntryPath, PathError, Rules};
pub use receiving::{Receiving, Step};
pub use record::{Decoder, Entry, EntryKind, Hash, MAX_DATA_BYTES, ProtocolError, Record, VERSION};
pub use sending::{Answer, Sending};
