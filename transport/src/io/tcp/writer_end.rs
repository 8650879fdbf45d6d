use std::{
    fmt, io,
    sync::{Arc, Mutex, Weak},
};

use mio::{Interest, Token, net::TcpStream};

use super::TcpConnection;
use crate::{
    io::{lock::Lock as _, sources::Source},
    transport::Shared,
};

/// A writing half that was dropped before its last bytes fitted the kernel, while the reading half lives on: the driver
/// sends them as room comes.
pub(crate) struct WriterEnd {
    token: Token,
    connection: Weak<TcpConnection>,
    /// A handle of its own, for the poll.
    socket: Mutex<TcpStream>,
}

impl WriterEnd {
    pub(super) fn watch(connection: &Arc<TcpConnection>) -> io::Result<()> {
        let shared = &connection.shared;
        let mut socket = TcpStream::from_std(connection.duplicate()?);
        let mut sources = shared.sources.hold();
        let token = sources.reserve();
        if let Err(error) = shared.registry.register(&mut socket, token, Interest::WRITABLE) {
            sources.remove(token);
            return Err(error);
        }
        let connection = Arc::downgrade(connection);
        sources.fill(token, Source::Writer(Arc::new(Self { token, connection, socket: Mutex::new(socket) })));
        Ok(())
    }

    /// Sends what fits, and goes when all is sent or the stream is gone, which then took the rest along.
    pub(crate) fn handle_ready(&self, shared: &Shared) {
        let done = self.connection.upgrade().is_none_or(|connection| connection.end_now());
        if done {
            if let Err(error) = shared.registry.deregister(&mut *self.socket.hold()) {
                tracing::debug!(%error, "the end of a stream was not watched any more");
            }
            shared.sources.hold().remove(self.token);
        }
    }
}

impl fmt::Debug for WriterEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WriterEnd").field("token", &self.token).finish_non_exhaustive()
    }
}
