//! The writing half of a TCP stream.

use std::{io, net::Shutdown};

use super::{
    Core, TcpConnection,
    socket::{AppliedTimeout, Patience},
};
use crate::{
    StreamError,
    io::lock::Lock as _,
    protocol::tls::{MAX_PLAINTEXT_BYTES, RECORD_OVERHEAD_BYTES, TlsError},
};

/// What was encrypted and not yet sent; guarded by the `send` lock. A record once encrypted must go out, so after a timeout
/// the rest stays here and goes first next time.
#[derive(Debug, Default)]
pub(super) struct Send {
    unsent: Vec<u8>,
    sent: usize,
    /// The end of our direction is encrypted.
    ended: bool,
    /// And with the kernel.
    end_sent: bool,
    timeout: AppliedTimeout,
}

impl Send {
    pub(super) fn write(&mut self, stream: &TcpConnection, bytes: &[u8]) -> Result<usize, StreamError> {
        let patience = stream.begin_write()?;
        self.flush(stream, patience)?;
        if self.ended {
            return Err(StreamError::Closed);
        }
        let little = if bytes.len() <= TINY_BYTES {
            self.write_little::<{ TINY_BYTES + RECORD_OVERHEAD_BYTES }>(stream, bytes, patience)
        } else if bytes.len() <= LITTLE_BYTES {
            self.write_little::<{ LITTLE_BYTES + RECORD_OVERHEAD_BYTES }>(stream, bytes, patience)
        } else {
            None
        };
        if let Some(written) = little {
            return written;
        }
        let mut buffer = stream.shared.pool.take();
        let encrypted = encrypt(stream, bytes, &mut buffer);
        let written = self.send(stream, encrypted, &buffer, patience);
        stream.shared.pool.give_back(buffer);
        written
    }

    /// By way of the stack; `None` when there is no room beside what TLS has to say itself.
    fn write_little<const ROOM: usize>(
        &mut self,
        stream: &TcpConnection,
        bytes: &[u8],
        patience: Patience,
    ) -> Option<Result<usize, StreamError>> {
        let mut little = [0; ROOM];
        match encrypt(stream, bytes, &mut little) {
            Err(TlsError::NoRoom { .. }) => None,
            encrypted => Some(self.send(stream, encrypted, &little, patience)),
        }
    }

    fn send(
        &mut self,
        stream: &TcpConnection,
        encrypted: Result<Encrypted, TlsError>,
        buffer: &[u8],
        patience: Patience,
    ) -> Result<usize, StreamError> {
        let Encrypted { length, taken } =
            encrypted.map_err(|error| stream.fail(StreamError::Protocol { reason: error.to_string() }))?;
        match send_all(stream, &buffer[..length], patience, &mut self.timeout) {
            Ok(()) => Ok(taken),
            Err((sent, error)) => {
                self.unsent = buffer[sent..length].to_vec();
                self.sent = 0;
                match error {
                    // What is taken will go out: only an end of the stream makes it an error.
                    StreamError::TimedOut | StreamError::WouldBlock => Ok(taken),
                    error => Err(error),
                }
            }
        }
    }

    /// Sends what an earlier call left.
    pub(super) fn flush(&mut self, stream: &TcpConnection, patience: Patience) -> Result<(), StreamError> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match send_all(stream, &self.unsent[self.sent..], patience, &mut self.timeout) {
            Ok(()) => {
                self.unsent = Vec::new();
                self.sent = 0;
                self.note_end_sent(stream);
                Ok(())
            }
            Err((sent, error)) => {
                self.sent += sent;
                Err(error)
            }
        }
    }

    /// Sends the end of our direction: `close_notify`, then FIN.
    pub(super) fn end(&mut self, stream: &TcpConnection, patience: Patience) -> Result<(), StreamError> {
        self.encrypt_end(&mut stream.core.hold());
        self.flush(stream, patience)
    }

    /// The same as far as it goes without waiting; tells whether it is done, or can never be.
    pub(super) fn end_now(&mut self, stream: &TcpConnection) -> bool {
        self.encrypt_end(&mut stream.core.hold());
        while self.sent < self.unsent.len() {
            match stream.socket.send_last(&self.unsent[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    stream.send_error(&error);
                    return true;
                }
            }
        }
        self.unsent = Vec::new();
        self.sent = 0;
        self.note_end_sent(stream);
        true
    }

    fn encrypt_end(&mut self, core: &mut Core) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.unsent.drain(..self.sent);
        self.sent = 0;
        self.unsent.append(&mut core.tls.take_replies());
        let mut record = [0; END_RECORD_BYTES];
        match core.tls.end(&mut record) {
            Ok(length) => self.unsent.extend_from_slice(&record[..length]),
            Err(error) => tracing::debug!(%error, "a stream ends without saying so"),
        }
    }

    fn note_end_sent(&mut self, stream: &TcpConnection) {
        if self.ended && !self.end_sent {
            self.end_sent = true;
            stream.socket.shutdown(Shutdown::Write);
        }
    }

    /// What must still go out before the socket is closed.
    pub(super) fn last_bytes(&mut self, core: &mut Core) -> Vec<u8> {
        self.encrypt_end(core);
        self.unsent.drain(..self.sent);
        std::mem::take(&mut self.unsent)
    }
}

struct Encrypted {
    length: usize,
    /// Bytes of the caller's that are in it.
    taken: usize,
}

/// Fills the buffer with records, at most [`RECORDS_PER_SEND`].
fn encrypt(stream: &TcpConnection, bytes: &[u8], buffer: &mut [u8]) -> Result<Encrypted, TlsError> {
    let mut encrypted = Encrypted { length: 0, taken: 0 };
    for fragment in bytes.chunks(MAX_PLAINTEXT_BYTES).take(RECORDS_PER_SEND) {
        // One record a hold, so that a reader in another thread never waits for more.
        let mut core = stream.core.hold();
        encrypted.length += core.tls.encrypt(fragment, &mut buffer[encrypted.length..])?;
        core.stats.sent_bytes += fragment.len() as u64;
        encrypted.taken += fragment.len();
    }
    Ok(encrypted)
}

/// Sends everything, or tells how much was sent before the error.
fn send_all(
    stream: &TcpConnection,
    bytes: &[u8],
    mut patience: Patience,
    applied: &mut AppliedTimeout,
) -> Result<(), (usize, StreamError)> {
    let mut sent = 0;
    loop {
        match stream.socket.send(&bytes[sent..], patience, applied) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience != Patience::None => {
                return Err((sent, StreamError::TimedOut));
            }
            Err(error) => return Err((sent, stream.send_error(&error))),
        }
        if sent == bytes.len() {
            return Ok(());
        }
        // A partial send begins the wait anew, so the next one gets what is left of the one deadline.
        patience = patience.rest().ok_or((sent, StreamError::TimedOut))?;
    }
}

/// What fits a buffer of the pool beside what TLS has to say.
const RECORDS_PER_SEND: usize = 4;
/// To clear room for more takes longer than all else that is done for so small a message, the system call apart.
const TINY_BYTES: usize = 256;
/// Up to here a record is made on the stack.
const LITTLE_BYTES: usize = 2 << 10;
/// A close_notify has 2 bytes (RFC 8446 §6).
const END_RECORD_BYTES: usize = 2 + RECORD_OVERHEAD_BYTES;
