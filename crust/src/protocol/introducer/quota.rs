//! How often somebody may do something: so many at once, then one every so often.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// So many at once.
    pub(crate) burst: u32,
    /// Then one after each of these.
    pub(crate) every: Duration,
}

/// Who has done how much lately. Those who have not are forgotten.
#[derive(Debug)]
pub(super) struct Quota<Who> {
    rate: Rate,
    /// When each has all of its burst back (the virtual schedule of ATM's generic cell rate algorithm).
    whole_at: BTreeMap<Who, Instant>,
}

impl<Who: Ord> Quota<Who> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, whole_at: BTreeMap::new() }
    }

    /// Whether `who` may do it once more now, which then counts.
    pub(super) fn take(&mut self, now: Instant, who: Who) -> bool {
        let whole_at = self.whole_at.get(&who).copied().unwrap_or(now).max(now);
        let burst = self.rate.every * self.rate.burst;
        if whole_at + self.rate.every > now + burst {
            return false;
        }
        if self.whole_at.len() >= MOST && !self.whole_at.contains_key(&who) {
            self.whole_at.retain(|_, whole_at| *whole_at > now);
            // So many at a time are a flood, and who is not remembered cannot be held to anything.
            if self.whole_at.len() >= MOST {
                return false;
            }
        }
        self.whole_at.insert(who, whole_at + self.rate.every);
        true
    }
}

/// Twice as many as may be connected.
const MOST: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let start = start();
        let mut quota = Quota::new(Rate { burst: 3, every: Duration::from_secs(1) });
        let taken = |quota: &mut Quota<u8>, after: u64| quota.take(start + Duration::from_secs(after), 1);
        assert_eq!([(); 4].map(|()| taken(&mut quota, 0)), [true, true, true, false]);
        assert!(taken(&mut quota, 1) && !taken(&mut quota, 1));
        assert!(quota.take(start, 2), "another's quota is its own");
        assert_eq!([(); 4].map(|()| taken(&mut quota, 9)), [true, true, true, false]);
    }

    #[test]
    fn a_flood_of_names_is_bounded_and_passes() {
        let start = start();
        let mut quota = Quota::new(Rate { burst: 1, every: Duration::from_secs(1) });
        let taken = (0..MOST + 10).filter(|&who| quota.take(start, who)).count();
        assert_eq!(taken, MOST);
        assert!(quota.take(start + Duration::from_secs(1), MOST + 1));
        assert_eq!(quota.whole_at.len(), 1);
    }
}
