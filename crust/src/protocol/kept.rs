//! Files that several processes keep together: a name, a version, entries and a checksum. Pure; the file is another's business.
//!
//! ```text
//!  0               8         9          11
//! +---------------+---------+----------+-------------------------------+----------+
//! | what it is    | version | number   | entries                       | checksum |
//! | 8 bytes       | 1 byte  | 2 bytes  |                               | 8 bytes  |
//! +---------------+---------+----------+-------------------------------+----------+
//! ```
//!
//! The checksum is the front of SHA-256 over all before it.

use ring::digest::{SHA256, digest};

/// What is kept in such a file.
pub(crate) trait Kept: Clone + Default {
    /// The longest file that is read.
    const MAX_BYTES: usize;

    fn encode(&self) -> Vec<u8>;

    fn decode(bytes: &[u8]) -> Result<Self, CacheFlaw>;

    /// Takes in what another knows; where both know something of one second, it is the other's word that counts.
    fn merge(&mut self, now: u64, other: &Self);
}

/// Why bytes are no such file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CacheFlaw {
    #[error("it is of version {found}, version {known} is known here")]
    Version { found: u8, known: u8 },
    #[error("it is damaged")]
    Damaged,
}

/// Begins a file.
pub(super) fn head(magic: &[u8; 8], version: u8, entries: usize) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.push(version);
    bytes.extend(u16::try_from(entries).expect("there are at most a thousand").to_be_bytes());
    bytes
}

/// Ends it.
pub(super) fn finish(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(&bytes);
    bytes.extend(checksum);
    bytes
}

/// The number of entries of a file, and their bytes.
pub(super) fn open<'b>(
    magic: &[u8; 8],
    version: u8,
    most: usize,
    bytes: &'b [u8],
) -> Result<(u16, &'b [u8]), CacheFlaw> {
    let rest = bytes.strip_prefix(magic).ok_or(CacheFlaw::Damaged)?;
    let (&found, _) = rest.split_first().ok_or(CacheFlaw::Damaged)?;
    if found != version {
        return Err(CacheFlaw::Version { found, known: version });
    }
    let (covered, expected) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(CacheFlaw::Damaged)?;
    if bytes.len() > most || checksum(covered) != *expected {
        return Err(CacheFlaw::Damaged);
    }
    let entries = covered.get(magic.len() + 1..).and_then(|rest| rest.split_first_chunk::<2>());
    let (number, entries) = entries.ok_or(CacheFlaw::Damaged)?;
    Ok((u16::from_be_bytes(*number), entries))
}

pub(super) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    *digest(&SHA256, bytes).as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

pub(super) const HEAD_BYTES: usize = 11;
pub(super) const CHECKSUM_BYTES: usize = 8;
