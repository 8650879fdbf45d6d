use std::time::{Duration, Instant};

/// How much somebody may still send: so much at once, and then a share at a time.
#[derive(Debug)]
pub(super) struct Quota {
    left: u32,
    most: u32,
    share: Duration,
    /// When the next share is due.
    next: Instant,
}

impl Quota {
    /// All at once at first; one more in each `share`, which is not zero.
    pub(super) fn new(now: Instant, most: u32, share: Duration) -> Self {
        Self { left: most, most, share, next: now + share }
    }

    /// Takes one; tells whether there was one left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if let Some(since) = now.checked_duration_since(self.next) {
            let shares = 1 + since.as_nanos() / self.share.as_nanos().max(1);
            let room = self.most - self.left;
            let given = u32::try_from(shares).unwrap_or(u32::MAX).min(room);
            self.left += given;
            self.next = if given < room { self.next + self.share * given } else { now + self.share };
        }
        let any = self.left > 0;
        self.left -= u32::from(any);
        any
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning, and all is relative to it")]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_comes_back_in_time_and_no_more_of_it() {
        let (begin, share) = (Instant::now(), Duration::from_millis(10));
        let mut quota = Quota::new(begin, 3, share);
        let mut taken = |millis| (0..9).filter(|_| quota.take(begin + Duration::from_millis(millis))).count();
        assert_eq!([taken(0), taken(9), taken(10), taken(25), taken(30)], [3, 0, 1, 1, 1]);
        assert_eq!([taken(10_000), taken(10_000), taken(10_010)], [3, 0, 1]);
    }
}
