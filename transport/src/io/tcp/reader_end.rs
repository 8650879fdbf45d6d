use std::{
    fmt, io,
    sync::{Arc, Mutex},
};

use mio::{Interest, Token, net::TcpStream};

use super::TcpConnection;
use crate::{
    io::{
        forget::{Forgotten, forget},
        lock::Lock as _,
        sources::Source,
    },
    transport::Shared,
};

/// A reading half that was dropped while the writing half lives on. TCP cannot tell the peer, so the driver reads and forgets:
/// else the peer would stall in its writes, and with it whoever waits for it; and what lay unread when the last handle goes
/// would make the system answer by a RST, which destroys what is still on its way to the peer.
pub(crate) struct ReaderEnd {
    token: Token,
    /// The connection, by the number that the transport knows it by.
    number: u64,
    /// A handle of its own, for the poll.
    socket: Mutex<TcpStream>,
}

impl ReaderEnd {
    pub(super) fn watch(connection: &TcpConnection) -> io::Result<()> {
        let shared = &connection.shared;
        let mut socket = TcpStream::from_std(connection.duplicate()?);
        let mut sources = shared.sources.hold();
        let token = sources.reserve();
        if let Err(error) = shared.registry.register(&mut socket, token, Interest::READABLE) {
            sources.remove(token);
            return Err(error);
        }
        let end = Self { token, number: connection.number, socket: Mutex::new(socket) };
        sources.fill(token, Source::Reader(Arc::new(end)));
        Ok(())
    }

    /// Forgets what has come, and goes with the stream or at the peer's end. Tells whether to look again without an event.
    pub(crate) fn handle_ready(&self, shared: &Shared) -> bool {
        if shared.is_open(self.number) {
            match forget(&self.socket.hold(), false) {
                Ok((Forgotten::All, _)) => return false,
                Ok((Forgotten::Enough, _)) => return true,
                Ok((Forgotten::End, _)) | Err(_) => {}
            }
        }
        if let Err(error) = shared.registry.deregister(&mut *self.socket.hold()) {
            tracing::debug!(%error, "a stream that nobody reads was not watched any more");
        }
        shared.sources.hold().remove(self.token);
        false
    }
}

impl fmt::Debug for ReaderEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReaderEnd").field("token", &self.token).finish_non_exhaustive()
    }
}
