use std::time::{Duration, Instant};

/// The rest of a write that did not fill a batch of datagrams: it waits a moment for the next write to fill it up, since
/// sending a few datagrams costs about as much as sending a batch of them.
///
/// Only what follows a full batch of the same write waits, so a small write goes out at once; and anything but another
/// write sends it.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Written and not sent yet, about: the engine does not tell, and what comes with the bytes is estimated.
    unsent: u64,
    /// Nothing but writes happened since the last full batch.
    may_wait: bool,
    /// Until when it waits at most.
    due: Option<Instant>,
}

/// How much one system call takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) segments: usize,
    pub(super) segment_bytes: u16,
}

impl Tail {
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.unsent = self.unsent.saturating_add(bytes as u64);
        self.may_wait = false;
    }

    /// Whether the next transmission is to wait. After a full batch; called before each.
    pub(super) fn waits(&mut self, now: Instant, batch: Batch) -> bool {
        if !self.may_wait || self.unsent >= batch.payload() / SHORT_PART {
            return false;
        }
        // Even if nothing seems to wait: it is an estimate.
        self.due.get_or_insert(now + LONGEST_WAIT);
        true
    }

    /// So many bytes left for the kernel.
    pub(super) fn sent(&mut self, bytes: usize, batch: Batch) {
        self.due = None;
        let full = batch.segments * usize::from(batch.segment_bytes.saturating_sub(SLACK));
        self.may_wait = bytes >= full;
        // A batch that is not full takes all there is, or all that the windows and the pacing allow.
        self.unsent = if self.may_wait { self.unsent.saturating_sub(batch.payload()) } else { 0 };
    }

    /// There is nothing to send, or leave to send it.
    pub(super) fn nothing_to_send(&mut self) {
        *self = Self::default();
    }

    /// It goes with the next transmission.
    pub(super) fn release(&mut self) {
        self.may_wait = false;
        self.due = None;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Batch {
    /// Bytes of a stream in a full one.
    fn payload(self) -> u64 {
        self.segments as u64 * u64::from(self.segment_bytes.saturating_sub(OVERHEAD))
    }
}

/// Well below what a person or a protocol notices, and long for a writer that goes on.
const LONGEST_WAIT: Duration = Duration::from_millis(1);
/// More than this part of a batch is worth a system call of its own.
const SHORT_PART: u64 = 2;
/// Header, tag and frame header of a packet (RFC 9000 §17.3.1, §19.8), with an id of 8 bytes.
const OVERHEAD: u16 = 36;
/// Packets stay so much below the limit when a field of variable length does not fit.
const SLACK: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: Batch = Batch { segments: 10, segment_bytes: 1_036 };

    /// Any instant will do: the tail only adds to it.
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Sends as a driver would; tells how many batches went.
    fn transmit(tail: &mut Tail, now: Instant, mut queued: usize) -> usize {
        let mut batches = 0;
        while !tail.waits(now, BATCH) && queued > 0 {
            let payload = queued.min(10_000);
            tail.sent(payload + payload.div_ceil(1_000) * 36, BATCH);
            queued -= payload;
            batches += 1;
        }
        batches
    }

    #[test]
    fn a_small_write_goes_at_once() {
        let (mut tail, now) = (Tail::default(), start());
        tail.wrote(64);
        assert_eq!((transmit(&mut tail, now, 64), tail.due()), (1, None));
    }

    #[test]
    fn a_short_rest_waits_for_the_next_write_and_no_longer_than_a_millisecond() {
        let (mut tail, now) = (Tail::default(), start());
        tail.wrote(10_500);
        assert_eq!((transmit(&mut tail, now, 10_500), tail.due()), (1, Some(now + LONGEST_WAIT)));
        let later = now + LONGEST_WAIT / 2;
        tail.wrote(10_000);
        assert_eq!(transmit(&mut tail, later, 10_500), 1);
        assert_eq!(tail.due(), Some(later + LONGEST_WAIT), "what waited first is gone");
        tail.release();
        assert!(!tail.waits(later, BATCH));
        assert_eq!((transmit(&mut tail, later, 500), tail.due()), (1, None));
    }

    #[test]
    fn a_small_write_takes_along_what_waits() {
        let (mut tail, now) = (Tail::default(), start());
        tail.wrote(10_500);
        transmit(&mut tail, now, 10_500);
        tail.wrote(64);
        assert_eq!((transmit(&mut tail, now, 564), tail.due()), (1, None));
    }

    #[test]
    fn a_long_rest_does_not_wait() {
        let (mut tail, now) = (Tail::default(), start());
        tail.wrote(16_000);
        assert_eq!((transmit(&mut tail, now, 16_000), tail.due()), (2, None));
    }
}
