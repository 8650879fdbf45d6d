use std::time::{Duration, Instant};

/// Many small messages that came together are likely to be answered together: their answers are gathered into few
/// datagrams, since each datagram costs about as much as all the rest of an answer.
///
/// A *round* begins when a stream becomes readable, and others join it. While it awaits many readers, what they write is
/// held back; with the last of them who has written or waits again all goes at once. A round is over soon even if
/// somebody does not come, and with anything but a small write. So a lone write is never held back.
#[derive(Debug)]
pub(super) struct Gather {
    is_allowed: bool,
    /// Numbers the rounds: a stream notes the one that it takes part in.
    round: u32,
    /// Until when the present one goes on at most.
    until: Option<Instant>,
    /// What came in it: datagrams, and streams that have become readable; and those since the last look.
    datagrams: usize,
    woken: usize,
    fresh: usize,
    /// Readers that have not come back.
    awaited: usize,
    /// What is written is held back; so many bytes are.
    holds: bool,
    bytes: usize,
    /// A transmission was put off.
    owes: bool,
}

impl Gather {
    /// Without leave it never holds anything back: somebody must be there who looks when a round is due.
    pub(super) fn new(is_allowed: bool) -> Self {
        Self {
            is_allowed,
            round: NO_ROUND + 1,
            until: None,
            datagrams: 0,
            woken: 0,
            fresh: 0,
            awaited: 0,
            holds: false,
            bytes: 0,
            owes: false,
        }
    }

    pub(super) fn datagram_came(&mut self, now: Instant) {
        self.end_if_due(now);
        self.datagrams += 1;
    }

    /// A stream has become readable. What it has to note.
    pub(super) fn woke(&mut self) -> u32 {
        self.fresh += 1;
        self.round
    }

    /// All that came has been looked at.
    pub(super) fn looked(&mut self, now: Instant) {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh > 0 {
            self.until.get_or_insert(now + LONGEST_WAIT);
            self.woken += fresh;
            self.awaited += fresh;
            // Messages of many datagrams are no small ones.
            self.holds |= self.is_allowed && self.awaited >= MANY && self.datagrams <= 2 * self.woken;
        } else if self.until.is_none() {
            self.datagrams = 0;
        }
    }

    /// Somebody has written to a stream that noted this.
    pub(super) fn wrote(&mut self, noted: &mut u32, bytes: usize) {
        self.came_back(noted);
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes > SMALL_BYTES || self.bytes > MOST_BYTES {
            self.end();
        }
    }

    /// Whoever reads the stream that noted this has all that came for it.
    pub(super) fn came_back(&mut self, noted: &mut u32) {
        if std::mem::replace(noted, NO_ROUND) == self.round {
            self.awaited = self.awaited.saturating_sub(1);
            if self.awaited == 0 {
                self.end();
            }
        }
    }

    /// Whether a transmission is to be put off; called before each.
    pub(super) fn waits(&mut self, now: Instant) -> bool {
        self.end_if_due(now);
        self.owes = self.holds;
        self.owes
    }

    fn end_if_due(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.end();
        }
    }

    /// What was held back goes with the next transmission.
    pub(super) fn end(&mut self) {
        let (round, owes) = (self.round.wrapping_add(1).max(NO_ROUND + 1), self.owes);
        *self = Self { round, owes, fresh: self.fresh, ..Self::new(self.is_allowed) };
    }

    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// Whether something was held back in a round that is over.
    pub(super) fn owes(&self) -> bool {
        self.owes && !self.holds
    }

    /// When what is held back is to go.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until.filter(|_| self.holds)
    }
}

/// What a stream that takes part in no round has noted.
pub(super) const NO_ROUND: u32 = 0;
/// From so many streams on; fewer could save no more than what it costs when one of them is late.
const MANY: usize = 4;
/// An answer that fills a datagram gains nothing by waiting.
const SMALL_BYTES: usize = 1_024;
/// Half of what one system call takes.
const MOST_BYTES: usize = 32 << 10;
/// Well below what a person or a protocol notices.
const LONGEST_WAIT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Any instant will do: a round only adds to it.
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    /// So many streams that one look has made readable, by so many datagrams.
    fn woken(gather: &mut Gather, streams: usize, datagrams: usize, now: Instant) -> Vec<u32> {
        (0..datagrams).for_each(|_| gather.datagram_came(now));
        let noted = (0..streams).map(|_| gather.woke()).collect();
        gather.looked(now);
        noted
    }

    #[test]
    fn the_last_of_many_sends_for_all() {
        let (mut gather, now) = (Gather::new(true), start());
        let mut noted = woken(&mut gather, MANY, 1, now);
        let (last, others) = noted.split_last_mut().unwrap();
        for one in others {
            gather.wrote(one, 64);
            gather.wrote(one, 64);
            assert!(gather.waits(now) && !gather.owes());
        }
        gather.came_back(last);
        assert!(gather.owes() && !gather.waits(now));
    }

    #[test]
    fn those_who_come_one_by_one_are_gathered_as_soon_as_many_are_at_work() {
        let (mut gather, now) = (Gather::new(true), start());
        let mut noted: Vec<_> = (0..MANY - 1).flat_map(|_| woken(&mut gather, 1, 1, now)).collect();
        assert!(!gather.waits(now));
        noted.extend(woken(&mut gather, 1, 1, now));
        let (last, others) = noted.split_last_mut().unwrap();
        others.iter_mut().for_each(|one| gather.wrote(one, 64));
        assert!(gather.waits(now));
        gather.wrote(last, 64);
        assert!(!gather.waits(now));
    }

    #[test]
    fn nothing_is_held_back_of_a_few_or_of_much_data_or_without_leave() {
        let now = start();
        for (allowed, streams, datagrams) in
            [(true, MANY - 1, 1), (true, MANY, 2 * MANY + 1), (true, 1, 1), (false, 64, 1)]
        {
            let mut gather = Gather::new(allowed);
            let mut noted = woken(&mut gather, streams, datagrams, now);
            gather.wrote(&mut noted[0], 64);
            assert!(!gather.waits(now), "{streams} by {datagrams}");
        }
    }

    #[test]
    fn nobody_waits_for_long_for_a_reader_who_does_not_come() {
        let (mut gather, now) = (Gather::new(true), start());
        let mut noted = woken(&mut gather, 64, 1, now);
        gather.wrote(&mut noted[0], 64);
        assert!(gather.waits(now));
        assert_eq!(gather.due(), Some(now + LONGEST_WAIT));
        assert!(!gather.waits(now + LONGEST_WAIT));
        gather.wrote(&mut noted[1], 64);
        assert!(!gather.waits(now + LONGEST_WAIT), "whoever comes late sends at once");
    }

    #[test]
    fn a_large_write_or_many_bytes_end_it() {
        let (mut gather, now) = (Gather::new(true), start());
        for (writes, bytes) in [(1, SMALL_BYTES + 1), (MOST_BYTES / SMALL_BYTES + 1, SMALL_BYTES)] {
            let mut noted = woken(&mut gather, 64, 1, now);
            for noted in &mut noted[..writes] {
                assert!(gather.waits(now));
                gather.wrote(noted, bytes);
            }
            assert!(!gather.waits(now));
        }
    }
}
