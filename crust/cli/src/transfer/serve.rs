use std::{
    fs::File,
    io::{self, Read, Seek as _, Write},
};

use crossbeam::channel::{Receiver, Sender, TryRecvError};

use super::{
    error::{SourceError, TransferError},
    protocol::{Answer, Decoder, EntryKind, Hash, MAX_DATA_BYTES, Record, Rules, Sending},
    source::{Source, SourceFile},
};
use crate::progress::Progress;

/// A record of the receiver, or why there are no more.
pub(crate) type Heard = Result<Record<'static>, TransferError>;

/// Reads what the receiver says until it ends; runs beside [`serve`], so that a receiver can give up at any time.
pub(crate) fn listen_to(mut reader: impl Read, heard: &Sender<Heard>) {
    let mut decoder = Decoder::new(Rules::Unix);
    let mut buffer = [0; 4 << 10];
    loop {
        let length = match reader.read(&mut buffer) {
            Ok(0) => break drop(heard.send(Err(TransferError::CutOff))),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break drop(heard.send(Err(TransferError::Stream(error)))),
        };
        let mut input = &buffer[..length];
        loop {
            let next = match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Record::Data(_))) => Record::Data(&[]),
                Ok(Some(record)) => owned(record),
                Err(error) => return drop(heard.send(Err(error.into()))),
            };
            if heard.send(Ok(next)).is_err() {
                return;
            }
        }
    }
}

/// Offers `source`, sends what the receiver lacks, and returns when the receiver has it all on its disk.
///
/// On an error of our own the receiver is told.
pub(crate) fn serve(
    writer: impl Write,
    heard: &Receiver<Heard>,
    source: &Source,
    progress: &mut Progress,
) -> Result<(), TransferError> {
    let mut talk = Talk { writer, heard, sending: Sending::new(source.entries()), out: Vec::new() };
    match talk.run(source, progress) {
        Err(TransferError::Source(error)) => {
            // The path here is nobody's business there; the kind of trouble is.
            Record::Failed { reason: "the sender could not read a file".to_owned() }.encode(&mut talk.out);
            let _ = talk.flush();
            Err(error.into())
        }
        other => other,
    }
}

struct Talk<'a, W> {
    writer: W,
    heard: &'a Receiver<Heard>,
    sending: Sending,
    out: Vec<u8>,
}

/// What the receiver has of a file.
type Have = (u64, Hash);

impl<W: Write> Talk<'_, W> {
    fn run(&mut self, source: &Source, progress: &mut Progress) -> Result<(), TransferError> {
        self.offer(source)?;
        let mut haves = self.wait_for_start()?.into_iter().peekable();
        for (index, file) in (0..).zip(source.files()) {
            if file.entry.kind != EntryKind::Folder {
                let have = haves.next_if(|(of, _)| *of == index).map(|(_, have)| have);
                self.send_file(index, file, have, progress)?;
            }
        }
        self.flush()?;
        self.sending.all_sent();
        match self.answer()? {
            Answer::Done => Ok(()),
            _ => unreachable!("nothing else is let through after all was sent"),
        }
    }

    fn offer(&mut self, source: &Source) -> Result<(), TransferError> {
        let entries = u32::try_from(source.files().len()).map_err(|_| SourceError::TooMany)?;
        Record::Offer { entries, total_bytes: source.total_bytes() }.encode(&mut self.out);
        for entry in source.entries() {
            Record::Entry(entry.clone()).encode(&mut self.out);
            self.flush_if_large()?;
        }
        self.flush()
    }

    fn wait_for_start(&mut self) -> Result<Vec<(u32, Have)>, TransferError> {
        let mut haves = Vec::new();
        loop {
            match self.answer()? {
                Answer::Have { index, bytes, hash } => haves.push((index, (bytes, hash))),
                _ => return Ok(haves),
            }
        }
    }

    fn send_file(
        &mut self,
        index: u32,
        file: &SourceFile,
        have: Option<Have>,
        progress: &mut Progress,
    ) -> Result<(), TransferError> {
        let unreadable = |source| SourceError::Read { path: file.place.clone(), source };
        let mut hasher = blake3::Hasher::new();
        let mut open = File::open(&file.place).map_err(unreadable)?;
        let mut offset = 0;
        if let Some((bytes, hash)) = have {
            hash_front(&mut hasher, &open, bytes).map_err(unreadable)?;
            if *hasher.finalize().as_bytes() == hash {
                offset = bytes;
                progress.skip(bytes);
            } else {
                hasher.reset();
                open.rewind().map_err(unreadable)?;
            }
        }
        Record::File { index, offset }.encode(&mut self.out);
        let mut left = file.entry.size_bytes - offset;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(MAX_DATA_BYTES).min(MAX_DATA_BYTES);
            let length = self.send_data(&mut open, wanted, &mut hasher).map_err(|error| match error {
                DataError::Read(source) => unreadable(source).into(),
                DataError::Write(error) => error,
            })?;
            if length == 0 {
                return Err(SourceError::Changed { path: file.place.clone() }.into());
            }
            left -= length as u64;
            progress.advance(length as u64);
            self.look_for_failure()?;
        }
        Record::End(*hasher.finalize().as_bytes()).encode(&mut self.out);
        self.flush_if_large()
    }

    /// Reads from the file straight into what goes out.
    fn send_data(
        &mut self,
        file: &mut File,
        wanted: usize,
        hasher: &mut blake3::Hasher,
    ) -> Result<usize, DataError> {
        let start = self.out.len();
        Record::Data(&[]).encode(&mut self.out);
        let body = self.out.len();
        self.out.resize(body + wanted, 0);
        let length = loop {
            match file.read(&mut self.out[body..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(DataError::Read)?,
            }
        };
        self.out.truncate(body + length);
        let number = u32::try_from(length).expect("at most MAX_DATA_BYTES");
        self.out[start + 1..body].copy_from_slice(&number.to_be_bytes());
        hasher.update(&self.out[body..]);
        self.flush_if_large().map_err(DataError::Write)?;
        Ok(length)
    }

    fn flush_if_large(&mut self) -> Result<(), TransferError> {
        if self.out.len() < FLUSH_BYTES { Ok(()) } else { self.flush() }
    }

    /// Writes what has gathered. If that fails because the receiver gave up, its reason is the better error.
    fn flush(&mut self) -> Result<(), TransferError> {
        let written = self.writer.write_all(&self.out).and_then(|()| self.writer.flush());
        self.out.clear();
        match written {
            Ok(()) => Ok(()),
            Err(error) => Err(match self.heard.recv_timeout(LAST_WORDS) {
                Ok(Ok(Record::Failed { reason })) => TransferError::Peer { reason },
                _ => TransferError::Stream(error),
            }),
        }
    }

    fn answer(&mut self) -> Result<Answer, TransferError> {
        let record = self.heard.recv().unwrap_or(Err(TransferError::CutOff))?;
        self.judge(record)
    }

    fn look_for_failure(&mut self) -> Result<(), TransferError> {
        match self.heard.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => Err(TransferError::CutOff),
            Ok(record) => self.judge(record?).map(drop),
        }
    }

    fn judge(&mut self, record: Record<'static>) -> Result<Answer, TransferError> {
        match self.sending.handle(record)? {
            Answer::Failed { reason } => Err(TransferError::Peer { reason }),
            answer => Ok(answer),
        }
    }
}

enum DataError {
    Read(io::Error),
    Write(TransferError),
}

fn hash_front(hasher: &mut blake3::Hasher, file: &File, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; MAX_DATA_BYTES];
    let mut front = file.take(bytes);
    loop {
        match front.read(&mut buffer)? {
            0 => return Ok(()),
            length => {
                hasher.update(&buffer[..length]);
            }
        }
    }
}

/// A record without the lifetime of the buffer; a receiver has no data to send.
fn owned(record: Record<'_>) -> Record<'static> {
    match record {
        Record::Offer { entries, total_bytes } => Record::Offer { entries, total_bytes },
        Record::Entry(entry) => Record::Entry(entry),
        Record::Have { index, bytes, hash } => Record::Have { index, bytes, hash },
        Record::Start => Record::Start,
        Record::File { index, offset } => Record::File { index, offset },
        Record::Data(_) => Record::Data(&[]),
        Record::End(hash) => Record::End(hash),
        Record::Done => Record::Done,
        Record::Failed { reason } => Record::Failed { reason },
    }
}

/// One write a piece of data, and one for many small files together.
const FLUSH_BYTES: usize = 128 << 10;
/// How long a receiver's reason may take to be read after the stream broke.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);
