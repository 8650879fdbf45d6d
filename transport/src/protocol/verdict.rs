//! The acceptor's answer to a preface: come in, or why not.
//!
//! ```text
//! +---------+---------+---------+------+------------------------------+
//! | version | length of the rest | code | extensions, as in the preface |
//! +---------+---------+---------+------+------------------------------+
//! ```
//!
//! Code 0 is "accepted"; the rest are [`Refusal`]s. A code from the future is still a refusal.

use super::{
    preface::VERSION,
    wire::{Reader, WireError},
};
use crate::Refusal;

/// Accepted, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused(Refusal),
}

impl Verdict {
    pub(crate) fn encode(self) -> [u8; VERDICT_BYTES] {
        let code = match self {
            Self::Accepted => 0,
            Self::Refused(Refusal::Key) => 1,
            Self::Refused(Refusal::Version { .. }) => 2,
            Self::Refused(Refusal::Label) => 3,
            Self::Refused(Refusal::Token) => 4,
            Self::Refused(Refusal::Myself) => 5,
            Self::Refused(Refusal::Full) => 6,
            Self::Refused(Refusal::Malformed) => 7,
            Self::Refused(Refusal::Rendezvous) => 8,
            Self::Refused(Refusal::Network) => 9,
            Self::Refused(Refusal::Elsewhere) => 10,
            Self::Refused(Refusal::Unknown { code }) => code,
        };
        [VERSION, 0, 1, code]
    }

    /// Reads a verdict from the front of what has arrived: itself and its length, or `None` while bytes are missing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, VerdictError> {
        let Some(&version) = bytes.first() else { return Ok(None) };
        if version != VERSION {
            // Whoever speaks another version cannot have judged our preface, so this is its refusal of ours.
            return Ok(Some((
                Self::Refused(Refusal::Version { theirs: version, ours: VERSION }),
                bytes.len(),
            )));
        }
        let Some(&[high, low]) = bytes.get(1..3) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_BODY_BYTES {
            return Err(VerdictError::TooLong { length });
        }
        let Some(body) = bytes.get(3..3 + length) else { return Ok(None) };
        let mut reader = Reader::new(body);
        let verdict = match reader.u8()? {
            0 => Self::Accepted,
            1 => Self::Refused(Refusal::Key),
            2 => Self::Refused(Refusal::Version { theirs: version, ours: VERSION }),
            3 => Self::Refused(Refusal::Label),
            4 => Self::Refused(Refusal::Token),
            5 => Self::Refused(Refusal::Myself),
            6 => Self::Refused(Refusal::Full),
            7 => Self::Refused(Refusal::Malformed),
            8 => Self::Refused(Refusal::Rendezvous),
            9 => Self::Refused(Refusal::Network),
            10 => Self::Refused(Refusal::Elsewhere),
            code => Self::Refused(Refusal::Unknown { code }),
        };
        reader.skip_extensions()?;
        Ok(Some((verdict, 3 + length)))
    }
}

/// Why bytes are no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerdictError {
    #[error("a verdict of {length} bytes, at most {MAX_BODY_BYTES} are read")]
    TooLong { length: usize },
    #[error("cut short inside")]
    Wire(#[from] WireError),
}

/// What an acceptor of this version sends.
pub(crate) const VERDICT_BYTES: usize = 4;
/// One byte is used; the rest is room for extensions.
const MAX_BODY_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_code_reads_as_it_was_written() {
        for code in 0..=u8::MAX {
            let (verdict, length) = Verdict::decode(&[1, 0, 1, code, 77]).unwrap().unwrap();
            assert_eq!((verdict.encode(), length), ([1, 0, 1, code], 4));
        }
    }

    #[test]
    fn a_prefix_asks_for_more_and_a_long_one_is_refused() {
        assert_eq!(Verdict::decode(&[1, 0, 1]), Ok(None));
        assert_eq!(Verdict::decode(&[1, 9, 0]), Err(VerdictError::TooLong { length: 0x900 }));
        assert_eq!(Verdict::decode(&[1, 0, 0]), Err(VerdictError::Wire(WireError)));
    }

    #[test]
    fn another_version_reads_as_a_refusal_that_names_both() {
        let (verdict, _) = Verdict::decode(&[9, 0, 0]).unwrap().unwrap();
        assert_eq!(verdict, Verdict::Refused(Refusal::Version { theirs: 9, ours: 1 }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Verdict::decode(&bytes);
        }
    }
}
