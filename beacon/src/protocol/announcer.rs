//! When to speak to everybody on one link: a burst of questions at the start, new data at once, then a steady beat
//! that slows down as more peers are heard.

use std::time::{Duration, Instant};

use super::seed::Random;

/// The timetable of one link.
///
/// ```text
///              ┌──────────────┐ all questions asked  ┌────────┐
///  new link ──►│  Searching   ├─────────────────────►│ Steady │◄─┐ one announcement
///  (or woken)  │ (asks)       │                      │        ├──┘ an interval
///              └──────────────┘                      └─┬────▲─┘
///                                            new data  │    │ said twice
///                                                    ┌─▼────┴───┐
///                                                    │ Updating │
///                                                    └──────────┘
/// ```
///
/// New data while searching only brings the next question forward: it carries the data too.
#[derive(Debug)]
pub(super) struct Announcer {
    period: Duration,
    stage: Stage,
    next: Instant,
    last: Option<Instant>,
    /// When the latest search began.
    searching_since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Searching { asked: usize },
    Updating { said: usize },
    Steady,
}

/// What to say to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Announce,
    Ask,
}

/// How crowded a link is: what the length of the interval depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    pub(super) peers: usize,
    pub(super) datagrams_per_round: usize,
}

impl Announcer {
    pub(super) fn new(now: Instant, period: Duration, random: &mut Random) -> Self {
        let mut announcer = Self {
            period: period.clamp(MIN_PERIOD, MAX_PERIOD),
            stage: Stage::Searching { asked: 0 },
            next: now,
            last: None,
            searching_since: now,
        };
        announcer.search(now, random);
        announcer
    }

    /// Begins anew to look for peers: the network has changed, or the machine has slept.
    pub(super) fn search(&mut self, now: Instant, random: &mut Random) {
        self.stage = Stage::Searching { asked: 0 };
        self.searching_since = now;
        self.next = now + random.up_to(START_JITTER);
    }

    /// Has one question asked soon, unless questions are asked anyway.
    pub(super) fn ask_once(&mut self, now: Instant, random: &mut Random) {
        if matches!(self.stage, Stage::Searching { .. }) {
            return;
        }
        self.stage = Stage::Searching { asked: SEARCH_PAUSES.len() };
        self.next = self.next.min(now + random.up_to(DOUBT_JITTER));
    }

    /// Has new data said at once, but for the least distance to what was said before.
    pub(super) fn data_changed(&mut self, now: Instant) {
        self.stage = match self.stage {
            Stage::Searching { asked } => Stage::Searching { asked },
            Stage::Updating { .. } | Stage::Steady => Stage::Updating { said: 0 },
        };
        let earliest = self.last.map_or(now, |last| now.max(last + MIN_DISTANCE));
        self.next = self.next.min(earliest);
    }

    pub(super) fn set_period(&mut self, now: Instant, period: Duration, crowd: Crowd) {
        self.period = period.clamp(MIN_PERIOD, MAX_PERIOD);
        if self.stage == Stage::Steady {
            let since = self.last.unwrap_or(now);
            self.next = now.max(since + self.interval(crowd));
        }
    }

    /// What is to be said now, if anything; each call that returns something moves the timetable on.
    pub(super) fn due(&mut self, now: Instant, crowd: Crowd, random: &mut Random) -> Option<Round> {
        if now < self.next {
            return None;
        }
        self.last = Some(now);
        let interval = self.interval(crowd);
        let (round, stage, pause) = match self.stage {
            Stage::Searching { asked } => match SEARCH_PAUSES.get(asked) {
                Some(&pause) => {
                    let pause = (pause + random.up_to(pause / 2)).min(interval);
                    (Round::Ask, Stage::Searching { asked: asked + 1 }, pause)
                }
                // Machines that began together do not go on together: the load would come in waves.
                None => (Round::Ask, Stage::Steady, random.up_to(interval)),
            },
            Stage::Updating { said } if said + 1 < UPDATE_ROUNDS => {
                (Round::Announce, Stage::Updating { said: said + 1 }, UPDATE_PAUSE.min(interval))
            }
            Stage::Updating { .. } | Stage::Steady => {
                (Round::Announce, Stage::Steady, random.around(interval))
            }
        };
        self.stage = stage;
        self.next = now + pause;
        Some(round)
    }

    /// Counts something else that was said to everybody as an announcement.
    pub(super) fn said(&mut self, now: Instant, crowd: Crowd, random: &mut Random) {
        self.last = Some(now);
        if self.stage == Stage::Steady {
            self.next = now + random.around(self.interval(crowd));
        }
    }

    /// The time between two announcements: the period, stretched so that all peers together stay within
    /// [`DATAGRAMS_PER_PERIOD`].
    pub(super) fn interval(&self, crowd: Crowd) -> Duration {
        let datagrams = crowd.peers.saturating_add(1).saturating_mul(crowd.datagrams_per_round);
        #[expect(clippy::cast_precision_loss, reason = "a table's size is far below 2^52")]
        let stretch = datagrams as f64 / DATAGRAMS_PER_PERIOD;
        self.period.mul_f64(stretch.clamp(1.0, MAX_STRETCH)).min(MAX_PERIOD)
    }

    /// Whoever was heard since this moment need not answer the questions of the latest search.
    pub(super) const fn searching_since(&self) -> Instant {
        self.searching_since
    }

    pub(super) const fn next(&self) -> Instant {
        self.next
    }
}

/// The shortest period, 20 ms; a shorter one is taken as this. Below it a beacon would load the link more than what
/// it announces can be worth.
pub const MIN_PERIOD: Duration = Duration::from_millis(20);

/// The longest interval: it must fit into the packet's milliseconds, and a peer is forgotten only after several.
pub(super) const MAX_PERIOD: Duration = Duration::from_secs(3600);

/// What a whole link carries in a period on average. The bound is 100 in any period; when the timetables of many
/// peers meet by chance, it comes to that.
const DATAGRAMS_PER_PERIOD: f64 = 60.0;

/// Beyond this a crowd is more likely forged than real, and slowing down further would silence an honest beacon.
const MAX_STRETCH: f64 = 60.0;

/// Machines that get power or a network at the same moment do not ask at the same moment.
const START_JITTER: Duration = Duration::from_millis(5);

/// Others have the same doubt at the same moment.
const DOUBT_JITTER: Duration = Duration::from_millis(50);

/// The pauses after the first questions; half as much again is added at random. Together with the last question they
/// make six in less than two seconds: with a third of all datagrams lost each way, 98 of 100 peers are found by them
/// alone. Those who have answered do not answer again.
const SEARCH_PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(350),
    Duration::from_millis(500),
];

/// New data is said twice, as there is no acknowledgement.
const UPDATE_ROUNDS: usize = 2;
const UPDATE_PAUSE: Duration = Duration::from_millis(100);

/// An application that sets new data in a loop is not allowed to flood the link.
const MIN_DISTANCE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::super::{Seed, any_instant};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ALONE: Crowd = Crowd { peers: 0, datagrams_per_round: 1 };

    #[test]
    fn a_newcomer_asks_six_times_within_two_seconds_and_then_keeps_the_period() {
        let (start, mut random, mut announcer) = setup();

        let said = run(start, start + SECOND * 10, &mut announcer, &mut random);

        let asks: Vec<_> = said.iter().filter(|(_, round)| *round == Round::Ask).collect();
        assert_eq!(asks.len(), 6);
        assert!(asks[0].0 <= START_JITTER);
        assert!(asks[5].0 <= SECOND * 2, "{asks:?}");
        assert!((7..=10).contains(&(said.len() - 6)), "{said:?}");
    }

    #[test]
    fn new_data_is_said_at_once_and_once_more() {
        let (start, mut random, mut announcer) = setup();
        let quiet = start + SECOND * 10;
        run(start, quiet, &mut announcer, &mut random);

        announcer.data_changed(quiet);

        assert!(announcer.next() <= quiet + MIN_DISTANCE);
        let said = run(quiet, quiet + SECOND / 2, &mut announcer, &mut random);
        assert!(said.iter().filter(|(_, round)| *round == Round::Announce).count() >= 2, "{said:?}");
    }

    #[test]
    fn new_data_in_a_loop_is_said_at_a_bounded_rate() {
        let (start, mut random, mut announcer) = setup();
        let quiet = start + SECOND * 10;
        run(start, quiet, &mut announcer, &mut random);

        let mut said = 0;
        for step in 0..1000 {
            let now = quiet + Duration::from_millis(step);
            announcer.data_changed(now);
            said += usize::from(announcer.due(now, ALONE, &mut random).is_some());
        }

        assert!((45..=51).contains(&said), "{said} announcements in a second");
    }

    #[test]
    fn many_peers_stretch_the_interval_so_that_a_link_carries_at_most_100_datagrams_a_period() {
        let (_, _, announcer) = setup();

        for (peers, datagrams_per_round) in [(99, 1), (99, 3), (500, 2), (900, 3)] {
            let interval = announcer.interval(Crowd { peers, datagrams_per_round });
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let per_period = ((peers + 1) * datagrams_per_round) as f64 / interval.as_secs_f64();
            assert!(per_period < 61.0, "{peers} peers: {per_period} datagrams a period");
        }
        assert_eq!(announcer.interval(Crowd { peers: 19, datagrams_per_round: 3 }), SECOND);
    }

    #[test]
    fn a_shorter_period_is_in_force_at_once() {
        let (start, mut random, mut announcer) = setup();
        let quiet = start + SECOND * 10;
        run(start, quiet, &mut announcer, &mut random);
        announcer.set_period(quiet, SECOND * 60, ALONE);
        run(quiet, quiet + SECOND * 2, &mut announcer, &mut random);

        let now = quiet + SECOND * 2;
        announcer.set_period(now, SECOND / 10, ALONE);

        assert!(announcer.next() <= now + SECOND / 10);
    }

    fn setup() -> (Instant, Random, Announcer) {
        let start = any_instant();
        let mut random = Random::new(&Seed::new([3; 32]));
        let announcer = Announcer::new(start, SECOND, &mut random);
        (start, random, announcer)
    }

    fn run(
        from: Instant,
        until: Instant,
        announcer: &mut Announcer,
        random: &mut Random,
    ) -> Vec<(Duration, Round)> {
        let mut said = Vec::new();
        while announcer.next() < until {
            let now = announcer.next().max(from);
            said.extend(announcer.due(now, ALONE, random).map(|round| (now.duration_since(from), round)));
        }
        said
    }
}
