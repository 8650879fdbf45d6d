use std::io::{self, Read, Write};

use super::{
    error::TransferError,
    protocol::{Decoder, EntryKind, Receiving, Record, Rules, Step},
    target::{Incoming, Target},
};
use crate::progress::Progress;

/// What has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// Takes what the other side offers into `target`; returns when all of it is on the disk and the sender knows.
///
/// On an error of our own the sender is told.
pub(crate) fn fetch(
    reader: impl Read,
    mut writer: impl Write,
    target: &mut Target,
    progress: &mut Progress,
) -> Result<Received, TransferError> {
    let mut talk = Talk { reader, writer: &mut writer, receiving: Receiving::new(), incoming: None };
    let result = talk.run(target, progress);
    if let Err(TransferError::Target(_) | TransferError::Protocol(_)) = &result {
        let reason = match &result {
            Err(TransferError::Protocol(error)) => error.to_string(),
            // The path here is nobody's business there; the kind of trouble is.
            Err(TransferError::Target(error)) => public_reason(error).to_owned(),
            _ => String::new(),
        };
        let mut bytes = Vec::new();
        Record::Failed { reason }.encode(&mut bytes);
        let _ = writer.write_all(&bytes).and_then(|()| writer.flush());
    }
    result
}

struct Talk<'a, R, W> {
    reader: R,
    writer: &'a mut W,
    receiving: Receiving,
    incoming: Option<Incoming>,
}

impl<R: Read, W: Write> Talk<'_, R, W> {
    fn run(&mut self, target: &mut Target, progress: &mut Progress) -> Result<Received, TransferError> {
        let mut decoder = Decoder::new(Rules::here());
        let mut buffer = vec![0; BUFFER_BYTES];
        while !self.receiving.is_complete() {
            let length = match self.reader.read(&mut buffer) {
                Ok(0) => return Err(TransferError::CutOff),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TransferError::Stream(error)),
            };
            let mut input = &buffer[..length];
            while let Some(record) = decoder.next(&mut input)? {
                self.take(record, target, progress)?;
            }
        }
        target.flush()?;
        self.say(&[Record::Done])?;
        let files = self.receiving.entries().iter().filter(|entry| entry.kind != EntryKind::Folder);
        Ok(Received { files: files.clone().count(), bytes: files.map(|entry| entry.size_bytes).sum() })
    }

    fn take(
        &mut self,
        record: Record<'_>,
        target: &mut Target,
        progress: &mut Progress,
    ) -> Result<(), TransferError> {
        match self.receiving.handle(record)? {
            Step::Listing => {}
            Step::Listed => self.ask(target, progress)?,
            Step::File { index, offset } => {
                let entry = entry(&self.receiving, index);
                self.incoming = Some(target.begin(index, entry, offset)?);
                progress.skip(offset);
            }
            Step::Data(data) => {
                if let Some(Incoming::Part(part)) = &mut self.incoming {
                    part.write(data)?;
                }
                progress.advance(data.len() as u64);
            }
            Step::End { index, hash } => {
                if let Some(incoming) = self.incoming.take() {
                    target.finish(entry(&self.receiving, index), incoming, hash)?;
                }
            }
            Step::Failed { reason } => return Err(TransferError::Peer { reason }),
        }
        Ok(())
    }

    /// Says what is there already and asks for the rest.
    fn ask(&mut self, target: &mut Target, progress: &mut Progress) -> Result<(), TransferError> {
        let mut haves = Vec::new();
        let mut total = 0;
        for (index, entry) in (0..).zip(self.receiving.entries()) {
            total += entry.size_bytes;
            if let Some((bytes, hash)) = target.look(index, entry)? {
                haves.push((index, bytes, hash));
            }
        }
        progress.begin(total);
        for entry in self.receiving.entries() {
            if entry.kind == EntryKind::Folder {
                target.make_folder(&entry.path)?;
            }
        }
        let mut words: Vec<_> =
            haves.into_iter().map(|(index, bytes, hash)| self.receiving.have(index, bytes, hash)).collect();
        words.push(self.receiving.start());
        self.say(&words)
    }

    fn say(&mut self, records: &[Record<'_>]) -> Result<(), TransferError> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        self.writer.write_all(&bytes).and_then(|()| self.writer.flush()).map_err(TransferError::Stream)
    }
}

fn entry(receiving: &Receiving, index: u32) -> &super::protocol::Entry {
    &receiving.entries()[usize::try_from(index).expect("an index that was just accepted")]
}

fn public_reason(error: &super::error::TargetError) -> &'static str {
    use super::error::TargetError;

    match error {
        TargetError::Full { .. } => "the receiver's disk is full",
        TargetError::Exists { .. } => "the receiver has another file of that name",
        TargetError::Link { .. } | TargetError::InTheWay { .. } => "something is in the way at the receiver",
        TargetError::Mismatch { .. } => "a file did not arrive as it was sent",
        TargetError::Busy { .. } => "another process receives the same file there",
        TargetError::Io { .. } => "the receiver cannot write",
    }
}

/// As much as the network hands over at a time.
const BUFFER_BYTES: usize = 256 << 10;
