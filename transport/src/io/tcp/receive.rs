//! The reading half of a TCP stream.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    TcpConnection,
    socket::{AppliedTimeout, LITTLE_BYTES, Little, Patience},
};
use crate::{
    StreamError,
    io::{lock::Lock as _, pool::BUFFER_BYTES},
    protocol::{
        tls::{self, Progress, RECORD_OVERHEAD_BYTES},
        verdict::Verdict,
    },
};

/// What was received and not yet read; guarded by the `receive` lock. An idle stream holds nothing here: it receives into
/// its caller's stack, and only what did not end with a record, or comes in bulk, into a buffer of the pool.
#[derive(Debug)]
pub(super) struct Receive {
    /// Records as they came, in `start..end`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The buffer begins with a whole record.
    record: bool,
    /// Plaintext that did not fit the caller's buffer, from `spill_start` on.
    spill: Vec<u8>,
    spill_start: usize,
    /// Above 0 while so much came lately that small buffers would cost more system calls.
    bulk: u32,
    /// An early stream's verdict is still to come.
    unjudged: bool,
    peer_ended: bool,
    /// The stream is in a set, which tells of new input: a `recv` that gave less than there was room for has emptied the
    /// socket, and needs no second one to say so.
    trusts_short_reads: bool,
    /// Such a `recv` was the last.
    drained: bool,
    timeout: AppliedTimeout,
}

impl Receive {
    /// `timeout`: what the socket has from the handshake.
    pub(super) fn new(incoming: Vec<u8>, plaintext: Vec<u8>, early: bool, timeout: Option<Duration>) -> Self {
        let end = incoming.len();
        Self {
            record: tls::holds_record(&incoming),
            buffer: incoming.into_boxed_slice(),
            start: 0,
            end,
            spill: plaintext,
            spill_start: 0,
            bulk: 0,
            unjudged: early,
            peer_ended: false,
            trusts_short_reads: false,
            drained: false,
            timeout: AppliedTimeout::left_over(timeout),
        }
    }

    /// Joins or leaves a set.
    pub(super) fn set_watched(&mut self, watched: bool) {
        self.trusts_short_reads = watched && !cfg!(windows); // There only a call that would block asks for the next event.
        self.drained = false;
    }

    /// The set saw new input; `last` when the end may have come with it, which only a further `recv` shows.
    pub(super) fn note_readable(&mut self, last: bool) {
        self.drained = false;
        self.trusts_short_reads &= !last;
    }

    /// Whether a read may give something without the socket.
    pub(super) fn has_buffered(&self) -> bool {
        self.record || self.spill_start < self.spill.len() || self.peer_ended
    }

    /// Whether the peer has said that nothing more comes.
    pub(super) fn has_peer_ended(&self) -> bool {
        self.peer_ended
    }

    /// Whether an early stream's verdict is still to come.
    pub(super) fn is_unjudged(&self) -> bool {
        self.unjudged
    }

    /// Reads, by the stream's own timeout or until a deadline.
    pub(super) fn read(
        &mut self,
        stream: &TcpConnection,
        buffer: &mut [u8],
        deadline: Option<Instant>,
    ) -> Result<usize, StreamError> {
        let mut patience = None;
        loop {
            if self.unjudged && !self.spill.is_empty() {
                self.judge(stream)?;
            }
            if !self.unjudged && self.spill_start < self.spill.len() {
                return Ok(self.read_spill(buffer));
            }
            let mut output = Output::new(buffer, &mut self.spill, self.unjudged);
            if self.record {
                let input = &mut self.buffer[self.start..self.end];
                let decrypted = decrypt(stream, input, &mut output)?;
                let filled = output.filled;
                self.note_decrypted(stream, decrypted);
                if filled > 0 {
                    return Ok(filled);
                }
                continue;
            }
            if self.peer_ended {
                return if self.unjudged { Err(stream.fail(StreamError::UnexpectedEof)) } else { Ok(0) };
            }
            let left = match patience {
                None => match stream.begin_read(deadline)? {
                    Some(patience) => patience,
                    None => return Ok(0),
                },
                Some(patience) => Patience::rest(patience).ok_or(StreamError::TimedOut)?,
            };
            patience = Some(left);
            match self.receive(stream, buffer, left) {
                Ok(0) => {}
                // Our own side shut this direction meanwhile.
                Err(StreamError::Closed) if stream.has_shut_reading() => return Ok(0),
                received => return received,
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

    /// One `recv`, and what it brought decrypted into the caller's buffer.
    fn receive(
        &mut self,
        stream: &TcpConnection,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<usize, StreamError> {
        if self.drained && self.trusts_short_reads {
            return Err(self.would_block(stream));
        }
        if self.start == self.end && self.bulk == 0 {
            self.receive_little(stream, buffer, patience)
        } else {
            self.receive_much(stream, patience)?;
            Ok(0)
        }
    }

    /// Into the stack: most messages are small, and a stream that waits for the next one holds no memory for it.
    fn receive_little(
        &mut self,
        stream: &TcpConnection,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<usize, StreamError> {
        let mut little = Little::new();
        let received = match stream.socket.receive_little(&mut little, patience, &mut self.timeout) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(not_received(stream, &error, patience)),
        };
        self.note_received(stream, received.len(), LITTLE_BYTES)?;
        if received.len() == LITTLE_BYTES {
            self.bulk = BULK_READS;
        }
        let mut output = Output::new(buffer, &mut self.spill, self.unjudged);
        let decrypted = decrypt(stream, received, &mut output)?;
        let filled = output.filled;
        let rest = &received[decrypted.used..];
        if !rest.is_empty() && !decrypted.ended {
            self.buffer = stream.shared.pool.take();
            self.buffer[..rest.len()].copy_from_slice(rest);
            (self.start, self.end) = (0, rest.len());
        }
        self.record = decrypted.record;
        self.peer_ended = decrypted.ended;
        Ok(filled)
    }

    /// Into a large buffer, behind what is there.
    fn receive_much(&mut self, stream: &TcpConnection, patience: Patience) -> Result<(), StreamError> {
        if self.buffer.len() < BUFFER_BYTES {
            let smaller = std::mem::replace(&mut self.buffer, stream.shared.pool.take());
            let rest = &smaller[self.start..self.end];
            self.buffer[..rest.len()].copy_from_slice(rest);
            (self.start, self.end) = (0, rest.len());
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let room = &mut buffer[self.end..];
        let room_bytes = room.len();
        let received = stream.socket.receive(room, patience, &mut self.timeout);
        // Out of patience it may have been given back; what is held here is the one to keep, unless the stream is idle.
        self.buffer = buffer;
        let received = match received {
            Ok(received) => self.note_received(stream, received, room_bytes).map(|()| received),
            Err(error) => Err(not_received(stream, &error, patience)),
        };
        match received {
            Ok(received) => {
                self.bulk = if received < LITTLE_BYTES { self.bulk.saturating_sub(1) } else { BULK_READS };
                self.end += received;
                self.record = tls::holds_record(&self.buffer[self.start..self.end]);
                Ok(())
            }
            Err(StreamError::WouldBlock) => Err(self.would_block(stream)),
            Err(error) => Err(error),
        }
    }

    /// So much has come, into so much room.
    fn note_received(
        &mut self,
        stream: &TcpConnection,
        received: usize,
        room: usize,
    ) -> Result<(), StreamError> {
        if received == 0 {
            return Err(stream.end_without_notice());
        }
        self.drained = received < room;
        Ok(())
    }

    fn note_decrypted(&mut self, stream: &TcpConnection, decrypted: Decrypted) {
        self.start += decrypted.used;
        self.record = decrypted.record;
        self.peer_ended |= decrypted.ended;
        if self.start == self.end || self.peer_ended {
            (self.start, self.end) = (0, 0);
            if self.bulk == 0 || self.peer_ended {
                self.give_back(stream);
            }
        }
    }

    /// The stream is idle now, and keeps no more than the beginning of a record, if there is one.
    fn would_block(&mut self, stream: &TcpConnection) -> StreamError {
        if self.start == self.end {
            self.give_back(stream);
        } else if self.buffer.len() == BUFFER_BYTES {
            let rest = self.buffer[self.start..self.end].into();
            (self.start, self.end) = (0, self.end - self.start);
            let buffer = std::mem::replace(&mut self.buffer, rest);
            stream.shared.pool.give_back(buffer);
        }
        StreamError::WouldBlock
    }

    fn give_back(&mut self, stream: &TcpConnection) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.len() == BUFFER_BYTES {
            stream.shared.pool.give_back(buffer);
        }
    }
}

fn not_received(stream: &TcpConnection, error: &io::Error, patience: Patience) -> StreamError {
    if error.kind() == io::ErrorKind::WouldBlock && patience != Patience::None {
        StreamError::TimedOut
    } else {
        stream.receive_error(error)
    }
}

/// Where plaintext goes: to the caller, and what does not fit, or is not the caller's, into the spill.
struct Output<'a> {
    buffer: &'a mut [u8],
    filled: usize,
    spill: &'a mut Vec<u8>,
    spill_all: bool,
}

impl<'a> Output<'a> {
    fn new(buffer: &'a mut [u8], spill: &'a mut Vec<u8>, spill_all: bool) -> Self {
        Self { buffer, filled: 0, spill, spill_all }
    }

    fn take(&mut self, plaintext: &[u8]) {
        let fits = plaintext.len().min(self.room());
        self.buffer[self.filled..self.filled + fits].copy_from_slice(&plaintext[..fits]);
        self.filled += fits;
        self.spill.extend_from_slice(&plaintext[fits..]);
    }

    fn room(&self) -> usize {
        if self.spill_all { 0 } else { self.buffer.len() - self.filled }
    }
}

struct Decrypted {
    used: usize,
    /// A whole record stands behind what was used.
    record: bool,
    ended: bool,
}

/// Decrypts records where they lie: one, and further ones as long as each is whole and surely fits.
fn decrypt(
    stream: &TcpConnection,
    input: &mut [u8],
    output: &mut Output<'_>,
) -> Result<Decrypted, StreamError> {
    let mut used = 0;
    loop {
        let mut received_bytes = 0;
        let step = {
            // One record a hold, so that a writer in another thread never waits for more.
            let mut core = stream.core.hold();
            let step = core.tls.decrypt(&mut input[used..], &mut |plaintext| {
                received_bytes += plaintext.len() as u64;
                output.take(plaintext);
            });
            core.stats.received_bytes += received_bytes;
            step
        };
        let step = step.map_err(|error| stream.fail(StreamError::Protocol { reason: error.to_string() }))?;
        used += step.used;
        let rest = &input[used..];
        let record = step.progress == Progress::Record && tls::holds_record(rest);
        let fits = tls::record_length(rest)
            .is_some_and(|length| length.saturating_sub(RECORD_OVERHEAD_BYTES) <= output.room());
        if !(record && fits) || output.filled == 0 {
            return Ok(Decrypted { used, record, ended: step.progress == Progress::Ended });
        }
    }
}

/// So many reads in a row that the small buffer could have taken, and the stream goes back to it.
const BULK_READS: u32 = 64;
