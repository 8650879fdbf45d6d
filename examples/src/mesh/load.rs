use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use crust::PublicKey;

use super::Histogram;
use crate::protocol::mesh::{MAX_MESSAGE, Mesh, SendError};

/// Sends each peer numbered messages at a steady rate for a time.
#[derive(Debug)]
pub(super) struct Load {
    ends: Instant,
    next: Instant,
    every: Duration,
    message: Vec<u8>,
    /// The last number that each peer was sent.
    sent: BTreeMap<PublicKey, u64>,
    ending: bool,
    /// Who has yet to be told that it is over.
    untold: Vec<PublicKey>,
    slowest_send: Duration,
}

/// Numbered messages as one peer sends them, from the moment it was up.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) lost: u64,
    pub(super) misplaced: u64,
    pub(super) latencies: Histogram,
    last: u64,
    /// The peer has said that there are no more.
    pub(super) over: bool,
}

impl Load {
    /// So many messages a second of so many bytes, from now on.
    pub(super) fn new(now: Instant, time: Duration, per_second: u32, size: usize) -> Self {
        Self {
            ends: now + time,
            next: now,
            every: Duration::from_secs(1) / per_second,
            message: vec![0x5a; size.clamp(HEAD, MAX_MESSAGE)],
            sent: BTreeMap::new(),
            ending: false,
            untold: Vec::new(),
            slowest_send: Duration::ZERO,
        }
    }

    /// Sends what is due, and at the end tells each peer how much it was.
    pub(super) fn handle_timeout(&mut self, now: Instant, mesh: &mut Mesh) {
        while !self.is_over() && self.next <= now {
            if !self.ending && self.next >= self.ends {
                self.ending = true;
                self.untold = mesh.up().collect();
            }
            if self.ending {
                let untold = std::mem::take(&mut self.untold);
                // A full queue has room later.
                self.untold = untold
                    .into_iter()
                    .filter(|peer| self.send(now, mesh, *peer) == Err(SendError::Full))
                    .collect();
            } else {
                for peer in mesh.up().collect::<Vec<_>>() {
                    let _ = self.send(now, mesh, peer); // counted by the mesh
                }
            }
            self.next += self.every;
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_over()).then_some(self.next)
    }

    pub(super) const fn is_over(&self) -> bool {
        self.ending && self.untold.is_empty()
    }

    pub(super) const fn slowest_send(&self) -> Duration {
        self.slowest_send
    }

    /// A peer is gone: over its next stream numbers begin anew.
    pub(super) fn forget(&mut self, peer: PublicKey) {
        self.sent.remove(&peer);
        self.untold.retain(|other| *other != peer);
    }

    fn send(&mut self, now: Instant, mesh: &mut Mesh, peer: PublicKey) -> Result<(), SendError> {
        let sent = self.sent.entry(peer).or_default();
        let number = if self.ending { *sent } else { *sent + 1 };
        self.message[0] = u8::from(self.ending);
        self.message[1..9].copy_from_slice(&number.to_be_bytes());
        self.message[9..HEAD].copy_from_slice(&micros_since_epoch().to_be_bytes());
        let begun = Instant::now();
        let result = mesh.send(now, peer, &self.message);
        self.slowest_send = self.slowest_send.max(begun.elapsed());
        if result.is_ok() {
            *sent = number;
        }
        result
    }
}

impl Arrivals {
    /// Takes a message, if it is one of a load.
    pub(super) fn take(&mut self, message: &[u8]) {
        let Some((head, _)) = message.split_first_chunk::<HEAD>() else { return };
        let number = |at: usize| head[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (last, sequence, sent_at) = (head[0] != 0, number(1), number(9));
        if last {
            self.lost += sequence.saturating_sub(self.last);
            self.last = 0;
            self.over = true;
        } else if sequence <= self.last {
            self.misplaced += 1;
        } else {
            self.lost += sequence - self.last - 1;
            self.last = sequence;
            self.over = false;
            self.latencies.add(micros_since_epoch().saturating_sub(sent_at));
        }
    }

    /// The peer is gone: over its next stream numbers begin anew.
    pub(super) const fn forget(&mut self) {
        self.last = 0;
        self.over = false;
    }
}

/// The clock that all processes of a machine share.
pub(crate) fn micros_since_epoch() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Whether it is the last, its number, and when it was sent.
pub(super) const HEAD: usize = 17;
