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
    /// How many of them the next call offers.
    batch: usize,
    large: Pool,
    small: Pool,
    /// Small datagrams are copied here one behind the other, since a block for each costs two allocations.
    piece: Option<BytesMut>,
}

/// Blocks of one size whose parts are handed over, and which are usable again once nobody has a part of them.
struct Pool {
    block_bytes: usize,
    /// What is left of blocks that were handed over.
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
        Self {
            buffers: Vec::new(),
            meta: vec![RecvMeta::default(); MOST_BATCH],
            batch: LEAST_BATCH,
            large: Pool::new(BUFFER_BYTES),
            small: Pool::new(PIECE_BYTES),
            piece: None,
        }
    }

    /// Takes one batch from the socket. `true`: it may have more.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, received: &mut Vec<Received>) -> io::Result<bool> {
        let offered = self.batch;
        let count = self.take(socket, offered, received)?;
        // Each buffer offered costs something, used or not.
        if count == offered {
            self.batch = (offered * 2).min(MOST_BATCH);
        } else if count < offered / 4 {
            self.batch = (offered / 2).max(LEAST_BATCH);
        }
        Ok(count == offered)
    }

    /// Takes one datagram from the socket, or several that the kernel has joined, and waits for it if the socket does.
    pub(crate) fn receive_one(
        &mut self,
        socket: &UdpSocket,
        received: &mut Vec<Received>,
    ) -> io::Result<usize> {
        self.take(socket, 1, received)
    }

    fn take(
        &mut self,
        socket: &UdpSocket,
        offered: usize,
        received: &mut Vec<Received>,
    ) -> io::Result<usize> {
        while self.buffers.len() < offered {
            // Zeroed memory of this size comes untouched from the system, and costs nothing until it is written to.
            self.buffers.push(BytesMut::zeroed(BUFFER_BYTES));
        }
        let count = {
            let mut slices: [IoSliceMut<'_>; MOST_BATCH] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            for (slice, buffer) in slices.iter_mut().zip(&mut self.buffers) {
                *slice = IoSliceMut::new(buffer);
            }
            let Some(kernel) = socket.kernel() else { return Ok(0) };
            let (udp, slices) = (UdpSockRef::from(&kernel.socket), &mut slices[..offered]);
            kernel.state.recv(udp, slices, &mut self.meta[..offered])?
        };
        for index in 0..count {
            self.split(index, received);
        }
        Ok(count)
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
            && let Some(fresh) = self.large.fresh()
        {
            let mut whole = std::mem::replace(&mut self.buffers[index], fresh);
            let mut filled = whole.split_to(meta.len);
            self.large.lent.push(whole);
            while !filled.is_empty() {
                received.push(one(filled.split_to(stride.min(filled.len()))));
            }
        } else {
            let Self { buffers, small, piece, .. } = self;
            received
                .extend(buffers[index][..meta.len].chunks(stride).map(|bytes| one(small.copy(piece, bytes))));
        }
    }
}

impl Pool {
    fn new(block_bytes: usize) -> Self {
        Self { block_bytes, lent: Vec::new() }
    }

    /// A block to write into, full of anything: one that came back, or a new one while there are few.
    fn fresh(&mut self) -> Option<BytesMut> {
        for index in 0..self.lent.len() {
            let block = &mut self.lent[index];
            block.clear();
            if block.try_reclaim(self.block_bytes) {
                let mut block = self.lent.swap_remove(index);
                block.resize(self.block_bytes, 0);
                return Some(block);
            }
        }
        (self.lent.len() < MAX_LENT).then(|| BytesMut::zeroed(self.block_bytes))
    }

    /// A copy of `bytes` within `piece`, or in a block of its own while all others are in use.
    fn copy(&mut self, piece: &mut Option<BytesMut>, bytes: &[u8]) -> BytesMut {
        if bytes.len() > self.block_bytes {
            return BytesMut::from(bytes);
        }
        if piece.as_ref().is_none_or(|piece| piece.capacity() < bytes.len()) {
            self.lent.extend(piece.take());
            *piece = self.fresh().map(|mut fresh| {
                fresh.clear();
                fresh
            });
        }
        match piece {
            Some(piece) => {
                piece.extend_from_slice(bytes);
                piece.split()
            }
            None => BytesMut::from(bytes),
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Receiver").field("lent", &self.large.lent.len()).finish_non_exhaustive()
    }
}

/// Datagrams, or runs of them that the kernel has joined, a system call.
const MOST_BATCH: usize = if BATCH_SIZE < 32 { BATCH_SIZE } else { 32 };
/// Where one comes at a time.
const LEAST_BATCH: usize = if MOST_BATCH < 4 { MOST_BATCH } else { 4 };
/// What the kernel joins has at most this length.
const BUFFER_BYTES: usize = 64 << 10;
/// Below this, copying is cheaper than handing the buffer over; and a small part must not keep a whole buffer from use.
const WORTH_LENDING_BYTES: usize = 8 << 10;
/// What small datagrams are copied to; one that waits for its reader keeps all of it.
const PIECE_BYTES: usize = 16 << 10;
/// Parts of so many blocks of a size may wait for their readers; what comes then is copied. Bounds what a peer can pin by
/// leaving one byte of each unread: 5 MiB a transport.
const MAX_LENT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unread_pins_no_more_than_its_bound_and_comes_back() {
        let (mut pool, mut piece) = (Pool::new(1_000), None);
        // One of a piece's datagrams stays, the others go.
        let kept: Vec<_> = (0..MAX_LENT * 20)
            .map(|number| pool.copy(&mut piece, &[number as u8; 100]))
            .enumerate()
            .filter_map(|(number, copy)| (number % 10 == 0).then_some(copy))
            .collect();
        assert_eq!((pool.lent.len(), piece.is_none()), (MAX_LENT, true));
        assert!(kept.iter().enumerate().all(|(at, copy)| **copy == [(at * 10) as u8; 100]));
        drop(kept);
        pool.copy(&mut piece, &[1; 100]);
        assert_eq!((pool.lent.len(), piece.is_some()), (MAX_LENT - 1, true));
        assert_eq!(
            pool.copy(&mut piece, &[2; 2_000]).len(),
            2_000,
            "what fits no piece is a block of its own"
        );
    }
}
