//! Answers to newcomers on one link: each alone while they are few, all at once when they are many, never more than
//! the link should carry.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The newcomers that wait for an answer.
#[derive(Debug)]
pub(super) struct Answers {
    waiting: Vec<Newcomer>,
    crowd_due: Option<Instant>,
    last_to_all: Option<Instant>,
    allowance: Allowance,
}

#[derive(Clone, Copy, Debug)]
struct Newcomer {
    address: SocketAddr,
    due: Instant,
}

/// To whom to say that we are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    All,
    One(SocketAddr),
}

impl Answers {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            waiting: Vec::new(),
            crowd_due: None,
            last_to_all: None,
            allowance: Allowance::new(now, ANSWER_BURST, ANSWER_PAUSE),
        }
    }

    /// Notes a question from `address`, to be answered at `due`.
    ///
    /// `pause` is the least time between two answers to everybody.
    pub(super) fn asked(&mut self, address: SocketAddr, due: Instant, pause: Duration) {
        if self.crowd_due.is_some() || self.waiting.iter().any(|newcomer| newcomer.address == address) {
            return;
        }
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(Newcomer { address, due });
            return;
        }
        self.waiting.clear();
        self.crowd_due = Some(self.last_to_all.map_or(due, |last| due.max(last + pause)));
    }

    /// The next answer that is due, if any.
    pub(super) fn due(&mut self, now: Instant) -> Option<Answer> {
        if self.crowd_due.is_some_and(|due| due <= now) {
            self.said_to_all(now);
            return Some(Answer::All);
        }
        let index = self.waiting.iter().position(|newcomer| newcomer.due <= now)?;
        if !self.allowance.take(now) {
            return None;
        }
        Some(Answer::One(self.waiting.remove(index).address))
    }

    /// Whatever was just said to everybody has answered all who wait.
    pub(super) fn said_to_all(&mut self, now: Instant) {
        self.forget();
        self.last_to_all = Some(now);
    }

    /// Nobody is to be answered any more.
    pub(super) fn forget(&mut self) {
        self.crowd_due = None;
        self.waiting.clear();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let first = self.waiting.iter().map(|newcomer| newcomer.due).min();
        let first = first.map(|due| due.max(self.allowance.ready()));
        first.into_iter().chain(self.crowd_due).min()
    }
}

/// A number of uses that grows back one by one, up to a bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left: u32,
    burst: u32,
    pause: Duration,
    /// Since when the next use has been growing.
    since: Instant,
}

impl Allowance {
    pub(super) const fn new(now: Instant, burst: u32, pause: Duration) -> Self {
        Self { left: burst, burst, pause, since: now }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.grow(now);
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }

    fn grow(&mut self, now: Instant) {
        let pauses = now.saturating_duration_since(self.since).as_nanos() / self.pause.as_nanos().max(1);
        let grown = u32::try_from(pauses).unwrap_or(u32::MAX);
        if grown >= self.burst - self.left {
            self.left = self.burst;
            self.since = now;
        } else {
            self.left += grown;
            self.since += self.pause * grown;
        }
    }

    /// When the next use is granted, or a moment before that.
    fn ready(&self) -> Instant {
        if self.left > 0 { self.since } else { self.since + self.pause }
    }
}

/// As many newcomers are answered one by one; a further one, and a single datagram to everybody is cheaper.
const MAX_WAITING: usize = 4;

/// With the pause below: at most 16 answers to single addresses in any second, so that together with answers to
/// everybody no address gets more than 20 a second.
const ANSWER_BURST: u32 = 8;
const ANSWER_PAUSE: Duration = Duration::from_millis(125);

#[cfg(test)]
mod tests {
    use super::super::any_instant;
    use super::*;

    const PAUSE: Duration = Duration::from_millis(250);

    #[test]
    fn a_few_newcomers_are_answered_one_by_one() {
        let now = any_instant();
        let mut answers = Answers::new(now);

        for port in 1..=4 {
            answers.asked(address(port), now, PAUSE);
            answers.asked(address(port), now, PAUSE);
        }

        let said: Vec<_> = std::iter::from_fn(|| answers.due(now)).collect();
        assert_eq!(said, (1..=4).map(|port| Answer::One(address(port))).collect::<Vec<_>>());
        assert_eq!(answers.next(), None);
    }

    #[test]
    fn a_crowd_of_newcomers_gets_one_answer_to_everybody() {
        let now = any_instant();
        let mut answers = Answers::new(now);

        for port in 1..=50 {
            answers.asked(address(port), now, PAUSE);
        }

        assert_eq!(answers.due(now), Some(Answer::All));
        assert_eq!(answers.due(now), None);
        assert_eq!(answers.next(), None);
    }

    #[test]
    fn questions_without_end_get_a_bounded_number_of_answers() {
        let start = any_instant();
        let mut answers = Answers::new(start);

        let mut said = 0;
        for step in 0..5_000_u64 {
            let now = start + Duration::from_micros(step * 200);
            answers.asked(address(u16::try_from(step).expect("small")), now, PAUSE);
            said += std::iter::from_fn(|| answers.due(now)).count();
        }

        assert!((4..=20).contains(&said), "{said} answers in a second");
    }

    #[test]
    fn one_address_gets_at_most_twenty_answers_a_second() {
        let start = any_instant();
        let mut answers = Answers::new(start);

        let mut said = 0;
        for step in 0..1_000 {
            let now = start + Duration::from_millis(step);
            answers.asked(address(1), now, PAUSE);
            said += std::iter::from_fn(|| answers.due(now)).count();
        }

        assert!((8..=20).contains(&said), "{said} answers in a second");
    }

    #[test]
    fn a_spent_allowance_says_when_it_can_be_used_again() {
        let now = any_instant();
        let mut allowance = Allowance::new(now, 2, PAUSE);

        assert!(allowance.take(now));
        assert!(allowance.take(now));
        assert!(!allowance.take(now));
        assert_eq!(allowance.ready(), now + PAUSE);
        assert!(allowance.take(now + PAUSE));
        assert!(!allowance.take(now + PAUSE));
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }
}
