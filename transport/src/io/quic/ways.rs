//! The ways of one connection with their sockets: what [`Paths`] decides, done.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use nat_traversal::protocol::Seed;

use super::link::Turn;
use crate::{
    Scheme,
    io::{slot::Slot, udp::UdpSocket},
    path::Path,
    protocol::{
        paths::{Awaited, CheckKeys, Paths, UdpSource, Way},
        quic::{Outgoing, QuicConnection},
    },
};

/// Guarded by the connection's lock.
pub(super) struct Ways {
    paths: Paths,
    socket: Arc<UdpSocket>,
    remote: SocketAddr,
    local: Option<IpAddr>,
    /// The sockets of all ways, counted as used.
    sockets: Vec<Arc<UdpSocket>>,
    /// How often the way has changed.
    moves: u64,
    /// Whoever waits for a change.
    watchers: Vec<Arc<Slot>>,
}

impl Ways {
    pub(super) fn new(
        socket: &Arc<UdpSocket>,
        remote: SocketAddr,
        local: Option<IpAddr>,
        follows: bool,
        seed: Seed,
    ) -> Self {
        let source = UdpSource { socket: socket.number(), addr: remote };
        socket.connection_begins();
        Self {
            paths: Paths::new(Way { source, local }, follows, seed),
            socket: socket.clone(),
            remote,
            local,
            sockets: vec![socket.clone()],
            moves: 0,
            watchers: Vec::new(),
        }
    }

    pub(super) fn connected(&mut self, keys: Option<CheckKeys>) {
        if let Some(keys) = keys {
            self.paths.connected(keys);
        }
    }

    pub(super) fn socket(&self) -> &Arc<UdpSocket> {
        &self.socket
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, socket: &Arc<UdpSocket>, way: Way, bytes: usize) {
        self.paths.handle_datagram(now, way, bytes);
        if way.source != self.paths.active().source {
            self.hold_socket(socket);
        }
    }

    pub(super) fn handle_check(&mut self, now: Instant, socket: &Arc<UdpSocket>, way: Way, bytes: &[u8]) {
        if self.paths.handle_check(now, way, bytes) {
            self.hold_socket(socket);
            self.local = self.paths.active().local;
        }
    }

    /// Tries another way, and takes it if it works.
    pub(super) fn offer(&mut self, now: Instant, socket: &Arc<UdpSocket>, remote: SocketAddr) {
        let source = UdpSource { socket: socket.number(), addr: remote };
        self.paths.offer(now, Way { source, local: None });
        self.local = self.paths.active().local;
        self.hold_socket(socket);
    }

    fn hold_socket(&mut self, socket: &Arc<UdpSocket>) {
        let known = self.sockets.iter().any(|known| Arc::ptr_eq(known, socket));
        if !known && self.paths.uses(socket.number()) {
            socket.connection_begins();
            self.sockets.push(socket.clone());
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, awaited: Awaited) {
        self.paths.handle_timeout(now, awaited);
    }

    /// Whether the peer does not answer by the present way, and no other is known.
    pub(super) fn is_cut_off(&self) -> bool {
        self.paths.is_cut_off()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.paths.poll_timeout()
    }

    /// Sends what the checks ask for, and goes another way if that is decided.
    pub(super) fn settle(&mut self, connection: &mut QuicConnection, turn: &mut Turn<'_>) {
        while let Some((way, bytes)) = self.paths.poll_transmit() {
            let Some(socket) = self.find(way.source.socket) else { continue };
            let outgoing = Outgoing { bytes: bytes.len(), segment_bytes: None, ecn: None };
            if let Err(error) = socket.send(way.source.addr, way.local, outgoing, &bytes) {
                tracing::debug!(%error, to = %way.source.addr, "a path check was not sent");
            }
        }
        if self.paths.poll_answered_again() {
            connection.resume(turn.now);
        }
        if self.paths.poll_cut_off() {
            tracing::debug!(remote = %self.remote, "a connection is cut off");
            turn.left.path_news = true;
        }
        while let Some(moved) = self.paths.poll_move() {
            turn.left.path_news = true;
            let Some(socket) = self.find(moved.to.source.socket).cloned() else { continue };
            tracing::debug!(from = %self.remote, to = %moved.to.source.addr, "a connection takes another path");
            (self.socket, self.remote, self.local) = (socket, moved.to.source.addr, moved.to.local);
            self.moves += 1;
            connection.path_changed(turn.now, moved.same_path);
            for slot in &self.watchers {
                turn.wakes.push(slot);
            }
            let paths = &self.paths;
            self.sockets.retain(|socket| {
                let used = paths.uses(socket.number());
                if !used {
                    socket.connection_ends();
                    turn.left.released.push(socket.clone());
                }
                used
            });
        }
    }

    fn find(&self, number: usize) -> Option<&Arc<UdpSocket>> {
        self.sockets.iter().find(|socket| socket.number() == number)
    }

    /// Sends datagrams of the connection by the present way.
    pub(super) fn send(&mut self, now: Instant, outgoing: Outgoing, buffer: &[u8]) -> io::Result<()> {
        self.paths.sent(now);
        let sent = self.socket.send(self.remote, self.local, outgoing, buffer);
        match sent {
            // Our address may be gone, as after a change of network; the system then knows a better one.
            Err(error) if self.local.is_some() && error.kind() != io::ErrorKind::WouldBlock => {
                self.local = None;
                self.paths.forget_local();
                self.socket.send(self.remote, None, outgoing, buffer)
            }
            sent => sent,
        }
    }

    /// This host has come into another network, and has these addresses there.
    pub(super) fn network_changed(
        &mut self,
        now: Instant,
        addresses: &[IpAddr],
        connection: &mut QuicConnection,
    ) {
        if self.remote.ip().to_canonical().is_loopback() {
            return;
        }
        let is_gone = |local: IpAddr| !addresses.contains(&local.to_canonical());
        let moved = self.local.is_some_and(is_gone);
        self.paths.forget_locals(is_gone);
        self.local = self.paths.active().local;
        // The peer is to see at once where we are.
        connection.path_changed(now, !moved);
        self.paths.check_all(now);
    }

    /// Whether a relay carries the datagrams.
    pub(super) fn is_relayed(&self) -> bool {
        self.socket().kind_of(self.remote()) == crate::PathKind::Relayed
    }

    pub(super) fn way(&self) -> UdpSource {
        self.paths.active().source
    }

    /// The present way.
    pub(super) fn path(&self) -> Path {
        let bound = self.socket.local();
        Path {
            kind: self.socket.kind_of(self.remote),
            scheme: Scheme::Quic,
            local: self.local.map_or(bound, |ip| SocketAddr::new(ip, bound.port())),
            remote: self.remote,
            round_trip: None,
            changes: self.moves,
        }
    }

    /// Has the slot woken when the way changes, until `unwatch`.
    pub(super) fn watch(&mut self, slot: &Arc<Slot>) {
        self.watchers.push(slot.clone());
    }

    pub(super) fn unwatch(&mut self, slot: &Arc<Slot>) {
        self.watchers.retain(|known| !Arc::ptr_eq(known, slot));
    }

    /// Wakes whoever waits for a change: there will be none.
    pub(super) fn wake_watchers(&self, turn: &mut Turn<'_>) {
        for slot in &self.watchers {
            turn.wakes.push(slot);
        }
    }

    /// The sockets, which are not needed any more.
    pub(super) fn give_up(&mut self) -> Vec<Arc<UdpSocket>> {
        for socket in &self.sockets {
            socket.connection_ends();
        }
        std::mem::take(&mut self.sockets)
    }
}

impl fmt::Debug for Ways {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ways").field("paths", &self.paths).finish_non_exhaustive()
    }
}
