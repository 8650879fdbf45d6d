//! The reading half of a TCP stream.

use std::{
    io::{self, Read as _},
    time::Instant,
};

use super::{TcpConnection, at_least_some};
use crate::{
    StreamError,
    io::{clock, lock::Lock as _},
    protocol::{
        tls::{MAX_PLAINTEXT_BYTES, Progress, TlsError},
        verdict::Verdict,
    },
};

/// What was received and not yet read; guarded by the `receive` lock.
#[derive(Debug)]
pub(super) struct Receive {
    /// Records as they came, in `start..end`. Empty while the stream is idle in a set.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Plaintext that did not fit the caller's buffer, from `spill_start` on.
    spill: Vec<u8>,
    spill_start: usize,
    /// Whole records may be in the buffer.
    records: bool,
    /// How many reads in a row would have done with the small buffer.
    small_reads: u32,
    /// An early stream's verdict is still to come.
    unjudged: bool,
    peer_ended: bool,
    /// The stream is in a set, which tells of new input: a `recv` that gave less than there was room for has emptied the
    /// socket, and needs no second one to say so.
    trusts_short_reads: bool,
    /// Such a `recv` was the last.
    drained: bool,
}

impl Receive {
    pub(super) fn new(incoming: Vec<u8>, plaintext: Vec<u8>, early: bool) -> Self {
        let end = incoming.len();
        Self {
            buffer: incoming,
            start: 0,
            end,
            spill: plaintext,
            spill_start: 0,
            records: end > 0,
            small_reads: 0,
            unjudged: early,
            peer_ended: false,
            trusts_short_reads: false,
            drained: false,
        }
    }

    /// Joins or leaves a set.
    pub(super) fn set_watched(&mut self, watched: bool) {
        self.trusts_short_reads = watched;
        self.drained = false;
    }

    /// The set saw new input; `last` when the end may have come with it, which only a further `recv` shows.
    pub(super) fn note_readable(&mut self, last: bool) {
        self.drained = false;
        self.trusts_short_reads &= !last;
    }

    /// Whether a read may give something without the socket.
    pub(super) fn has_buffered(&self) -> bool {
        self.records || self.spill_start < self.spill.len() || self.peer_ended
    }

    pub(super) fn read(&mut self, stream: &TcpConnection, buffer: &mut [u8]) -> Result<usize, StreamError> {
        self.read_with(stream, buffer, Limit::SocketTimeout)
    }

    /// Reads with a deadline of its own.
    pub(super) fn read_until(
        &mut self,
        stream: &TcpConnection,
        buffer: &mut [u8],
        deadline: Option<Instant>,
    ) -> Result<usize, StreamError> {
        self.read_with(stream, buffer, deadline.map_or(Limit::SocketTimeout, Limit::At))
    }

    fn read_with(
        &mut self,
        stream: &TcpConnection,
        buffer: &mut [u8],
        mut limit: Limit,
    ) -> Result<usize, StreamError> {
        let mut first = true;
        loop {
            if !self.unjudged && self.spill_start < self.spill.len() {
                return Ok(self.read_spill(buffer));
            }
            if self.records {
                let read = self.decrypt(stream, buffer)?;
                if self.unjudged {
                    self.judge(stream)?;
                } else if read > 0 {
                    return Ok(read);
                }
                continue;
            }
            if self.unjudged && !self.spill.is_empty() {
                self.judge(stream)?;
            }
            if self.peer_ended {
                return if self.unjudged { Err(stream.fail(StreamError::UnexpectedEof)) } else { Ok(0) };
            }
            self.receive(stream, &mut limit, first)?;
            first = false;
            if stream.ends.hold().read_shut {
                return Ok(0);
            }
        }
    }

    fn read_spill(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.spill[self.spill_start..];
        let taken = rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.spill_start += taken;
        if self.spill_start == self.spill.len() {
            self.spill = Vec::new();
            self.spill_start = 0;
        }
        taken
    }

    /// Decrypts records where they lie and copies them to the caller: one, and further ones as long as each surely fits.
    fn decrypt(&mut self, stream: &TcpConnection, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let mut filled = 0;
        while self.records {
            let (spill, unjudged) = (&mut self.spill, self.unjudged);
            let decrypted = {
                let mut core = stream.core.hold();
                let core = &mut *core;
                let before = filled;
                let decrypted = core.tls.decrypt(&mut self.buffer[self.start..self.end], &mut |plain| {
                    let fits = if unjudged { 0 } else { plain.len().min(buffer.len() - filled) };
                    buffer[filled..filled + fits].copy_from_slice(&plain[..fits]);
                    spill.extend_from_slice(&plain[fits..]);
                    filled += fits;
                });
                core.stats.received_bytes += (filled - before + spill.len()) as u64;
                decrypted
            };
            let protocol_error = |error: TlsError| StreamError::Protocol { reason: error.to_string() };
            let decrypted = decrypted.map_err(|error| stream.fail(protocol_error(error)))?;
            self.start += decrypted.used;
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            }
            self.records = decrypted.progress == Progress::Record && self.start < self.end;
            self.peer_ended |= decrypted.progress == Progress::Ended;
            if buffer.len() - filled < MAX_PLAINTEXT_BYTES {
                break;
            }
        }
        Ok(filled)
    }

    /// Reads the verdict of an early stream off the front of what came.
    fn judge(&mut self, stream: &TcpConnection) -> Result<(), StreamError> {
        match Verdict::decode(&self.spill) {
            Ok(Some((Verdict::Accepted, length))) => {
                self.spill.drain(..length);
                self.unjudged = false;
                Ok(())
            }
            Ok(Some((Verdict::Refused(reason), _))) => Err(stream.fail(StreamError::Refused(reason))),
            Ok(None) => Ok(()),
            Err(error) => Err(stream.fail(StreamError::Protocol { reason: error.to_string() })),
        }
    }

    /// One `recv`, behind what is there.
    fn receive(&mut self, stream: &TcpConnection, limit: &mut Limit, first: bool) -> Result<(), StreamError> {
        stream.check()?;
        if self.drained && self.trusts_short_reads {
            return Err(self.would_block());
        }
        self.make_room();
        let changed = limit.apply(stream, first)?;
        let mut socket = stream.socket();
        let received = loop {
            match socket.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        if changed {
            let timeout = stream.ends.hold().read_timeout;
            let _ = stream.socket().set_read_timeout(at_least_some(timeout));
        }
        match received {
            Ok(0) => self.handle_end(stream),
            Ok(received) => {
                self.drained = self.end + received < self.buffer.len();
                self.note_size(received);
                self.end += received;
                self.records = true;
                Ok(())
            }
            Err(error) => match stream.system_error(&error) {
                StreamError::WouldBlock => Err(self.would_block()),
                error => Err(error),
            },
        }
    }

    /// The stream is idle now, and keeps no more than the beginning of a record, if there is one.
    fn would_block(&mut self) -> StreamError {
        if self.start == self.end {
            self.buffer = Vec::new();
        } else if self.buffer.len() > SMALL_BYTES {
            self.buffer = self.buffer[self.start..self.end].to_vec();
            (self.start, self.end) = (0, self.buffer.len());
        }
        StreamError::WouldBlock
    }

    /// The kernel says that nothing more comes: by us, or from the peer without an end of the stream.
    fn handle_end(&mut self, stream: &TcpConnection) -> Result<(), StreamError> {
        stream.check()?;
        if stream.ends.hold().read_shut {
            return Ok(());
        }
        Err(stream.fail(StreamError::UnexpectedEof))
    }

    /// Room behind `end`: for a small record while records are small, else for several large ones.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() < SMALL_BYTES {
            self.buffer.resize(SMALL_BYTES, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.resize(LARGE_BYTES, 0);
        } else if self.small_reads > SHRINK_AFTER_READS && self.end == 0 {
            self.buffer.truncate(SMALL_BYTES);
            self.buffer.shrink_to_fit();
        }
    }

    fn note_size(&mut self, received: usize) {
        let small = received < SMALL_BYTES && self.buffer.len() > SMALL_BYTES;
        self.small_reads = if small { self.small_reads.saturating_add(1) } else { 0 };
        // A read that fills the buffer has more behind it.
        if self.end + received == self.buffer.len() && self.buffer.len() < LARGE_BYTES {
            self.buffer.resize(LARGE_BYTES, 0);
        }
    }
}

/// How long a read may take.
enum Limit {
    /// As the socket's own timeout says, counted from the first `recv` on.
    SocketTimeout,
    At(Instant),
}

impl Limit {
    /// Sets the socket's timeout where it is not what this read needs; tells whether it must be set back.
    fn apply(&mut self, stream: &TcpConnection, first: bool) -> Result<bool, StreamError> {
        if let (Self::SocketTimeout, true) = (&self, first) {
            // The one deadline of this call is known only when a record comes in pieces, so it is taken now.
            if let Some(deadline) = stream.read_deadline() {
                *self = Self::At(deadline);
            }
            return Ok(false);
        }
        let Self::At(deadline) = self else { return Ok(false) };
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(StreamError::TimedOut);
        }
        stream.socket().set_read_timeout(Some(left)).map_err(|error| super::io_error(&error))?;
        Ok(true)
    }
}

/// A record of a small message, and the next.
const SMALL_BYTES: usize = 2 << 10;
/// Four full records: what a fast sender puts into one segment train.
const LARGE_BYTES: usize = 72 << 10;
/// So many reads that the small buffer could have taken, and the large one is given up.
const SHRINK_AFTER_READS: u32 = 64;
