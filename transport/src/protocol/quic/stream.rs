mod head;

use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Connection, FinishError, ReadError, StreamId, VarInt, WriteError};

use super::gather::NO_ROUND;
use crate::{
    Refusal, StreamError,
    protocol::{preface::Preface, verdict::Verdict},
};

/// One bidirectional stream: first the exchange at its head, then the application's bytes.
///
/// ```text
/// dialer:    AwaitVerdict ──accepted──► Open          acceptor:  AwaitPreface ──► Judging ──accepted──► Open
///                 └───────refused────► Refused                        │              └──────refused───► Refused
///                                                                     └──cannot be read, refused at once──┘
/// ```
#[derive(Debug)]
pub(super) struct Stream {
    id: StreamId,
    head: Head,
    /// Our part of the exchange at the head, as far as it did not fit yet.
    unsent: Vec<u8>,
    send: Send,
    receive: Receive,
    /// Told of bytes to read, and not yet come back for all of them.
    pub(super) told_readable: bool,
    /// Nothing has come since a read found no more.
    pub(super) is_drained: bool,
    /// The round of answers that it takes part in, see [`super::gather::Gather`].
    pub(super) round: u32,
    /// Somebody has a handle to it, or is about to.
    pub(super) held: bool,
}

#[derive(Debug)]
enum Head {
    AwaitPreface { got: Vec<u8>, deadline: Instant },
    Judging,
    AwaitVerdict { got: Vec<u8> },
    Open,
    Refused(Refusal),
}

#[derive(Debug, PartialEq, Eq)]
enum Send {
    Open,
    /// The end is to be sent after what is unsent.
    Finishing,
    /// The end is sent.
    Finished,
    /// The peer has all of it, or we or the peer have thrown it away: nothing is left to do.
    Done(Option<StreamError>),
}

#[derive(Debug, PartialEq, Eq)]
enum Receive {
    Open,
    /// Nothing more comes: the peer's end was read, or a reset, or we stopped listening.
    Done(Option<StreamError>),
}

/// Why `read` gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// Nothing there yet; an event will tell.
    Blocked,
    Failed(StreamError),
}

/// Why `write` took nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteEnd {
    /// No room yet; an event will tell.
    Blocked,
    Failed(StreamError),
}

/// What a read brought.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: usize,
    /// The peer waits, or soon will, for leave to send more.
    pub(super) credit_due: bool,
    /// The end was found, for the first time.
    pub(super) ended: bool,
}

/// What reading at the head of a stream brought.
#[derive(Debug)]
pub(super) enum HeadEvent {
    Preface(Preface),
    Verdict(Verdict),
}

impl Stream {
    pub(super) fn dialled(id: StreamId, preface: Vec<u8>) -> Self {
        Self { held: true, ..Self::new(id, Head::AwaitVerdict { got: Vec::new() }, preface) }
    }

    pub(super) fn accepted(id: StreamId, deadline: Instant) -> Self {
        Self::new(id, Head::AwaitPreface { got: Vec::new(), deadline }, Vec::new())
    }

    fn new(id: StreamId, head: Head, unsent: Vec<u8>) -> Self {
        Self {
            id,
            head,
            unsent,
            send: Send::Open,
            receive: Receive::Open,
            told_readable: false,
            is_drained: false,
            round: NO_ROUND,
            held: false,
        }
    }

    /// Until when its preface must be there.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.head {
            Head::AwaitPreface { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }

    /// Whether the exchange at its head is over, so that its reader may have something.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.head, Head::Open)
    }

    /// Whether it can be forgotten: both directions are over.
    pub(super) fn is_over(&self) -> bool {
        matches!((&self.send, &self.receive), (Send::Done(_), Receive::Done(_)))
    }

    /// Whether bytes of ours or their end are still under way.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.send, Send::Finishing | Send::Finished)
    }

    /// Whether the peer has acknowledged everything up to the end.
    pub(super) fn is_acknowledged(&self) -> Option<Result<(), StreamError>> {
        match &self.send {
            Send::Done(None) => Some(Ok(())),
            Send::Done(Some(error)) => Some(Err(error.clone())),
            _ => None,
        }
    }

    pub(super) fn read(&mut self, connection: &mut Connection, buffer: &mut [u8]) -> Result<Read, ReadEnd> {
        if let Head::Refused(reason) = self.head {
            return Err(ReadEnd::Failed(StreamError::Refused(reason)));
        }
        match &self.receive {
            Receive::Done(None) => return Ok(Read { bytes: 0, credit_due: false, ended: false }),
            Receive::Done(Some(error)) => return Err(ReadEnd::Failed(error.clone())),
            Receive::Open if !matches!(self.head, Head::Open) => {
                self.told_readable = false;
                return Err(ReadEnd::Blocked);
            }
            // It has come for all there was, and would have been told of more.
            Receive::Open if self.is_drained => return Err(ReadEnd::Blocked),
            Receive::Open => {}
        }
        let mut filled = 0;
        let mut credit_due = false;
        match read_into(connection, self.id, buffer, &mut filled, &mut credit_due) {
            Ok(()) if filled < buffer.len() => self.receive = Receive::Done(None),
            Ok(()) => {}
            Err(ReadEnd::Blocked) => {
                (self.told_readable, self.is_drained) = (false, true);
                if filled == 0 {
                    return Err(ReadEnd::Blocked);
                }
            }
            Err(ReadEnd::Failed(error)) => {
                self.receive = Receive::Done(Some(error.clone()));
                if filled == 0 {
                    return Err(ReadEnd::Failed(error));
                }
            }
        }
        Ok(Read { bytes: filled, credit_due, ended: self.receive == Receive::Done(None) })
    }

    pub(super) fn write(&mut self, connection: &mut Connection, bytes: &[u8]) -> Result<usize, WriteEnd> {
        if let Head::Refused(reason) = self.head {
            return Err(WriteEnd::Failed(StreamError::Refused(reason)));
        }
        match &self.send {
            Send::Open => {}
            Send::Finishing | Send::Finished | Send::Done(None) => {
                return Err(WriteEnd::Failed(StreamError::Closed));
            }
            Send::Done(Some(error)) => return Err(WriteEnd::Failed(error.clone())),
        }
        if !self.send_head(connection) {
            return Err(WriteEnd::Blocked);
        }
        match connection.send_stream(self.id).write(bytes) {
            Ok(written) => Ok(written),
            Err(WriteError::Blocked) => Err(WriteEnd::Blocked),
            Err(WriteError::Stopped(code)) => Err(WriteEnd::Failed(self.stopped(connection, code))),
            Err(WriteError::ClosedStream) => Err(WriteEnd::Failed(StreamError::Closed)),
        }
    }

    /// Sends the end once everything before it is sent.
    pub(super) fn finish(&mut self, connection: &mut Connection) {
        if self.send == Send::Open {
            self.send = Send::Finishing;
            self.send_head(connection);
        }
    }

    fn finish_now(&mut self, connection: &mut Connection) {
        self.send = Send::Finished;
        match connection.send_stream(self.id).finish() {
            Ok(()) => {}
            Err(FinishError::Stopped(code)) => {
                self.stopped(connection, code);
            }
            Err(FinishError::ClosedStream) => self.send = Send::Done(Some(StreamError::Closed)),
        }
    }

    /// The peer has acknowledged the end.
    pub(super) fn acknowledged(&mut self) {
        if self.send == Send::Finished {
            self.send = Send::Done(None);
        }
    }

    /// The peer no longer listens.
    pub(super) fn stopped(&mut self, connection: &mut Connection, code: VarInt) -> StreamError {
        let error = reset_by_peer(code);
        self.throw_away(connection, code, error.clone());
        error
    }

    /// Throws away what was not acknowledged, and tells the peer.
    pub(super) fn reset(&mut self, connection: &mut Connection, code: u32) {
        self.throw_away(connection, VarInt::from_u32(code), StreamError::Closed);
    }

    /// Throws away a direction whose end nobody asked for, so that the peer does not take it for a whole stream.
    pub(super) fn cut_off(&mut self, connection: &mut Connection, code: u32) {
        if self.send == Send::Open {
            self.reset(connection, code);
        }
    }

    fn throw_away(&mut self, connection: &mut Connection, code: VarInt, error: StreamError) {
        if !matches!(self.send, Send::Done(_)) {
            // An error means that it was thrown away before.
            let _ = connection.send_stream(self.id).reset(code);
            self.unsent = Vec::new();
            self.send = Send::Done(Some(error));
        }
    }

    /// Stops listening, and tells the peer.
    pub(super) fn stop(&mut self, connection: &mut Connection, code: u32) {
        if self.receive == Receive::Open {
            // An error means that it was over before.
            let _ = connection.recv_stream(self.id).stop(VarInt::from_u32(code));
            self.receive = Receive::Done(Some(StreamError::Closed));
        }
    }
}

fn reset_by_peer(code: VarInt) -> StreamError {
    StreamError::Reset { code: u32::try_from(code.into_inner()).unwrap_or(u32::MAX) }
}

/// At most so many bytes of the stream; `None` at its end.
fn read_chunk(connection: &mut Connection, id: StreamId, most: usize) -> Result<Option<Bytes>, ReadEnd> {
    let mut stream = connection.recv_stream(id);
    let mut chunks = stream.read(true).map_err(|_| ReadEnd::Failed(StreamError::Closed))?;
    let chunk = chunks.next(most);
    // What must be sent for it goes out with the next transmission, which every caller polls for.
    let _ = chunks.finalize();
    match chunk {
        Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
        Err(ReadError::Blocked) => Err(ReadEnd::Blocked),
        Err(ReadError::Reset(code)) => Err(ReadEnd::Failed(reset_by_peer(code))),
    }
}

/// Fills the buffer as far as there are bytes; `Ok` with room left is the end of the stream.
fn read_into(
    connection: &mut Connection,
    id: StreamId,
    buffer: &mut [u8],
    filled: &mut usize,
    credit_due: &mut bool,
) -> Result<(), ReadEnd> {
    let mut stream = connection.recv_stream(id);
    let mut chunks = stream.read(true).map_err(|_| ReadEnd::Failed(StreamError::Closed))?;
    let result = loop {
        if *filled == buffer.len() {
            break Ok(());
        }
        match chunks.next(buffer.len() - *filled) {
            Ok(Some(chunk)) => {
                buffer[*filled..*filled + chunk.bytes.len()].copy_from_slice(&chunk.bytes);
                *filled += chunk.bytes.len();
            }
            Ok(None) => break Ok(()),
            Err(ReadError::Blocked) => break Err(ReadEnd::Blocked),
            Err(ReadError::Reset(code)) => break Err(ReadEnd::Failed(reset_by_peer(code))),
        }
    };
    *credit_due = chunks.finalize().should_transmit();
    result
}

/// The code of streams that were refused.
const REFUSED: u32 = 1;
