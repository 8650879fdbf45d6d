use std::time::{Duration, Instant};

/// Whose turn it is to relay: the nodes in order of their names, one term each. No clock is shared: whoever is ahead
/// pulls the others along.
#[derive(Debug)]
pub(super) struct Rotation {
    order: Vec<String>,
    term: u64,
    until: Instant,
    length: Duration,
}

impl Rotation {
    pub(super) fn new(now: Instant, me: &str, length: Duration) -> Self {
        Self { order: vec![me.to_owned()], term: 0, until: now + length, length }
    }

    pub(super) fn add(&mut self, name: &str) {
        if let Err(place) = self.order.binary_search_by(|other| other.as_str().cmp(name)) {
            self.order.insert(place, name.to_owned());
        }
    }

    /// Notes the term of another; one far ahead is a lie or a ruin, and is not followed.
    pub(super) fn hear(&mut self, now: Instant, term: u64) {
        if term > self.term && term - self.term <= MAX_AHEAD {
            self.term = term;
            self.until = now + self.length;
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.until <= now {
            // After a pause the terms that went by are not made up for: others have counted them.
            self.term = self.term.saturating_add(1);
            self.until = now + self.length;
        }
    }

    pub(super) const fn term(&self) -> u64 {
        self.term
    }

    /// The relay and the standby; the next two for each further attempt.
    pub(super) fn relays(&self, attempt: u32) -> [&str; 2] {
        let first = self.term.wrapping_add(2 * u64::from(attempt));
        [first, first.wrapping_add(1)].map(|place| {
            let place = usize::try_from(place % self.order.len() as u64).expect("less than a length");
            self.order[place].as_str()
        })
    }
}

/// A day of terms of two seconds, some twenty times over.
const MAX_AHEAD: u64 = 1 << 20;
