//! Tells words of now from recorded ones: a member's words cannot be forged by others, but they can be said again.
//!
//! A beacon numbers its words. Of a beacon that is known, each number counts once, and low ones not at all: no clock takes part, so
//! clocks may be wrong and may jump. Of a beacon that is not known, a word counts
//!
//! * if it repeats a challenge of ours of the last seconds, which every answer to a question of ours does; or
//! * if its time is within [`WINDOW`] of ours, and not before we began to listen. Numbers are remembered for longer than that, so
//!   what we have heard of a beacon that left cannot be said again as long as its time would do.
//!
//! Otherwise it is doubtful: a recording, or a member whose clock is wrong. Then everybody is asked once more, which the
//! member answers with our challenge, and a recording does not. A clock of ours that has been set back lets old times look
//! recent: then the second rule does not hold until it has caught up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::envelope::Challenge;
use super::seal::Seal;

/// What was heard of whom, and what time it is.
#[derive(Debug)]
pub(super) struct Freshness {
    known: BTreeMap<Vec<u8>, Numbers>,
    clock: Option<Clock>,
    /// When the first word was judged or the clock first read.
    begun: Option<Instant>,
}

/// The system's clock as it was last read, and the latest that it ever showed.
#[derive(Clone, Copy, Debug)]
struct Clock {
    read: Instant,
    time: Duration,
    latest: Duration,
}

/// The numbers of one beacon that were heard.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    highest: u32,
    /// One bit for each number down from the highest.
    heard: u64,
    last: Instant,
}

/// What to make of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fresh,
    /// Its number was heard before: another copy, or a recording.
    Copy,
    /// So old a number that it is only a recording.
    Recorded,
    /// Perhaps a recording: ask.
    Doubtful,
}

/// A word, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub(super) id: &'a [u8],
    pub(super) sequence: u32,
    pub(super) time: Option<Duration>,
    pub(super) echoes: &'a [Challenge],
}

impl Freshness {
    pub(super) const fn new() -> Self {
        Self { known: BTreeMap::new(), clock: None, begun: None }
    }

    /// Notes what the system's clock shows.
    pub(super) fn set_clock(&mut self, now: Instant, time: Duration) {
        self.begun.get_or_insert(now);
        let latest = self.time(now).map_or(time, |known| known.max(time));
        let latest = self.clock.map_or(latest, |clock| clock.latest.max(latest));
        // The clock's own jump ahead is no promise that time has passed: it counts as shown.
        self.clock = Some(Clock { read: now, time, latest });
    }

    /// What the system's clock shows now.
    pub(super) fn time(&self, now: Instant) -> Option<Duration> {
        self.clock.map(|clock| clock.time + now.saturating_duration_since(clock.read))
    }

    /// Judges a word, and remembers its number if it is fresh.
    pub(super) fn judge(&mut self, now: Instant, seal: &Seal, word: Word<'_>) -> Verdict {
        self.begun.get_or_insert(now);
        if let Some(numbers) = self.known.get_mut(word.id) {
            return numbers.judge(now, word.sequence);
        }
        let is_echo = self.challenges(now, seal).iter().any(|challenge| word.echoes.contains(challenge));
        if !is_echo && !self.is_recent(now, word.time) {
            return Verdict::Doubtful;
        }
        self.make_room();
        let numbers = Numbers { highest: word.sequence, heard: 1, last: now };
        self.known.insert(word.id.to_vec(), numbers);
        Verdict::Fresh
    }

    /// The challenge to say now, and the one before it.
    pub(super) fn challenges(&self, now: Instant, seal: &Seal) -> [Challenge; 2] {
        let age = self.begun.map(|begun| now.saturating_duration_since(begun)).unwrap_or_default();
        let number = age.as_secs() / CHALLENGE_SECONDS;
        [number + 1, number].map(|number| seal.unforeseeable(number))
    }

    fn is_recent(&self, now: Instant, said: Option<Duration>) -> bool {
        let (Some(clock), Some(time), Some(said)) = (self.clock, self.time(now), said) else { return false };
        let was_set_back = time + CLOCK_SLACK < clock.latest;
        let listening = self.begun.map(|begun| now.saturating_duration_since(begun)).unwrap_or_default();
        let oldest = WINDOW.min(listening + CLOCK_SLACK);
        !was_set_back && said <= time + WINDOW && time <= said + oldest
    }

    fn make_room(&mut self) {
        if self.known.len() < MAX_KNOWN {
            return;
        }
        let oldest = self.known.iter().min_by_key(|(_, numbers)| numbers.last).map(|(id, _)| id.clone());
        oldest.map(|id| self.known.remove(&id));
    }
}

impl Numbers {
    const fn judge(&mut self, now: Instant, number: u32) -> Verdict {
        if number > self.highest {
            let ahead = number - self.highest;
            self.heard = if ahead < u64::BITS { self.heard << ahead | 1 } else { 1 };
            self.highest = number;
            self.last = now;
            return Verdict::Fresh;
        }
        let behind = self.highest - number;
        if behind >= u64::BITS {
            return Verdict::Recorded;
        }
        let bit = 1 << behind;
        if self.heard & bit != 0 {
            return Verdict::Copy;
        }
        self.heard |= bit;
        Verdict::Fresh
    }
}

/// How far clocks may differ for a newcomer to be believed at its first word. A clock that is ahead by this much makes words
/// that look recent for twice as long.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// How far clocks of machines differ that ask time servers now and then. Words may be older by this than our listening.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// A challenge is said for so long and counts for as long again.
const CHALLENGE_SECONDS: u64 = 10;

/// Beacons whose numbers are remembered. Only members of the group get in, and the least recently heard goes first; as long
/// as fewer come and go within twice the window, no recording is believed.
const MAX_KNOWN: usize = 2048;

#[cfg(test)]
mod tests {
    use super::super::{GroupSecret, Seed, any_instant};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const EPOCH: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn of_a_known_beacon_each_number_counts_once_whatever_its_clock_says() {
        let (now, seal, mut freshness) = settled();
        assert_eq!(judge(&mut freshness, now, &seal, 10, Some(EPOCH + SECOND * 100)), Verdict::Fresh);

        for (number, verdict) in [
            (10, Verdict::Copy),
            (11, Verdict::Fresh),
            (13, Verdict::Fresh),
            (12, Verdict::Fresh),
            (12, Verdict::Copy),
            (9, Verdict::Fresh),
            (9, Verdict::Copy),
            (1000, Verdict::Fresh),
            (999, Verdict::Fresh),
            (936, Verdict::Recorded),
            (13, Verdict::Recorded),
            (u32::MAX, Verdict::Fresh),
            (u32::MAX, Verdict::Copy),
        ] {
            assert_eq!(judge(&mut freshness, now, &seal, number, None), verdict, "{number}");
        }
    }

    #[test]
    fn an_unknown_beacon_is_believed_by_its_time_if_both_clocks_agree() {
        for (age, verdict) in [
            (0, Verdict::Fresh),
            (29, Verdict::Fresh),
            (31, Verdict::Doubtful),
            (-29, Verdict::Fresh),
            (-31, Verdict::Doubtful),
        ] {
            let (now, seal, mut freshness) = settled();
            let time = (EPOCH + SECOND * 100).as_secs().checked_add_signed(-age).map(Duration::from_secs);
            assert_eq!(judge(&mut freshness, now, &seal, 1, time), verdict, "{age} seconds old");
        }
        let (now, seal, mut freshness) = settled();
        assert_eq!(judge(&mut freshness, now, &seal, 1, None), Verdict::Doubtful);
    }

    #[test]
    fn a_newcomer_does_not_believe_what_was_said_before_it_listened() {
        let (start, seal, mut freshness) = (any_instant(), seal(), Freshness::new());
        freshness.set_clock(start, EPOCH);

        assert_eq!(judge(&mut freshness, start, &seal, 1, Some(EPOCH - SECOND * 5)), Verdict::Doubtful);
        let later = start + SECOND * 10;
        assert_eq!(judge(&mut freshness, later, &seal, 1, Some(EPOCH + SECOND * 5)), Verdict::Fresh);
    }

    #[test]
    fn a_challenge_that_is_repeated_in_time_proves_that_the_word_is_fresh() {
        let (start, seal, mut freshness) = (any_instant(), seal(), Freshness::new());
        let [said, _] = freshness.challenges(start, &seal);
        fn word(echoes: &[Challenge]) -> Word<'_> {
            Word { id: b"a", sequence: 1, time: None, echoes }
        }

        for (seconds, verdict) in
            [(0, Verdict::Fresh), (9, Verdict::Fresh), (19, Verdict::Fresh), (20, Verdict::Doubtful)]
        {
            let mut freshness = Freshness::new();
            freshness.challenges(start, &seal);
            freshness.judge(start, &seal, Word { id: b"other", ..word(&[]) });
            let now = start + SECOND * seconds;
            let echoes = [[7; 8], said];
            assert_eq!(freshness.judge(now, &seal, word(&echoes)), verdict, "{seconds}");
        }
        assert_eq!(freshness.judge(start, &seal, word(&[[7; 8]])), Verdict::Doubtful);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_recent_until_it_has_caught_up() {
        let (now, seal, mut freshness) = settled();
        let back = EPOCH;
        freshness.set_clock(now, back);

        assert_eq!(judge(&mut freshness, now, &seal, 1, Some(back)), Verdict::Doubtful);
        let caught_up = now + SECOND * 100;
        assert_eq!(judge(&mut freshness, caught_up, &seal, 1, Some(back + SECOND * 100)), Verdict::Fresh);
    }

    #[test]
    fn a_clock_that_was_set_ahead_counts_from_then_on() {
        let (now, seal, mut freshness) = settled();
        freshness.set_clock(now, EPOCH + SECOND * 4000);

        assert_eq!(judge(&mut freshness, now, &seal, 1, Some(EPOCH + SECOND * 100)), Verdict::Doubtful);
        assert_eq!(judge(&mut freshness, now, &seal, 1, Some(EPOCH + SECOND * 4000)), Verdict::Fresh);
    }

    #[test]
    fn beacons_without_end_take_bounded_room() {
        let (now, seal, mut freshness) = settled();
        for number in 0..5_000_u32 {
            let (id, time) = (number.to_be_bytes(), freshness.time(now));
            let word = Word { id: &id, sequence: 1, time, echoes: &[] };
            assert_eq!(freshness.judge(now, &seal, word), Verdict::Fresh);
        }
        assert_eq!(freshness.known.len(), MAX_KNOWN);
    }

    fn seal() -> Seal {
        Seal::new(GroupSecret::new([1; 32]), &Seed::new([2; 32]))
    }

    /// One that has listened for a hundred seconds, with a right clock.
    fn settled() -> (Instant, Seal, Freshness) {
        let (start, mut freshness) = (any_instant(), Freshness::new());
        freshness.set_clock(start, EPOCH);
        (start + SECOND * 100, seal(), freshness)
    }

    fn judge(
        freshness: &mut Freshness,
        now: Instant,
        seal: &Seal,
        sequence: u32,
        time: Option<Duration>,
    ) -> Verdict {
        freshness.judge(now, seal, Word { id: b"a", sequence, time, echoes: &[] })
    }
}
