//! What ends the calls of a TCP stream, and what they return then.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    TcpConnection,
    socket::{Patience, Watch},
};
use crate::{StreamError, io::lock::Lock as _};

/// How much of the stream is over, and why, and how its calls wait.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// What every call from now on returns.
    pub(super) failed: Option<StreamError>,
    /// What every write from now on returns, while there may be something to read.
    pub(super) write_failed: Option<StreamError>,
    pub(super) read_shut: bool,
    pub(super) write_shut: bool,
    pub(super) read_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) nonblocking: bool,
    /// The poll has a handle of its own of the socket.
    pub(super) duplicated: bool,
    /// The reading half was dropped, and what comes is not yet thrown away.
    pub(super) unread: bool,
    /// How the system looks after the peer, if not as it usually does.
    pub(super) watch: Option<Watch>,
}

impl TcpConnection {
    /// How long a read may wait; `None` when our side has shut this direction.
    pub(super) fn begin_read(&self, deadline: Option<Instant>) -> Result<Option<Patience>, StreamError> {
        let ends = self.ends.hold();
        if let Some(error) = &ends.failed {
            return Err(error.clone());
        }
        Ok((!ends.read_shut).then(|| match deadline {
            Some(deadline) => Patience::until(deadline),
            None => Patience::new(ends.nonblocking, ends.read_timeout),
        }))
    }

    pub(super) fn begin_write(&self) -> Result<Patience, StreamError> {
        let mut ends = self.ends.hold();
        if std::mem::take(&mut ends.unread) {
            drop(ends);
            self.forget_input();
            ends = self.ends.hold();
        }
        if let Some(error) = ends.failed.as_ref().or(ends.write_failed.as_ref()) {
            return Err(error.clone());
        }
        if ends.write_shut {
            return Err(StreamError::Closed);
        }
        Ok(Patience::new(ends.nonblocking, ends.write_timeout))
    }

    pub(super) fn begin_flush(&self) -> Result<Patience, StreamError> {
        let ends = self.ends.hold();
        if let Some(error) = ends.failed.as_ref().or(ends.write_failed.as_ref()) {
            return Err(error.clone());
        }
        Ok(Patience::new(ends.nonblocking, ends.write_timeout))
    }

    /// Makes every later call return this error; the first one counts.
    pub(super) fn fail(&self, error: StreamError) -> StreamError {
        self.ends.hold().failed.get_or_insert(error).clone()
    }

    /// The kernel says that nothing more comes, and TLS knows of no end: we cut it off, or the peer did.
    pub(super) fn end_without_notice(&self) -> StreamError {
        if self.has_shut_reading() {
            return StreamError::Closed;
        }
        let known = {
            let ends = self.ends.hold();
            // A reset may have shown itself to a writer only.
            ends.write_failed.clone().filter(|error| *error != StreamError::Closed)
        };
        self.fail(known.unwrap_or(StreamError::UnexpectedEof))
    }

    pub(super) fn has_shut_reading(&self) -> bool {
        let ends = self.ends.hold();
        ends.read_shut && ends.failed.is_none()
    }

    pub(super) fn receive_error(&self, error: &io::Error) -> StreamError {
        if error.kind() == io::ErrorKind::WouldBlock {
            return StreamError::WouldBlock;
        }
        self.fail(self.system_error(error))
    }

    pub(super) fn send_error(&self, error: &io::Error) -> StreamError {
        if error.kind() == io::ErrorKind::WouldBlock {
            return StreamError::WouldBlock;
        }
        let error = self.system_error(error);
        if matches!(error, StreamError::PeerLost { .. }) {
            return self.fail(error);
        }
        let mut ends = self.ends.hold();
        if let Some(known) = &ends.failed {
            return known.clone();
        }
        // Our own shutdown cut the write off.
        let error = if ends.write_shut { StreamError::Closed } else { error };
        ends.write_failed.get_or_insert(error).clone()
    }

    /// What an error of a system call on an established stream means.
    pub(super) fn system_error(&self, error: &io::Error) -> StreamError {
        use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
        match error.kind() {
            // The kernel gave up waiting for an acknowledgement, and may name what kept its packets from arriving.
            TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown => StreamError::PeerLost {
                silent_for: self.watch().map_or(Duration::ZERO, |watch| watch.dead_after()),
            },
            kind => StreamError::Io { kind },
        }
    }
}
