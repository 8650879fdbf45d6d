use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::protocol::stun::TransactionId;
use crate::protocol::{Due, Retry, SocketIndex};

/// One way to the peer: from a socket of ours to an address of its.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) socket: SocketIndex,
    pub(super) remote: SocketAddr,
    /// Checks that are still to be sent.
    checks: Option<Retry>,
    /// Checks that may yet be answered, and when they were sent.
    asked: Vec<(TransactionId, Instant)>,
    /// The peer's packets arrive by this way.
    pub(super) heard: bool,
    /// Ours do, too, and it took so long there and back.
    pub(super) round_trip: Option<Duration>,
}

impl Path {
    /// A way to an address that the peer named; its checks begin at `first`.
    pub(super) fn to_candidate(socket: SocketIndex, remote: SocketAddr, first: Instant) -> Self {
        let checks = Some(Retry::with(first, FIRST_WAIT, CHECKS, FIRST_WAIT));
        Self { socket, remote, checks, asked: Vec::new(), heard: false, round_trip: None }
    }

    /// A way that the peer showed us by using it.
    pub(super) const fn unknown(socket: SocketIndex, remote: SocketAddr) -> Self {
        Self { socket, remote, checks: None, asked: Vec::new(), heard: false, round_trip: None }
    }

    /// An authentic packet of the peer came by this way. The first one is worth new checks, as they will pass the
    /// peer's NAT now. Tells whether it is the first.
    pub(super) fn hear(&mut self, now: Instant) -> bool {
        let first = !self.heard;
        if first {
            self.heard = true;
            self.begin_at(now);
        }
        first
    }

    /// Its checks begin then, anew.
    pub(super) fn begin_at(&mut self, first: Instant) {
        self.checks = Some(Retry::with(first, FIRST_WAIT, CHECKS, FIRST_WAIT));
    }

    /// When a check is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.checks.as_ref().map(Retry::timeout)
    }

    /// Whether a check is to be sent now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.checks.as_mut().map_or(Due::Nothing, |checks| checks.poll(now));
        if due == Due::GiveUp {
            self.checks = None;
        }
        due == Due::Send
    }

    /// Remembers a check.
    pub(super) fn ask(&mut self, now: Instant, transaction: TransactionId) {
        if self.asked.len() >= ASKED {
            self.asked.remove(0);
        }
        self.asked.push((transaction, now));
    }

    /// Takes in an answer; false if nothing was asked for which it is one.
    pub(super) fn answer(&mut self, now: Instant, transaction: TransactionId) -> bool {
        let Some((_, sent)) = self.asked.iter().find(|(asked, _)| *asked == transaction) else {
            return false;
        };
        self.round_trip = Some(now.saturating_duration_since(*sent));
        self.heard = true;
        self.checks = None;
        true
    }
}

/// Checks to an address that never answers: few, since a liar can name a victim's. Sent after 0, 100, 300, 700 and
/// 1,500 ms, which keeps every NAT open long enough for a peer that begins seconds later.
const CHECKS: u32 = 5;

/// Longer than most round trips within a continent.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// All checks that a way can have under way, those of a nomination included.
const ASKED: usize = 16;
