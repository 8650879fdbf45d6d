use super::path::{EntryPath, PathError, Rules};

/// BLAKE3 of a file's bytes.
pub type Hash = [u8; 32];

/// One message of the transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// What there is to be had: the sender's first word.
    Offer {
        /// How many entries follow.
        entries: u32,
        /// The sizes of all files together.
        total_bytes: u64,
    },
    /// One file or folder.
    Entry(Entry),
    /// What the receiver has of a file already.
    Have {
        /// Which entry, counted from 0.
        index: u32,
        /// How many bytes from the front.
        bytes: u64,
        /// Their hash.
        hash: Hash,
    },
    /// The receiver has said all and wants the files.
    Start,
    /// The bytes of this file follow.
    File {
        /// Which entry, counted from 0.
        index: u32,
        /// From which byte on: 0, or as many as the receiver has.
        offset: u64,
    },
    /// Bytes of the file, or a part of them: what has arrived so far.
    Data(&'a [u8]),
    /// The file is complete.
    End(
        /// The hash of all of it.
        Hash,
    ),
    /// Everything has arrived, was verified and is on the disk.
    Done,
    /// The other side gives up.
    Failed {
        /// Why, for a person to read; without control characters.
        reason: String,
    },
}

/// A file or a folder as it is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File or folder.
    pub kind: EntryKind,
    /// The length of the file; 0 for a folder.
    pub size_bytes: u64,
    /// Where it goes.
    pub path: EntryPath,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file; whether its owner may run it is the one permission that travels.
    File {
        /// Whether its owner may run it.
        executable: bool,
    },
    /// A folder.
    Folder,
}

impl Record<'_> {
    /// Appends the record to `bytes`. A reason is cut to what fits; data are at most [`MAX_DATA_BYTES`].
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        match self {
            Self::Offer { entries, total_bytes } => {
                bytes.push(VERSION);
                bytes.extend_from_slice(&entries.to_be_bytes());
                bytes.extend_from_slice(&total_bytes.to_be_bytes());
            }
            Self::Entry(entry) => {
                bytes.push(entry.kind.code());
                bytes.extend_from_slice(&entry.size_bytes.to_be_bytes());
                bytes.extend_from_slice(entry.path.as_str().as_bytes());
            }
            Self::Have { index, bytes: have, hash } => {
                bytes.extend_from_slice(&index.to_be_bytes());
                bytes.extend_from_slice(&have.to_be_bytes());
                bytes.extend_from_slice(hash);
            }
            Self::File { index, offset } => {
                bytes.extend_from_slice(&index.to_be_bytes());
                bytes.extend_from_slice(&offset.to_be_bytes());
            }
            Self::Data(data) => bytes.extend_from_slice(&data[..data.len().min(MAX_DATA_BYTES)]),
            Self::End(hash) => bytes.extend_from_slice(hash),
            Self::Failed { reason } => bytes.extend_from_slice(cut(reason).as_bytes()),
            Self::Start | Self::Done => {}
        }
        let length = u32::try_from(bytes.len() - start - HEAD_BYTES).expect("data and paths are bounded");
        bytes[start + 1..start + HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Offer { .. } => OFFER,
            Self::Entry(_) => ENTRY,
            Self::Have { .. } => HAVE,
            Self::Start => START,
            Self::File { .. } => FILE,
            Self::Data(_) => DATA,
            Self::End(_) => END,
            Self::Done => DONE,
            Self::Failed { .. } => FAILED,
        }
    }
}

impl EntryKind {
    fn code(self) -> u8 {
        match self {
            Self::File { executable: false } => 0,
            Self::File { executable: true } => 1,
            Self::Folder => 2,
        }
    }

    fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::File { executable: false }),
            1 => Some(Self::File { executable: true }),
            2 => Some(Self::Folder),
            _ => None,
        }
    }
}

fn cut(reason: &str) -> &str {
    let end = (0..=reason.len().min(MAX_REASON_BYTES)).rev().find(|&end| reason.is_char_boundary(end));
    &reason[..end.unwrap_or(0)]
}

/// Takes bytes in whatever pieces they come, gives records. Data are handed through without being copied.
///
/// ```
/// use crust_cli::transfer::{Decoder, Record, Rules};
///
/// let mut bytes = Vec::new();
/// Record::Start.encode(&mut bytes);
/// let mut decoder = Decoder::new(Rules::here());
/// let (mut front, mut back) = bytes.split_at(2);
/// assert_eq!(decoder.next(&mut front)?, None);
/// assert_eq!(decoder.next(&mut back)?, Some(Record::Start));
/// # Ok::<(), crust_cli::transfer::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    rules: Rules,
    /// Head and body of the record under way, unless it is data.
    held: Vec<u8>,
    /// What is still to come of a data record or of an extension.
    passing: u32,
    skipping: bool,
}

impl Decoder {
    /// Waits for the first record. Names are judged by `rules`.
    #[must_use]
    pub const fn new(rules: Rules) -> Self {
        Self { rules, held: Vec::new(), passing: 0, skipping: false }
    }

    /// The next record at the front of `input`, which is shortened by what was taken; `None` when more bytes are
    /// needed.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`], after which the stream makes no sense any more.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Record<'a>>, ProtocolError> {
        loop {
            if self.passing > 0 {
                if input.is_empty() {
                    return Ok(None);
                }
                let length = usize::try_from(self.passing).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(length);
                *input = rest;
                self.passing -= u32::try_from(length).expect("at most what was passing");
                if !self.skipping {
                    return Ok(Some(Record::Data(data)));
                }
                continue;
            }
            if !self.fill(HEAD_BYTES, input) {
                return Ok(None);
            }
            let (kind, length) = head(&self.held);
            check_length(kind, length)?;
            if kind == DATA || kind >= FIRST_EXTENSION {
                self.held.clear();
                self.skipping = kind != DATA;
                self.passing = length;
                continue;
            }
            let whole = HEAD_BYTES + usize::try_from(length).expect("checked to be small");
            if !self.fill(whole, input) {
                return Ok(None);
            }
            let record = parse(kind, &self.held[HEAD_BYTES..], self.rules)?;
            self.held.clear();
            return Ok(Some(record));
        }
    }

    /// Whether it stands between two records, where a stream may end.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.held.is_empty() && self.passing == 0
    }

    fn fill(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let missing = wanted.saturating_sub(self.held.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.held.extend_from_slice(taken);
        *input = rest;
        self.held.len() >= wanted
    }
}

fn head(held: &[u8]) -> (u8, u32) {
    (held[0], u32::from_be_bytes([held[1], held[2], held[3], held[4]]))
}

fn check_length(kind: u8, length: u32) -> Result<(), ProtocolError> {
    let most = match kind {
        DATA => MAX_DATA_BYTES,
        _ => MAX_BODY_BYTES,
    };
    if usize::try_from(length).is_ok_and(|length| length <= most) {
        return Ok(());
    }
    Err(ProtocolError::TooLong { kind, length })
}

fn parse(kind: u8, body: &[u8], rules: Rules) -> Result<Record<'static>, ProtocolError> {
    let short = || ProtocolError::Malformed { kind };
    match kind {
        OFFER => {
            let (&version, rest) = body.split_first().ok_or_else(short)?;
            if version != VERSION {
                return Err(ProtocolError::Version { theirs: version });
            }
            // A later minor form may say more; it stands behind.
            let (entries, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let (total, _) = rest.split_first_chunk::<8>().ok_or_else(short)?;
            Ok(Record::Offer {
                entries: u32::from_be_bytes(*entries),
                total_bytes: u64::from_be_bytes(*total),
            })
        }
        ENTRY => parse_entry(body, rules).map(Record::Entry),
        HAVE => {
            let (index, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
            let (have, hash) = rest.split_first_chunk::<8>().ok_or_else(short)?;
            let hash = hash.try_into().map_err(|_| short())?;
            Ok(Record::Have { index: u32::from_be_bytes(*index), bytes: u64::from_be_bytes(*have), hash })
        }
        FILE => {
            let (index, offset) = body.split_first_chunk::<4>().ok_or_else(short)?;
            let offset = offset.try_into().map_err(|_| short())?;
            Ok(Record::File { index: u32::from_be_bytes(*index), offset: u64::from_be_bytes(offset) })
        }
        END => Ok(Record::End(body.try_into().map_err(|_| short())?)),
        START if body.is_empty() => Ok(Record::Start),
        DONE if body.is_empty() => Ok(Record::Done),
        START | DONE => Err(short()),
        FAILED => {
            let text = String::from_utf8_lossy(body);
            let reason = cut(&text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Ok(Record::Failed { reason })
        }
        _ => Err(ProtocolError::Unknown { kind }),
    }
}

fn parse_entry(body: &[u8], rules: Rules) -> Result<Entry, ProtocolError> {
    let short = || ProtocolError::Malformed { kind: ENTRY };
    let (&code, rest) = body.split_first().ok_or_else(short)?;
    let (size, path) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let kind = EntryKind::of(code).ok_or_else(short)?;
    let size_bytes = u64::from_be_bytes(*size);
    if kind == EntryKind::Folder && size_bytes != 0 {
        return Err(short());
    }
    let path = std::str::from_utf8(path).map_err(|_| PathError::NotUtf8)?;
    Ok(Entry { kind, size_bytes, path: EntryPath::parse(path, rules)? })
}

/// What the other side did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// It speaks another version.
    #[error("the sender speaks version {theirs} of the transfer, only {VERSION} is known here")]
    Version {
        /// Its version.
        theirs: u8,
    },
    /// A record has a length that it cannot have.
    #[error("a record of kind {kind} with {length} bytes")]
    TooLong {
        /// Its kind.
        kind: u8,
        /// What it says of itself.
        length: u32,
    },
    /// A record cannot be read.
    #[error("a record of kind {kind} that makes no sense")]
    Malformed {
        /// Its kind.
        kind: u8,
    },
    /// A record that this version does not know and may not skip.
    #[error("a record of the unknown kind {kind}")]
    Unknown {
        /// Its kind.
        kind: u8,
    },
    /// A name that is refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A record where it has no place, or that contradicts an earlier one.
    #[error("out of order: {what}")]
    Order {
        /// What is wrong with it.
        what: &'static str,
    },
    /// More than one transfer may hold.
    #[error("too much for one transfer: {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
    },
}

/// The version spoken here.
pub const VERSION: u8 = 1;
/// Large enough that the five bytes before it cost nothing, small enough to be held on both sides.
pub const MAX_DATA_BYTES: usize = 128 << 10;
/// The longest of the others is an entry with its path; the rest is room for extensions.
const MAX_BODY_BYTES: usize = 8 << 10;
/// A sentence or two.
const MAX_REASON_BYTES: usize = 1_024;
const HEAD_BYTES: usize = 5;
const OFFER: u8 = 1;
const ENTRY: u8 = 2;
const HAVE: u8 = 3;
const START: u8 = 4;
const FILE: u8 = 5;
const DATA: u8 = 6;
const END: u8 = 7;
const DONE: u8 = 8;
const FAILED: u8 = 9;
const FIRST_EXTENSION: u8 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(path: &str) -> Record<'static> {
        let path = EntryPath::parse(path, Rules::Unix).unwrap();
        Record::Entry(Entry { kind: EntryKind::File { executable: true }, size_bytes: 5, path })
    }

    fn golden() -> (Vec<Record<'static>>, &'static [u8]) {
        let records = vec![
            Record::Offer { entries: 1, total_bytes: 5 },
            entry("a/b"),
            Record::Have { index: 0, bytes: 2, hash: [7; 32] },
            Record::Start,
            Record::File { index: 0, offset: 2 },
            Record::Data(b"llo"),
            Record::End([8; 32]),
            Record::Done,
            Record::Failed { reason: "no".into() },
        ];
        let bytes = b"\x01\0\0\0\x0d\x01\0\0\0\x01\0\0\0\0\0\0\0\x05\
            \x02\0\0\0\x0c\x01\0\0\0\0\0\0\0\x05a/b\
            \x03\0\0\0\x2c\0\0\0\0\0\0\0\0\0\0\0\x02\
            \x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
            \x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
            \x04\0\0\0\0\
            \x05\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\x02\
            \x06\0\0\0\x03llo\
            \x07\0\0\0\x20\
            \x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\
            \x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\
            \x08\0\0\0\0\
            \x09\0\0\0\x02no";
        (records, bytes)
    }

    fn decode_all(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, ProtocolError> {
        let mut decoder = Decoder::new(Rules::Unix);
        let mut records = Vec::new();
        while let Some(record) = decoder.next(&mut bytes)? {
            records.push(record);
        }
        assert!(bytes.is_empty());
        Ok(records)
    }

    #[test]
    fn the_golden_bytes_read_and_write() {
        let (records, bytes) = golden();
        let mut written = Vec::new();
        records.iter().for_each(|record| record.encode(&mut written));
        assert_eq!(written, bytes);
        assert_eq!(decode_all(bytes), Ok(records));
    }

    #[test]
    fn the_golden_bytes_of_docs_wire_are_these() {
        let document = include_str!("../../../../../docs/wire.md");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let (records, _) = golden();
        for record in records {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let repeated = bytes.len() > 32;
            let shown = if repeated { hex(&bytes[..bytes.len() - 32]) } else { hex(&bytes) };
            assert!(document.contains(&shown), "{shown}");
        }
    }

    #[test]
    fn a_byte_at_a_time_gives_the_same_records() {
        let (records, bytes) = golden();
        let mut decoder = Decoder::new(Rules::Unix);
        let mut count = 0;
        for byte in bytes.chunks(1) {
            let mut input = byte;
            while let Some(record) = decoder.next(&mut input).unwrap() {
                count += 1;
                assert!(matches!(record, Record::Data([_])) || records.contains(&record), "{record:?}");
            }
        }
        assert_eq!(count, records.len() + 2, "three bytes of data came one by one");
        assert!(decoder.is_between());
    }

    #[test]
    fn extensions_are_skipped_and_unknown_kinds_refused() {
        assert_eq!(decode_all(b"\x80\0\0\0\x03abc\x04\0\0\0\0\xff\0\0\0\0"), Ok(vec![Record::Start]));
        assert_eq!(decode_all(b"\x0a\0\0\0\0"), Err(ProtocolError::Unknown { kind: 10 }));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let error = decode_all(b"\x01\0\0\0\x0d\x02\0\0\0\x01\0\0\0\0\0\0\0\x05").unwrap_err();
        assert_eq!(error, ProtocolError::Version { theirs: 2 });
        assert!(error.to_string().contains("version 2") && error.to_string().contains("only 1"), "{error}");
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_the_body() {
        for kind in [1, 2, 6, 9, 200] {
            assert_eq!(
                decode_all(&[kind, 0xff, 0xff, 0xff, 0xff]),
                Err(ProtocolError::TooLong { kind, length: u32::MAX })
            );
        }
    }

    #[test]
    fn a_reason_is_cut_and_harmless_to_a_terminal() {
        let mut bytes = Vec::new();
        Record::Failed { reason: format!("\x1b{}", "ä".repeat(2_000)) }.encode(&mut bytes);
        let records = decode_all(&bytes).unwrap();
        let [Record::Failed { reason }] = &records[..] else { panic!("{records:?}") };
        assert!(reason.len() <= MAX_REASON_BYTES && !reason.contains('\x1b'));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_all_loose(&bytes);
        }
    }

    fn decode_all_loose(mut bytes: &[u8]) -> Result<(), ProtocolError> {
        let mut decoder = Decoder::new(Rules::Windows);
        while decoder.next(&mut bytes)?.is_some() {}
        Ok(())
    }
}
