//! What a sealed message says.
//!
//! ```text
//! | version = 1 (1) | records: type (1), length (2), value |
//!
//!   type 0: padding            ignored
//!   type 1: rendezvous         what `transport` needs of the peer to meet it, in a form of its own
//!   type 2: refusal            a code of the verdict's table (1)
//!   type 3: connection         the mark of a connection that is there already and is to take another path, in place of a new one (16)
//! ```
//!
//! Records of other types are ignored. Padding makes the sealed messages of an introduction equally long, unless they hold very
//! many addresses, so that the introducer cannot tell them apart by length.

use super::Flaw;

/// Where a peer is, or why it does not want.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Particulars {
    /// For the meeting: both sides give one.
    pub(crate) rendezvous: Option<Vec<u8>>,
    /// The receiver does not want, for a reason of the verdict's table.
    pub(crate) refusal: Option<u8>,
    /// The dialer wants no stream, but a better path for this connection of theirs.
    pub(crate) improves: Option<ConnectionMark>,
}

/// Names a connection to its two ends: both export it (RFC 8446 §7.5), and nobody else can.
pub(crate) type ConnectionMark = [u8; 16];

impl Particulars {
    /// What is needed to meet and nothing else.
    pub(crate) const fn meeting(rendezvous: Vec<u8>) -> Self {
        Self { rendezvous: Some(rendezvous), refusal: None, improves: None }
    }

    /// The same, to give a connection a better path.
    pub(crate) fn improves(self, improves: Option<ConnectionMark>) -> Self {
        Self { improves, ..self }
    }

    /// A refusal and nothing else.
    pub(crate) const fn refused(code: u8) -> Self {
        Self { rendezvous: None, refusal: Some(code), improves: None }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        if let Some(rendezvous) = &self.rendezvous {
            push(&mut bytes, RENDEZVOUS, rendezvous);
        }
        if let Some(code) = self.refusal {
            push(&mut bytes, REFUSAL, &[code]);
        }
        if let Some(mark) = &self.improves {
            push(&mut bytes, CONNECTION, mark);
        }
        let missing = PADDED_BYTES - bytes.len() % PADDED_BYTES;
        if let Some(zeros) = missing.checked_sub(RECORD_HEAD_BYTES) {
            push(&mut bytes, PADDING, &vec![0; zeros]);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Flaw> {
        let (&version, rest) = bytes.split_first().ok_or(Flaw::Malformed)?;
        if version != VERSION {
            return Err(Flaw::Version { found: version });
        }
        let mut found = Self::default();
        for record in records(rest) {
            let (kind, value) = record?;
            match kind {
                RENDEZVOUS => found.rendezvous = Some(value.to_vec()),
                REFUSAL => found.refusal = Some(*value.first().ok_or(Flaw::Malformed)?),
                CONNECTION => found.improves = Some(value.try_into().map_err(|_| Flaw::Malformed)?),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The records of a message, in order.
pub(super) fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), Flaw>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let record = bytes.split_first_chunk::<RECORD_HEAD_BYTES>().and_then(|(&[kind, high, low], rest)| {
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
            bytes = rest;
            Some((kind, value))
        });
        if record.is_none() {
            bytes = &[];
        }
        Some(record.ok_or(Flaw::Malformed))
    })
}

pub(super) fn push(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    bytes.push(kind);
    let length = u16::try_from(value.len()).expect("the longest record has three kilobytes");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
}

const VERSION: u8 = 1;
const PADDING: u8 = 0;
const RENDEZVOUS: u8 = 1;
const REFUSAL: u8 = 2;
const CONNECTION: u8 = 3;
const RECORD_HEAD_BYTES: usize = 3;
/// What a host with several addresses needs.
const PADDED_BYTES: usize = 512;
