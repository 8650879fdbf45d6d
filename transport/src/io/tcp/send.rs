//! The writing half of a TCP stream.

use std::{
    io::{self, Write as _},
    time::Instant,
};

use super::{Core, TcpConnection, at_least_some};
use crate::{
    StreamError,
    io::{clock, lock::Lock as _},
    protocol::tls::MAX_PLAINTEXT_BYTES,
};

/// What was encrypted and not yet sent; guarded by the `send` lock. A record once encrypted must go out, so after a timeout
/// the rest stays here and goes first next time.
#[derive(Debug, Default)]
pub(super) struct Send {
    unsent: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl Send {
    pub(super) fn write(&mut self, stream: &TcpConnection, bytes: &[u8]) -> Result<usize, StreamError> {
        let deadline = stream.write_deadline();
        self.flush(stream, deadline)?;
        if self.ended || stream.ends.hold().write_shut {
            return Err(StreamError::Closed);
        }
        let mut buffer = stream.shared.pool.take();
        let (length, taken) = self.encrypt(stream, bytes, &mut buffer)?;
        let result = send_all(stream, &buffer[..length], deadline);
        if let Err((sent, _)) = &result {
            self.unsent = buffer[*sent..length].to_vec();
            self.sent = 0;
        }
        stream.shared.pool.give_back(buffer);
        match result {
            // What is taken will go out: only an end of the stream makes it an error.
            Ok(()) | Err((_, StreamError::TimedOut | StreamError::WouldBlock)) => Ok(taken),
            Err((_, error)) => Err(error),
        }
    }

    /// Fills the buffer with records; tells its length and how many bytes were taken.
    fn encrypt(
        &self,
        stream: &TcpConnection,
        bytes: &[u8],
        buffer: &mut [u8],
    ) -> Result<(usize, usize), StreamError> {
        let mut length = 0;
        let mut taken = 0;
        for fragment in bytes.chunks(MAX_PLAINTEXT_BYTES).take(RECORDS_PER_SEND) {
            // One record a hold, so that a reader in another thread never waits for more.
            let mut core = stream.core.hold();
            let written = core.tls.encrypt(fragment, &mut buffer[length..]);
            length +=
                written.map_err(|error| stream.fail(StreamError::Protocol { reason: error.to_string() }))?;
            core.stats.sent_bytes += fragment.len() as u64;
            taken += fragment.len();
        }
        Ok((length, taken))
    }

    /// Sends what an earlier call left.
    pub(super) fn flush(
        &mut self,
        stream: &TcpConnection,
        deadline: Option<Instant>,
    ) -> Result<(), StreamError> {
        stream.check()?;
        if self.unsent.is_empty() {
            return Ok(());
        }
        match send_all(stream, &self.unsent[self.sent..], deadline) {
            Ok(()) => {
                self.unsent = Vec::new();
                self.sent = 0;
                Ok(())
            }
            Err((sent, error)) => {
                self.sent += sent;
                Err(error)
            }
        }
    }

    /// Sends the end of our direction: `close_notify`, then FIN.
    pub(super) fn end(
        &mut self,
        stream: &TcpConnection,
        deadline: Option<Instant>,
    ) -> Result<(), StreamError> {
        if !self.ended {
            self.ended = true;
            let core = &mut *stream.core.hold();
            let rest = std::mem::take(&mut self.unsent).split_off(self.sent);
            self.sent = 0;
            self.unsent = closing_bytes(rest, core);
        }
        let unfinished = !self.unsent.is_empty();
        self.flush(stream, deadline)?;
        if unfinished {
            let _ = stream.socket().shutdown(std::net::Shutdown::Write);
        }
        Ok(())
    }

    /// What must still go out before the socket is closed.
    pub(super) fn last_bytes(&mut self, core: &mut Core) -> Vec<u8> {
        let rest = std::mem::take(&mut self.unsent).split_off(self.sent);
        if self.ended { rest } else { closing_bytes(rest, core) }
    }
}

/// The rest, what TLS has to say, and the end.
fn closing_bytes(mut rest: Vec<u8>, core: &mut Core) -> Vec<u8> {
    rest.append(&mut core.tls.take_replies());
    let mut record = [0; 64];
    match core.tls.end(&mut record) {
        Ok(length) => rest.extend_from_slice(&record[..length]),
        Err(error) => tracing::debug!(%error, "a stream ends without saying so"),
    }
    rest
}

/// Sends everything, or tells how much was sent before the error.
fn send_all(
    stream: &TcpConnection,
    bytes: &[u8],
    deadline: Option<Instant>,
) -> Result<(), (usize, StreamError)> {
    let mut socket = stream.socket();
    let mut sent = 0;
    let mut changed = false;
    let result = loop {
        if sent == bytes.len() {
            break Ok(());
        }
        match socket.write(&bytes[sent..]) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err((sent, stream.send_error(&error))),
        }
        // A partial send began the wait anew, so the next one gets what is left of the one deadline.
        if let Some(deadline) = deadline.filter(|_| sent < bytes.len()) {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                break Err((sent, StreamError::TimedOut));
            }
            changed = true;
            let _ = socket.set_write_timeout(Some(left));
        }
    };
    if changed {
        let timeout = stream.ends.hold().write_timeout;
        let _ = socket.set_write_timeout(at_least_some(timeout));
    }
    result
}

impl TcpConnection {
    fn send_error(&self, error: &io::Error) -> StreamError {
        if let Err(known) = self.check() {
            return known;
        }
        self.system_error(error)
    }
}

/// What fits a buffer of the pool beside what TLS has to say.
const RECORDS_PER_SEND: usize = 4;
