use super::record::{Entry, EntryKind, Hash, ProtocolError, Record};

/// The sender's view of one transfer: which answers of the receiver make sense when.
///
/// ```text
/// Asking ── Have*, Start ──► Streaming ── all files are out ──► Awaiting ── Done ──► Over
/// ```
///
/// ```
/// use crust_cli::transfer::{Answer, Record, Sending};
///
/// let mut sending = Sending::new([]);
/// assert_eq!(sending.handle(Record::Start)?, Answer::Start);
/// sending.all_sent();
/// assert_eq!(sending.handle(Record::Done)?, Answer::Done);
/// # Ok::<(), crust_cli::transfer::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Sending {
    state: State,
    sizes: Vec<Option<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asking { next: u32 },
    Streaming,
    Awaiting,
    Over,
}

/// What the receiver said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has the front of a file.
    Have {
        /// Which entry, counted from 0.
        index: u32,
        /// How many bytes.
        bytes: u64,
        /// Their hash.
        hash: Hash,
    },
    /// The files may come.
    Start,
    /// All of it is on its disk.
    Done,
    /// It gives up.
    Failed {
        /// Why, for a person to read.
        reason: String,
    },
}

impl Sending {
    /// Begins a transfer of these entries, which have been offered.
    #[must_use]
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let size = |entry: &Entry| (entry.kind != EntryKind::Folder).then_some(entry.size_bytes);
        Self { state: State::Asking { next: 0 }, sizes: entries.into_iter().map(size).collect() }
    }

    /// Notes that the last file is out.
    pub fn all_sent(&mut self) {
        if self.state == State::Streaming {
            self.state = State::Awaiting;
        }
    }

    /// Judges a record of the receiver.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Order`] when it has no place here.
    pub fn handle(&mut self, record: Record<'_>) -> Result<Answer, ProtocolError> {
        match (self.state, record) {
            (State::Over, _) => Err(ProtocolError::Order { what: "something after the end" }),
            (_, Record::Failed { reason }) => {
                self.state = State::Over;
                Ok(Answer::Failed { reason })
            }
            (State::Asking { next }, Record::Have { index, bytes, hash }) => {
                self.check_have(next, index, bytes)?;
                self.state = State::Asking { next: index + 1 };
                Ok(Answer::Have { index, bytes, hash })
            }
            (State::Asking { .. }, Record::Start) => {
                self.state = State::Streaming;
                Ok(Answer::Start)
            }
            (State::Awaiting, Record::Done) => {
                self.state = State::Over;
                Ok(Answer::Done)
            }
            _ => Err(ProtocolError::Order { what: "an answer that was not asked for" }),
        }
    }

    fn check_have(&self, next: u32, index: u32, bytes: u64) -> Result<(), ProtocolError> {
        let size = usize::try_from(index).ok().and_then(|index| self.sizes.get(index)).copied().flatten();
        let size = size.ok_or(ProtocolError::Order { what: "a part of something that is no file" })?;
        if index < next {
            return Err(ProtocolError::Order { what: "parts of files in disorder" });
        }
        if bytes > size {
            return Err(ProtocolError::Order { what: "more of a file than there is" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::path::{EntryPath, Rules},
        *,
    };

    fn offered() -> Sending {
        let entry = |path, kind, size_bytes| Entry {
            kind,
            size_bytes,
            path: EntryPath::parse(path, Rules::Unix).unwrap(),
        };
        let file = EntryKind::File { executable: false };
        Sending::new(&[entry("d", EntryKind::Folder, 0), entry("d/a", file, 5), entry("d/b", file, 6)])
    }

    fn have(index: u32, bytes: u64) -> Record<'static> {
        Record::Have { index, bytes, hash: [0; 32] }
    }

    #[test]
    fn a_whole_conversation_in_order() {
        let mut sending = offered();
        assert!(sending.handle(have(1, 5)).is_ok());
        assert!(sending.handle(have(2, 1)).is_ok());
        assert_eq!(sending.handle(Record::Start), Ok(Answer::Start));
        sending.all_sent();
        assert_eq!(sending.handle(Record::Done), Ok(Answer::Done));
        assert!(sending.handle(Record::Done).is_err());
    }

    #[test]
    fn each_answer_out_of_place_is_refused() {
        assert!(offered().handle(Record::Done).is_err(), "done before anything came");
        assert!(offered().handle(have(0, 0)).is_err(), "a folder has no bytes");
        assert!(offered().handle(have(1, 6)).is_err(), "more than there is");
        assert!(offered().handle(have(3, 0)).is_err(), "no such entry");
        assert!(offered().handle(Record::Offer { entries: 0, total_bytes: 0 }).is_err(), "the sender's word");
        let mut twice = offered();
        twice.handle(have(2, 1)).unwrap();
        assert!(twice.handle(have(2, 1)).is_err());
        assert!(twice.handle(have(1, 1)).is_err());
        let mut started = offered();
        started.handle(Record::Start).unwrap();
        assert!(started.handle(Record::Start).is_err());
        assert!(started.handle(Record::Done).is_err(), "done before all was sent");
        assert_eq!(
            started.handle(Record::Failed { reason: "x".into() }),
            Ok(Answer::Failed { reason: "x".into() })
        );
    }
}
