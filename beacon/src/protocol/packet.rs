//! The datagram: who speaks, what kind of word it is, and the application's data.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+---------------+---------------+
//! |      0x62     |      0x63     |      0x6e     |  version = 1  |
//! +---------------+---------------+---------------+---------------+
//! |     kind      |   id length   |          data length          |
//! +---------------+---------------+---------------+---------------+
//! |                           sequence                            |
//! +---------------------------------------------------------------+
//! |                    interval (milliseconds)                    |
//! +---------------------------------------------------------------+
//! |  id ...   |  data ...   |  known tags, 4 bytes each ...       |
//! +---------------------------------------------------------------+
//! ```
//!
//! Numbers are big-endian. An ask or a seek is filled up to [`ASK_BYTES`], so that no answer to it is more than 64 bytes
//! larger: a forged source address gains nothing. What fills it are the [`Tag`]s of peers that need not answer, as they
//! have done so already, and zeros. What follows the data of other kinds is ignored.

use std::time::Duration;

use thiserror::Error;

/// What one datagram says. Decoding checks all lengths; whatever can be built within the limits can be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What kind of word this is.
    pub kind: Kind,
    /// Counts the datagrams' contents of one beacon: copies of one announcement (by broadcast and by multicast) carry
    /// the same number.
    pub sequence: u32,
    /// How long the sender means to wait until its next announcement, to the millisecond.
    pub interval: Duration,
    /// The sender's random identity, or empty.
    pub id: &'a [u8],
    /// What the application announces.
    pub data: &'a [u8],
    /// In an ask or a seek, the peers that need not answer; as many are sent as there is room for.
    pub known: &'a [Tag],
}

/// The first four bytes of an identity: enough to tell the peers of one link apart.
///
/// Tags of all zeros mean nobody.
pub type Tag = [u8; 4];

/// The kinds of datagrams. All but a goodbye and a seek carry the sender's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// "I am here", said to everybody.
    Announce,
    /// "I am here, and who else?", said to everybody by a newcomer.
    Ask,
    /// "I am here", said to one who asked.
    Answer,
    /// "I am leaving."
    Goodbye,
    /// "Who is here?", said to everybody by one who announces nothing.
    Seek,
}

impl<'a> Packet<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`]; no input panics.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_PACKET_BYTES {
            return Err(DecodeError::TooLong { bytes: bytes.len() });
        }
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(DecodeError::Truncated)?;
        let [m0, m1, m2, version, kind, id_length, d0, d1, s0, s1, s2, s3, i0, i1, i2, i3] = *header;
        if [m0, m1, m2] != MAGIC {
            return Err(DecodeError::NotABeacon);
        }
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let kind = Kind::from_wire(kind).ok_or(DecodeError::UnknownKind { kind })?;
        let id_length = usize::from(id_length);
        if id_length > MAX_ID_BYTES {
            return Err(DecodeError::IdTooLong { bytes: id_length });
        }
        let (id, rest) = rest.split_at_checked(id_length).ok_or(DecodeError::Truncated)?;
        let data_length = usize::from(u16::from_be_bytes([d0, d1]));
        let (data, rest) = rest.split_at_checked(data_length).ok_or(DecodeError::Truncated)?;
        let known = if kind.asks() { rest.as_chunks().0 } else { &[] };
        let end = known.iter().rposition(|tag| *tag != NOBODY).map_or(0, |last| last + 1);
        Ok(Self {
            kind,
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            interval: Duration::from_millis(u64::from(u32::from_be_bytes([i0, i1, i2, i3]))),
            id,
            data,
            known: &known[..end],
        })
    }

    /// Writes the datagram.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if `id` or `data` exceed what one datagram carries.
    pub fn encode(&self) -> Result<Vec<u8>, TooLarge> {
        self.encode_within(max_data_bytes(self.id.len()), ASK_BYTES)
    }

    /// Its length with so much data, and without known tags.
    pub(super) const fn bytes_with(&self, data_length: usize) -> usize {
        HEADER_BYTES + self.id.len() + data_length
    }

    /// The same with another limit of data and another size of a question.
    pub(super) fn encode_within(&self, limit_bytes: usize, ask_bytes: usize) -> Result<Vec<u8>, TooLarge> {
        let id_length =
            u8::try_from(self.id.len()).ok().filter(|&length| usize::from(length) <= MAX_ID_BYTES);
        let Some(id_length) = id_length else {
            return Err(TooLarge { bytes: self.id.len(), limit_bytes: MAX_ID_BYTES });
        };
        let data_length =
            u16::try_from(self.data.len()).ok().filter(|&length| usize::from(length) <= limit_bytes);
        let Some(data_length) = data_length else {
            return Err(TooLarge { bytes: self.data.len(), limit_bytes });
        };
        let interval_ms = u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(MAX_PACKET_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind.to_wire(), id_length]);
        bytes.extend_from_slice(&data_length.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&interval_ms.to_be_bytes());
        bytes.extend_from_slice(self.id);
        bytes.extend_from_slice(self.data);
        if self.kind.asks() {
            let room = ask_bytes.saturating_sub(bytes.len());
            let known = self.known.as_flattened();
            bytes.extend_from_slice(&known[..known.len().min(room - room % size_of::<Tag>())]);
            bytes.resize(bytes.len().max(ask_bytes), 0);
        }
        Ok(bytes)
    }
}

impl Kind {
    const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Announce),
            1 => Some(Self::Ask),
            2 => Some(Self::Answer),
            3 => Some(Self::Goodbye),
            4 => Some(Self::Seek),
            _ => None,
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::Announce => 0,
            Self::Ask => 1,
            Self::Answer => 2,
            Self::Goodbye => 3,
            Self::Seek => 4,
        }
    }

    /// Whether it wants an answer.
    #[must_use]
    pub const fn asks(self) -> bool {
        matches!(self, Self::Ask | Self::Seek)
    }
}

/// The tag of an identity; short identities have none, and their owners always answer.
pub(super) fn tag(id: &[u8]) -> Option<Tag> {
    id.first_chunk().copied().filter(|tag| *tag != NOBODY)
}

const NOBODY: Tag = [0; 4];

/// How many bytes of data fit into a datagram beside an identity of `id_bytes`.
pub(super) const fn max_data_bytes(id_bytes: usize) -> usize {
    MAX_PACKET_BYTES.saturating_sub(HEADER_BYTES + id_bytes)
}

/// Why a datagram is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The identity's stated length is over [`MAX_ID_BYTES`].
    #[error("an identity of {bytes} bytes is longer than {MAX_ID_BYTES}")]
    IdTooLong {
        /// The stated length.
        bytes: usize,
    },
    /// The first bytes are not a beacon's.
    #[error("not a beacon")]
    NotABeacon,
    /// The datagram is longer than any beacon.
    #[error("{bytes} bytes are more than the {MAX_PACKET_BYTES} of a beacon")]
    TooLong {
        /// The datagram's length.
        bytes: usize,
    },
    /// The datagram ends before its stated lengths do.
    #[error("the datagram is cut off")]
    Truncated,
    /// A kind of a later version.
    #[error("unknown kind {kind}")]
    UnknownKind {
        /// The kind's number.
        kind: u8,
    },
    /// A later version of the format.
    #[error("unknown version {version}")]
    UnknownVersion {
        /// The version's number.
        version: u8,
    },
}

/// The data, or the identity, does not fit into one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{bytes} bytes do not fit into one beacon, which carries at most {limit_bytes}")]
pub struct TooLarge {
    /// The length that was given.
    pub bytes: usize,
    /// The most that fits with the identity in use.
    pub limit_bytes: usize,
}

/// The largest datagram: what fits unfragmented into the smallest packet every IPv6 link carries (1280 bytes), less
/// the headers of IPv6 and UDP.
pub const MAX_PACKET_BYTES: usize = 1232;

/// The size of an ask: the largest answer less the 64 bytes by which an answer may exceed what it answers.
pub const ASK_BYTES: usize = MAX_PACKET_BYTES - 64;

/// The longest identity: 32 bytes cannot collide, more would only crowd out data.
pub const MAX_ID_BYTES: usize = 32;

pub(super) const HEADER_BYTES: usize = 16;
const MAGIC: [u8; 3] = *b"bcn";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: &[Kind] = &[Kind::Announce, Kind::Ask, Kind::Answer, Kind::Goodbye, Kind::Seek];

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            kind in prop::sample::select(KINDS),
            sequence: u32,
            interval_ms: u32,
            id in prop::collection::vec(any::<u8>(), 0..=MAX_ID_BYTES),
            data in prop::collection::vec(any::<u8>(), 0..1000),
            known in prop::collection::vec(any::<Tag>().prop_filter("nobody", |tag| *tag != NOBODY), 0..20),
        ) {
            let interval = Duration::from_millis(u64::from(interval_ms));
            let known = if kind.asks() { &known[..] } else { &[] };
            let packet = Packet { kind, sequence, interval, id: &id, data: &data, known };

            let bytes = packet.encode().expect("within the limits");

            prop_assert_eq!(Packet::decode(&bytes), Ok(packet));
        }

        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
            let _ = Packet::decode(&bytes);
        }

        #[test]
        fn no_input_with_a_good_header_panics(mut bytes in prop::collection::vec(any::<u8>(), 16..1400)) {
            bytes[..4].copy_from_slice(b"bcn\x01");
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert!(packet.id.len() + packet.data.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn the_golden_bytes_of_the_documents_are_what_is_written_and_read() {
        let document = include_str!("../../../docs/wire.md");
        let rows = document.split("## Beacon").nth(1).expect("it has a section").lines();
        for (number, &kind) in (0..).zip(KINDS) {
            let row =
                rows.clone().find(|row| row.starts_with(&format!("| {number} |"))).expect("each has a row");
            let golden = row.split('`').nth(1).expect("each row shows bytes").split(' ');
            let golden: Vec<u8> = golden.map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
            let data: &[u8] = if matches!(kind, Kind::Goodbye | Kind::Seek) { b"" } else { b"x" };
            let known: &[Tag] = if kind == Kind::Ask { &[[1, 2, 3, 4]] } else { &[] };
            let interval = Duration::from_secs(1);
            let packet = Packet { kind, sequence: 7, interval, id: b"id", data, known };

            let (said, filled) = (packet.encode().expect("small"), golden.len());

            assert_eq!(said[..filled], golden, "{kind:?}");
            assert!(said[filled..].iter().all(|&byte| byte == 0));
            assert_eq!(said.len(), if kind.asks() { ASK_BYTES } else { filled });
            assert_eq!(Packet::decode(&golden), Ok(packet));
        }
    }

    #[test]
    fn every_answer_is_at_most_64_bytes_larger_than_any_ask() {
        let smallest_ask =
            Packet { kind: Kind::Ask, sequence: 0, interval: Duration::ZERO, id: &[], data: &[], known: &[] };
        let data = vec![0; max_data_bytes(0)];
        let largest_answer = Packet { kind: Kind::Answer, data: &data, ..smallest_ask };

        let ask = smallest_ask.encode().expect("small");
        let answer = largest_answer.encode().expect("exactly at the limit");

        assert!(answer.len() <= ask.len() + 64);
    }

    #[test]
    fn an_ask_names_as_many_known_peers_as_it_has_room_for_and_never_grows() {
        let known = vec![[7; 4]; 1000];
        for data_length in [0, 1, 1000, 1140, 1150, 1200] {
            let data = vec![1; data_length];
            let packet = Packet {
                kind: Kind::Ask,
                sequence: 0,
                interval: Duration::ZERO,
                id: &[2; 16],
                data: &data,
                known: &known,
            };

            let bytes = packet.encode().expect("within the limits");

            assert_eq!(bytes.len(), ASK_BYTES.max(HEADER_BYTES + 16 + data_length));
            let read = Packet::decode(&bytes).expect("our own");
            assert_eq!(read.known.len(), ASK_BYTES.saturating_sub(HEADER_BYTES + 16 + data_length) / 4);
        }
    }

    #[test]
    fn data_over_the_limit_is_refused_with_the_limit() {
        let data = vec![0; max_data_bytes(8) + 1];
        let packet = Packet {
            kind: Kind::Announce,
            sequence: 0,
            interval: Duration::ZERO,
            id: &[0; 8],
            data: &data,
            known: &[],
        };

        assert_eq!(packet.encode(), Err(TooLarge { bytes: 1209, limit_bytes: 1208 }));
    }

    #[test]
    fn foreign_datagrams_are_refused_with_their_reason() {
        let good = Packet {
            kind: Kind::Announce,
            sequence: 1,
            interval: Duration::ZERO,
            id: b"id",
            data: b"data",
            known: &[],
        };
        let good = good.encode().expect("small");
        let with = |index: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[index] = byte;
            Packet::decode(&bytes).map(|_| ())
        };

        assert_eq!(with(0, b'x'), Err(DecodeError::NotABeacon));
        assert_eq!(with(3, 9), Err(DecodeError::UnknownVersion { version: 9 }));
        assert_eq!(with(4, 9), Err(DecodeError::UnknownKind { kind: 9 }));
        assert_eq!(with(5, 33), Err(DecodeError::IdTooLong { bytes: 33 }));
        assert_eq!(with(5, 30), Err(DecodeError::Truncated));
        assert_eq!(with(7, 5), Err(DecodeError::Truncated));
        assert_eq!(Packet::decode(&good[..15]), Err(DecodeError::Truncated));
        assert_eq!(Packet::decode(&[0; 1233]), Err(DecodeError::TooLong { bytes: 1233 }));
    }
}
