use std::collections::BTreeMap;

use super::record::{Entry, EntryKind, Hash, ProtocolError, Record};

/// The receiver's view of one transfer: which records of the sender make sense when.
///
/// ```text
/// Opening ── Offer ──► Listing ── last Entry ──► Asking ── start() ──► Between ◄─── End ───┐
///                                                                         └─── File ──► Inside ── Data*
/// ```
///
/// ```
/// use crust_cli::transfer::{Receiving, Record, Step};
///
/// let mut receiving = Receiving::new();
/// assert_eq!(receiving.handle(Record::Offer { entries: 0, total_bytes: 0 })?, Step::Listed);
/// assert_eq!(receiving.start(), Record::Start);
/// assert!(receiving.is_complete());
/// # Ok::<(), crust_cli::transfer::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Receiving {
    state: State,
    entries: Vec<Entry>,
    /// Every path, and whether it is a folder.
    paths: BTreeMap<String, bool>,
    path_bytes: usize,
    /// What we have of files, as told to the sender.
    had: BTreeMap<u32, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Listing { left: u32, bytes_left: u64 },
    Asking,
    Between { next: u32 },
    Inside { index: u32, left: u64 },
    Over,
}

/// What to do with a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing yet: more of the list comes.
    Listing,
    /// The list is complete: look what is there already, then [`Receiving::have`] and [`Receiving::start`].
    Listed,
    /// The bytes of this file follow.
    File {
        /// Which entry, counted from 0.
        index: u32,
        /// From which byte on.
        offset: u64,
    },
    /// Bytes of that file.
    Data(&'a [u8]),
    /// The file is complete if its hash is this.
    End {
        /// Which entry, counted from 0.
        index: u32,
        /// The hash of all of it.
        hash: Hash,
    },
    /// The sender gives up.
    Failed {
        /// Why, for a person to read.
        reason: String,
    },
}

impl Default for Receiving {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiving {
    /// Waits for the offer.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Opening,
            entries: Vec::new(),
            paths: BTreeMap::new(),
            path_bytes: 0,
            had: BTreeMap::new(),
        }
    }

    /// What is offered, as far as it is known.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether every file has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Between { next } if self.next_file(next).is_none())
    }

    /// Notes what is there already of a file, and gives the record that says so.
    pub fn have(&mut self, index: u32, bytes: u64, hash: Hash) -> Record<'static> {
        self.had.insert(index, bytes);
        Record::Have { index, bytes, hash }
    }

    /// Asks for the files.
    pub fn start(&mut self) -> Record<'static> {
        if self.state == State::Asking {
            self.state = State::Between { next: 0 };
        }
        Record::Start
    }

    /// Judges a record of the sender.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] when it has no place here, contradicts the offer or goes beyond a limit.
    pub fn handle<'a>(&mut self, record: Record<'a>) -> Result<Step<'a>, ProtocolError> {
        match (self.state, record) {
            (State::Over, _) => Err(ProtocolError::Order { what: "something after the end" }),
            (_, Record::Failed { reason }) => {
                self.state = State::Over;
                Ok(Step::Failed { reason })
            }
            (State::Opening, Record::Offer { entries, total_bytes }) => {
                if entries > MAX_ENTRIES {
                    return Err(ProtocolError::TooMuch { what: "more than a million files and folders" });
                }
                self.listed(entries, total_bytes)
            }
            (State::Listing { left, bytes_left }, Record::Entry(entry)) => {
                let bytes_left = bytes_left
                    .checked_sub(entry.size_bytes)
                    .ok_or(ProtocolError::Order { what: "files larger than their sum" })?;
                self.add(entry)?;
                self.listed(left - 1, bytes_left)
            }
            (State::Between { next }, Record::File { index, offset }) => self.begin(next, index, offset),
            (State::Inside { index, left }, Record::Data(data)) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                let left = left
                    .checked_sub(length)
                    .ok_or(ProtocolError::Order { what: "a file longer than offered" })?;
                self.state = State::Inside { index, left };
                Ok(Step::Data(data))
            }
            (State::Inside { index, left: 0 }, Record::End(hash)) => {
                self.state = State::Between { next: index + 1 };
                Ok(Step::End { index, hash })
            }
            (State::Inside { .. }, Record::End(_)) => {
                Err(ProtocolError::Order { what: "a file shorter than offered" })
            }
            _ => Err(ProtocolError::Order { what: "a record that has no place here" }),
        }
    }

    fn listed<'a>(&mut self, left: u32, bytes_left: u64) -> Result<Step<'a>, ProtocolError> {
        if left > 0 {
            self.state = State::Listing { left, bytes_left };
            return Ok(Step::Listing);
        }
        if bytes_left > 0 {
            return Err(ProtocolError::Order { what: "files smaller than their sum" });
        }
        self.state = State::Asking;
        Ok(Step::Listed)
    }

    fn add(&mut self, entry: Entry) -> Result<(), ProtocolError> {
        self.path_bytes += entry.path.as_str().len();
        if self.path_bytes > MAX_PATH_BYTES {
            return Err(ProtocolError::TooMuch { what: "more than 64 MiB of names" });
        }
        let is_folder = entry.kind == EntryKind::Folder;
        if entry.path.ancestors().any(|ancestor| self.paths.get(ancestor) == Some(&false)) {
            return Err(ProtocolError::Order { what: "a file inside a file" });
        }
        let inside = format!("{}/", entry.path);
        let below = self.paths.range(inside.clone()..).next();
        if !is_folder && below.is_some_and(|(path, _)| path.starts_with(&inside)) {
            return Err(ProtocolError::Order { what: "a file inside a file" });
        }
        if self.paths.insert(entry.path.as_str().to_owned(), is_folder).is_some() {
            return Err(ProtocolError::Order { what: "one name twice" });
        }
        self.entries.push(entry);
        Ok(())
    }

    fn begin<'a>(&mut self, next: u32, index: u32, offset: u64) -> Result<Step<'a>, ProtocolError> {
        if self.next_file(next) != Some(index) {
            return Err(ProtocolError::Order { what: "a file out of turn" });
        }
        if offset != 0 && self.had.get(&index) != Some(&offset) {
            return Err(ProtocolError::Order { what: "a file that begins where nobody asked" });
        }
        let size = self.entry(index).map_or(0, |entry| entry.size_bytes);
        let left =
            size.checked_sub(offset).ok_or(ProtocolError::Order { what: "an offset beyond the end" })?;
        self.state = State::Inside { index, left };
        Ok(Step::File { index, offset })
    }

    fn next_file(&self, from: u32) -> Option<u32> {
        (from..)
            .map_while(|index| self.entry(index).map(|entry| (index, entry)))
            .find(|(_, entry)| entry.kind != EntryKind::Folder)
            .map(|(index, _)| index)
    }

    fn entry(&self, index: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(index).ok()?)
    }
}

/// The list is held in memory on both sides; a million entries are some 200 MB at worst.
const MAX_ENTRIES: u32 = 1_000_000;
/// The same bound for long names.
const MAX_PATH_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            path::{EntryPath, Rules},
            record::Decoder,
        },
        *,
    };

    const FILE: EntryKind = EntryKind::File { executable: false };

    fn entry(path: &str, kind: EntryKind, size_bytes: u64) -> Record<'static> {
        Record::Entry(Entry { kind, size_bytes, path: EntryPath::parse(path, Rules::Unix).unwrap() })
    }

    fn run(records: Vec<Record<'_>>) -> Result<Receiving, ProtocolError> {
        let mut receiving = Receiving::new();
        for record in records {
            if receiving.handle(record)? == Step::Listed {
                receiving.have(2, 3, [0; 32]);
                receiving.start();
            }
        }
        Ok(receiving)
    }

    fn list() -> Vec<Record<'static>> {
        vec![
            Record::Offer { entries: 3, total_bytes: 9 },
            entry("d", EntryKind::Folder, 0),
            entry("d/a", FILE, 4),
            entry("d/b", FILE, 5),
        ]
    }

    fn then<'a>(more: impl IntoIterator<Item = Record<'a>>) -> Result<Receiving, ProtocolError> {
        run(list().into_iter().chain(more).collect())
    }

    fn what(result: Result<Receiving, ProtocolError>) -> &'static str {
        match result {
            Err(ProtocolError::Order { what } | ProtocolError::TooMuch { what }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_transfer_with_a_resumed_file() {
        let receiving = then([
            Record::File { index: 1, offset: 0 },
            Record::Data(b"ab"),
            Record::Data(b"cd"),
            Record::End([1; 32]),
            Record::File { index: 2, offset: 3 },
            Record::Data(b"yz"),
            Record::End([2; 32]),
        ])
        .unwrap();
        assert!(receiving.is_complete());
    }

    #[test]
    fn nothing_offered_is_complete_at_once() {
        let receiving = run(vec![Record::Offer { entries: 0, total_bytes: 0 }]).unwrap();
        assert!(receiving.is_complete());
    }

    #[test]
    fn a_list_that_contradicts_itself_is_refused() {
        let of = |entries: Vec<Record<'static>>, total_bytes| {
            let count = u32::try_from(entries.len()).unwrap();
            run([vec![Record::Offer { entries: count, total_bytes }], entries].concat())
        };
        assert_eq!(what(of(vec![entry("a", FILE, 1), entry("a", FILE, 1)], 2)), "one name twice");
        assert_eq!(what(of(vec![entry("a", FILE, 1), entry("a/b", FILE, 1)], 2)), "a file inside a file");
        assert_eq!(what(of(vec![entry("a/b", FILE, 1), entry("a", FILE, 1)], 2)), "a file inside a file");
        assert_eq!(what(of(vec![entry("a", FILE, 2)], 1)), "files larger than their sum");
        assert_eq!(what(of(vec![entry("a", FILE, 1)], 2)), "files smaller than their sum");
        assert!(of(vec![entry("a/b", FILE, 1), entry("a", EntryKind::Folder, 0)], 1).is_ok());
        let too_many = Record::Offer { entries: 1_000_001, total_bytes: 0 };
        assert_eq!(what(run(vec![too_many])), "more than a million files and folders");
    }

    #[test]
    fn a_file_that_does_not_keep_to_the_offer_is_refused() {
        let file = |index, offset| Record::File { index, offset };
        assert_eq!(what(then([file(0, 0)])), "a file out of turn");
        assert_eq!(what(then([file(2, 0)])), "a file out of turn");
        assert_eq!(what(then([file(1, 2)])), "a file that begins where nobody asked");
        assert_eq!(what(then([file(1, 0), Record::Data(b"abcde")])), "a file longer than offered");
        assert_eq!(what(then([file(1, 0), Record::End([0; 32])])), "a file shorter than offered");
        assert_eq!(what(then([Record::Data(b"a")])), "a record that has no place here");
        assert_eq!(what(then([file(1, 0), file(2, 0)])), "a record that has no place here");
        assert_eq!(what(run(vec![Record::Start])), "a record that has no place here");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut receiving = Receiving::new();
            let mut decoder = Decoder::new(Rules::Unix);
            let mut input = &bytes[..];
            while let Ok(Some(record)) = decoder.next(&mut input) {
                if receiving.handle(record).is_err() {
                    break;
                }
            }
        }
    }
}
