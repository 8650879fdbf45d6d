use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef};

use super::UdpSocket;
use crate::protocol::quic::QuicEcn;

/// What only the holder of the crank needs: the buffers of one receive call.
pub(crate) struct Receiver {
    buffers: Vec<BytesMut>,
    meta: Vec<RecvMeta>,
    /// What is left of buffers that were handed over: usable again once nobody has a part of them.
    lent: Vec<BytesMut>,
}

/// One datagram, and where it came from.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) from: SocketAddr,
    /// The address of ours that it was sent to, where the system tells.
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Option<QuicEcn>,
    pub(crate) bytes: BytesMut,
}

impl Received {
    /// Whether it may begin a connection (RFC 9000 §17.2.2).
    pub(crate) fn is_initial(&self) -> bool {
        self.bytes.first().is_some_and(|first| first & 0xf0 == 0xc0)
    }
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self { buffers: Vec::new(), meta: vec![RecvMeta::default(); BATCH], lent: Vec::new() }
    }

    /// Takes one batch from the socket. `true`: it may have more.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, received: &mut Vec<Received>) -> io::Result<bool> {
        while self.buffers.len() < BATCH {
            // Zeroed memory of this size comes untouched from the system, and costs nothing until it is written to.
            self.buffers.push(BytesMut::zeroed(BUFFER_BYTES));
        }
        let count = {
            let mut slices: [IoSliceMut<'_>; BATCH] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            for (slice, buffer) in slices.iter_mut().zip(&mut self.buffers) {
                *slice = IoSliceMut::new(buffer);
            }
            socket.state.recv(UdpSockRef::from(&socket.socket), &mut slices, &mut self.meta)?
        };
        for index in 0..count {
            self.split(index, received);
        }
        Ok(count == BATCH)
    }

    fn split(&mut self, index: usize, received: &mut Vec<Received>) {
        let meta = self.meta[index];
        let stride = meta.stride.max(1);
        let one = |bytes| Received {
            from: meta.addr,
            to: meta.dst_ip,
            ecn: meta.ecn.and_then(|ecn| QuicEcn::from_bits(ecn as u8)),
            bytes,
        };
        if meta.len >= WORTH_LENDING_BYTES
            && let Some(fresh) = self.fresh()
        {
            let mut whole = std::mem::replace(&mut self.buffers[index], fresh);
            let mut filled = whole.split_to(meta.len);
            self.lent.push(whole);
            while !filled.is_empty() {
                received.push(one(filled.split_to(stride.min(filled.len()))));
            }
        } else {
            received.extend(
                self.buffers[index][..meta.len].chunks(stride).map(|bytes| one(BytesMut::from(bytes))),
            );
        }
    }

    /// A buffer to receive into: one that came back, or a new one while there are few.
    fn fresh(&mut self) -> Option<BytesMut> {
        for index in 0..self.lent.len() {
            let buffer = &mut self.lent[index];
            buffer.clear();
            if buffer.try_reclaim(BUFFER_BYTES) {
                let mut buffer = self.lent.swap_remove(index);
                buffer.resize(BUFFER_BYTES, 0);
                return Some(buffer);
            }
        }
        (self.lent.len() < MAX_LENT).then(|| BytesMut::zeroed(BUFFER_BYTES))
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Receiver").field("lent", &self.lent.len()).finish_non_exhaustive()
    }
}

/// Datagrams, or runs of them that the kernel has joined, a system call.
const BATCH: usize = if BATCH_SIZE < 32 { BATCH_SIZE } else { 32 };
/// What the kernel joins has at most this length.
const BUFFER_BYTES: usize = 64 << 10;
/// Below this, copying is cheaper than handing the buffer over; and a small part must not keep a whole buffer from use.
const WORTH_LENDING_BYTES: usize = 8 << 10;
/// Parts of so many buffers may wait for their readers; what comes then is copied. Bounds what a peer can pin by leaving
/// one byte of each unread: 4 MiB a transport.
const MAX_LENT: usize = 64;
