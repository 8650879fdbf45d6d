use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use super::{DATA_WAIT, REPETITIONS, SYN_WAIT, SegmentKind};

/// One connection, or an attempt at one.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) hops: Option<u8>,
    pub(super) state: State,
    /// Bytes sent and received.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// After how many bytes the other end has said that nothing follows.
    pub(super) fin: Option<u64>,
    unacknowledged: VecDeque<(u64, Vec<u8>)>,
    /// When to repeat what was not answered, and how often that was done.
    timer: Option<Instant>,
    repeated: u32,
}

/// ```text
///          SYN-ACK                          RFC 9293, section 3.3.2, without the states of closing
/// SynSent ─────────► Established
///    │ SYN               ▲ SYN-ACK, ACK or data
///    └────► SynReceived ─┘  (passive: begun by a SYN to a port that is listened on)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    SynSent,
    SynReceived { passive: bool },
    Established,
}

impl Connection {
    pub(super) fn new(
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        hops: Option<u8>,
        state: State,
    ) -> Self {
        Self {
            local,
            remote,
            hops,
            state,
            sent: 0,
            received: 0,
            fin: None,
            unacknowledged: VecDeque::new(),
            timer: Some(now + SYN_WAIT),
            repeated: 0,
        }
    }

    pub(super) fn set_state(&mut self, now: Instant, state: State) {
        self.state = state;
        self.repeated = 0;
        self.timer = (state != State::Established).then(|| now + SYN_WAIT);
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.timer
    }

    /// The segment for bytes to send.
    pub(super) fn send(&mut self, now: Instant, bytes: &[u8]) -> Option<SegmentKind> {
        if self.state != State::Established || bytes.is_empty() {
            return None;
        }
        let offset = self.sent;
        self.sent += bytes.len() as u64;
        self.unacknowledged.push_back((offset, bytes.to_vec()));
        self.timer.get_or_insert(now + DATA_WAIT);
        Some(SegmentKind::Data(offset, bytes.to_vec()))
    }

    /// Takes in bytes; false if they are not the next ones.
    pub(super) fn take(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let next = offset == self.received;
        if next {
            self.received += bytes.len() as u64;
        }
        next
    }

    pub(super) fn has_ended(&self) -> bool {
        self.fin == Some(self.received)
    }

    pub(super) fn acknowledge(&mut self, now: Instant, offset: u64) {
        let before = self.unacknowledged.len();
        self.unacknowledged.retain(|(begin, bytes)| begin + bytes.len() as u64 > offset);
        if self.unacknowledged.is_empty() {
            self.timer = None;
        }
        if self.unacknowledged.len() < before {
            self.repeated = 0;
            self.timer = self.timer.map(|_| now + DATA_WAIT);
        }
    }

    /// What to send again; `None` if that was done often enough.
    pub(super) fn repeat(&mut self, now: Instant) -> Option<Vec<SegmentKind>> {
        if self.repeated >= REPETITIONS {
            return None;
        }
        self.repeated += 1;
        let first = if self.state == State::Established { DATA_WAIT } else { SYN_WAIT };
        self.timer = Some(now + first * 2_u32.pow(self.repeated));
        Some(match self.state {
            State::SynSent => vec![SegmentKind::Syn],
            State::SynReceived { .. } => vec![SegmentKind::SynAck],
            State::Established => {
                let data = |(offset, bytes): &(u64, Vec<u8>)| SegmentKind::Data(*offset, bytes.clone());
                self.unacknowledged.iter().map(data).collect()
            }
        })
    }
}
