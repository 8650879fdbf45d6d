//! The path of the connection that a stream belongs to.

use std::{
    io,
    net::{self, SocketAddr},
    time::Instant,
};

use super::QuicStream;
use crate::{
    StreamError,
    io::quic::{ConnectionRef, QuicIo},
    path::Path,
};

impl QuicStream {
    /// The connection that it belongs to.
    pub(crate) fn connection(&self) -> ConnectionRef {
        ConnectionRef::new(&self.shared, &self.link, self.peer)
    }

    pub(crate) fn path(&self) -> Path {
        self.link.path()
    }

    /// Takes a socket over that has a hole to the peer, and tries it as a path.
    pub(crate) fn adopt_path(&self, socket: net::UdpSocket, remote: SocketAddr) -> io::Result<()> {
        let socket = self.shared.quic.adopt(&self.shared, socket)?;
        socket.note_punched(remote, false);
        self.connection().offer_path(&socket, remote);
        // If the way was not wanted, the socket has no user.
        QuicIo::release(&self.shared, &socket);
        Ok(())
    }

    /// The present way goes through a hole, perhaps to the peer's address at a relay.
    pub(crate) fn note_punched(&self, is_relayed: impl Fn(SocketAddr) -> bool) {
        self.link.look(|core| {
            let remote = core.ways.remote();
            core.ways.socket().note_punched(remote, is_relayed(remote));
        });
    }

    pub(crate) fn wait_path_change(&self, seen: u64, deadline: Instant) -> Result<Path, StreamError> {
        self.connection().wait_path_change(seen, deadline)
    }
}
