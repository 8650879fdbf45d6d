//! A connection apart from its streams.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{
    Link, QuicIo,
    link::{Core, Touch},
};
use crate::{
    PublicKey, StreamError,
    io::{
        crank::Waited,
        lock::Lock as _,
        slot::{Slot, Wakes},
        udp::UdpSocket,
    },
    path::Path,
    protocol::paths::UdpSource,
    transport::Shared,
};

/// A connection whose path is looked at or changed. It does not keep the connection open, only in memory.
#[derive(Debug)]
pub(crate) struct ConnectionRef {
    shared: Arc<Shared>,
    link: Arc<Link>,
    peer: PublicKey,
}

impl QuicIo {
    /// The connections with that peer that are up, whoever made them.
    pub(crate) fn connections(&self, peer: PublicKey) -> Vec<Arc<Link>> {
        let mut links = self.table.hold().links();
        links.retain(|link| {
            link.look(|core| core.connection.peer() == Some(peer) && core.connection.end().is_none())
        });
        links
    }
}

impl Link {
    pub(super) fn path(&self) -> Path {
        self.look(|core| {
            let round_trip = Some(core.connection.figures().round_trip);
            Path { round_trip, ..core.ways.path() }
        })
    }
}

impl ConnectionRef {
    pub(crate) fn new(shared: &Arc<Shared>, link: &Arc<Link>, peer: PublicKey) -> Self {
        Self { shared: shared.clone(), link: link.clone(), peer }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.peer
    }

    pub(crate) fn path(&self) -> Path {
        self.link.path()
    }

    /// What only the two ends can know.
    pub(crate) fn export(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Option<()> {
        self.link.look(|core| core.connection.export(output, label, context))
    }

    /// Tries that way, and takes it if it works.
    pub(crate) fn offer_path(&self, socket: &Arc<UdpSocket>, remote: SocketAddr) {
        let mut wakes = Wakes::default();
        self.link.change(&self.shared, &mut wakes, Touch::Flush, |core, now| {
            core.ways.offer(now, socket, remote);
        });
        wakes.fire();
    }

    /// The way that the connection takes now.
    pub(crate) fn way(&self) -> UdpSource {
        self.link.look(|core| core.ways.way())
    }

    /// Whether the peer does not answer by the present way, and no other is known.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.link.look(|core| core.ways.is_cut_off())
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
