//! A socket of the operating system.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

use mio::{Interest, Registry, Token};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};

use super::hops;
use crate::{
    io::{direct::LONGEST_RECEIVE, lock::Lock as _, quic::Link},
    protocol::quic::{Outgoing, QuicEcn},
};

pub(super) struct Kernel {
    pub(super) socket: UdpSocket,
    pub(super) state: UdpSocketState,
    /// Only for telling the poll what we wait for; a duplicate of `socket`.
    polled: Mutex<Polled>,
    /// Whether connections wait for room.
    is_blocked: AtomicBool,
}

struct Polled {
    source: mio::net::UdpSocket,
    token: Option<Token>,
    /// Connections whose datagrams did not fit into the kernel's buffer.
    blocked: Vec<Arc<Link>>,
}

impl Kernel {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        for (set, what) in [
            (state.set_recv_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES), "receive"),
            (state.set_send_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES), "send"),
        ] {
            if let Err(error) = set {
                tracing::debug!(%error, what, "the kernel keeps its own buffer size");
            }
        }
        let source = mio::net::UdpSocket::from_std(socket.try_clone()?);
        let polled = Mutex::new(Polled { source, token: None, blocked: Vec::new() });
        Ok(Self { socket, state, polled, is_blocked: AtomicBool::new(false) })
    }

    pub(super) fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let mut polled = self.polled.hold();
        registry.register(&mut polled.source, token, Interest::READABLE)?;
        polled.token = Some(token);
        Ok(())
    }

    pub(super) fn unwatch(&self, registry: &Registry) -> Option<Token> {
        let mut polled = self.polled.hold();
        let token = polled.token.take()?;
        if let Err(error) = registry.deregister(&mut polled.source) {
            tracing::debug!(%error, "a UDP socket was not watched any more");
        }
        polled.blocked.clear();
        Some(token)
    }

    pub(super) fn wait_writable(&self, registry: &Registry, link: &Arc<Link>) {
        let mut polled = self.polled.hold();
        let Some(token) = polled.token else { return };
        if !polled.blocked.iter().any(|blocked| Arc::ptr_eq(blocked, link)) {
            polled.blocked.push(link.clone());
            self.is_blocked.store(true, Release);
        }
        // Room to write is reported only while somebody wants it: else each datagram sent would wake the poll.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.reregister(&mut polled.source, token, interest) {
            tracing::warn!(%error, "cannot wait for room in a UDP socket");
        }
    }

    pub(super) fn take_blocked(&self, registry: &Registry) -> Vec<Arc<Link>> {
        if !self.is_blocked.load(Acquire) {
            return Vec::new();
        }
        let mut polled = self.polled.hold();
        self.is_blocked.store(false, Release);
        if let Some(token) = polled.token
            && let Err(error) = registry.reregister(&mut polled.source, token, Interest::READABLE)
        {
            tracing::warn!(%error, "cannot go on watching a UDP socket");
        }
        std::mem::take(&mut polled.blocked)
    }

    pub(super) fn send(
        &self,
        to: SocketAddr,
        source_ip: Option<IpAddr>,
        outgoing: Outgoing,
        buffer: &[u8],
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: outgoing.ecn.and_then(to_udp_ecn),
            contents: &buffer[..outgoing.bytes],
            segment_size: outgoing.segment_bytes,
            src_ip: source_ip,
        };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            // It may tell of an earlier datagram that was given back, and does so once.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
            }
            sent => sent,
        }
    }

    pub(super) fn send_one(&self, bytes: &[u8], to: SocketAddr, hops: Option<u8>) -> io::Result<()> {
        match hops {
            Some(hops) => hops::send(&self.socket, bytes, to, hops),
            None => self.socket.send_to(bytes, to).map(drop),
        }
    }

    pub(super) fn set_waiting(&self, waits: bool) -> io::Result<()> {
        if waits {
            self.socket.set_read_timeout(Some(LONGEST_RECEIVE))?;
            self.socket.set_write_timeout(Some(LONGEST_RECEIVE))?;
        }
        self.socket.set_nonblocking(!waits)
    }
}

fn to_udp_ecn(ecn: QuicEcn) -> Option<quinn_udp::EcnCodepoint> {
    quinn_udp::EcnCodepoint::from_bits(ecn as u8)
}

/// Several windows of a fast path; the kernel gives what its administrator allows.
const BUFFER_BYTES: usize = 4 << 20;
