//! The path of the connection that a stream belongs to.

use std::{
    io,
    net::{self, SocketAddr},
    sync::Arc,
    time::Instant,
};

use super::QuicStream;
use crate::{
    StreamError,
    io::{
        crank::Waited,
        quic::{QuicIo, link::Core},
        slot::Slot,
        udp::UdpSocket,
    },
    path::Path,
    protocol::paths::UdpSource,
    transport::Shared,
};

impl QuicStream {
    pub(crate) fn path(&self) -> Path {
        self.link.look(|core| {
            let round_trip = Some(core.connection.figures().round_trip);
            Path { round_trip, ..core.ways.path() }
        })
    }

    /// Takes a socket over that has a hole to the peer, and tries it as a path.
    pub(crate) fn adopt_path(&self, socket: net::UdpSocket, remote: SocketAddr) -> io::Result<()> {
        let socket = self.shared.quic.adopt(&self.shared, socket)?;
        socket.note_punched(remote, false);
        self.offer_path(&socket, remote);
        // If the way was not wanted, the socket has no user.
        QuicIo::release(&self.shared, &socket);
        Ok(())
    }

    /// Tries that way, and takes it if it works.
    pub(crate) fn offer_path(&self, socket: &Arc<UdpSocket>, remote: SocketAddr) {
        self.change(|core, now| core.ways.offer(now, socket, remote));
    }

    /// The present way goes through a hole, perhaps to the peer's address at a relay.
    pub(crate) fn note_punched(&self, is_relayed: impl Fn(SocketAddr) -> bool) {
        self.link.look(|core| {
            let remote = core.ways.remote();
            core.ways.socket().note_punched(remote, is_relayed(remote));
        });
    }

    /// The way that the connection takes now.
    pub(crate) fn way(&self) -> UdpSource {
        self.link.look(|core| core.ways.way())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What ended the connection, if it is over.
    pub(crate) fn end_error(&self) -> Option<StreamError> {
        self.link.look(Core::end_error)
    }

    /// Has the slot woken when the path changes, until `unwatch_path`.
    pub(crate) fn watch_path(&self, slot: &Arc<Slot>) {
        self.link.read(|core| core.ways.watch(slot));
    }

    pub(crate) fn unwatch_path(&self, slot: &Arc<Slot>) {
        self.link.read(|core| core.ways.unwatch(slot));
    }

    /// Waits until the path is another than the one with so many changes before it.
    pub(crate) fn wait_path_change(&self, seen: u64, deadline: Instant) -> Result<Path, StreamError> {
        let slot = self.shared.crank.slot();
        self.watch_path(&slot);
        let result = loop {
            let path = self.path();
            if path.changes != seen {
                break Ok(path);
            }
            if let Some(error) = self.end_error() {
                break Err(error);
            }
            match self.shared.crank.wait(&slot, Some(deadline)) {
                Waited::Ready => {}
                Waited::TimedOut => break Err(StreamError::TimedOut),
                Waited::Closed => break Err(StreamError::Closed),
            }
        };
        self.unwatch_path(&slot);
        result
    }
}
