/// What all connections together let their peers have in flight, out of `Limits::receive_bytes`.
///
/// One half is for the [`FLOOR_BYTES`] that every connection has from the start, so that none starves; the other is lent
/// to those that have shown their key and that read.
#[derive(Debug)]
pub(super) struct ReceiveBudget {
    floors: u64,
    lendable: u64,
}

impl ReceiveBudget {
    pub(super) fn new(receive_bytes: u64) -> Self {
        let for_floors = receive_bytes / 2;
        Self { floors: (for_floors / FLOOR_BYTES).max(1), lendable: receive_bytes - for_floors }
    }

    /// Sets the bytes of a new connection aside, if there are any left.
    pub(super) fn enter(&mut self) -> bool {
        let free = self.floors > 0;
        self.floors -= u64::from(free);
        free
    }

    /// Ends a connection that had entered and been lent so much.
    pub(super) fn leave(&mut self, lent: u64) {
        self.floors += 1;
        self.lendable += lent;
    }

    /// Lends towards the first window of `wanted` bytes: less when little is left, so that late comers get some too.
    pub(super) fn lend_first(&mut self, wanted: u64) -> u64 {
        let lent = wanted.saturating_sub(FLOOR_BYTES).min(self.lendable / SHARES);
        self.lendable -= lent;
        lent
    }

    /// Lends more to a connection whose reader keeps up.
    pub(super) fn lend_more(&mut self, wanted: u64) -> u64 {
        let lent = wanted.min(self.lendable / 2);
        self.lendable -= lent;
        lent
    }
}

/// What a connection gets before anything is known of its peer: some prefaces' worth, and enough to make progress.
pub(super) const FLOOR_BYTES: u64 = 8 << 10;
/// Nobody's first window is more than this part of what is left.
const SHARES: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_windows_together_stay_under_the_bound() {
        let bound = 1 << 20;
        let mut budget = ReceiveBudget::new(bound);
        let mut granted = 0;
        while budget.enter() {
            granted += FLOOR_BYTES + budget.lend_first(512 << 10) + budget.lend_more(1 << 20);
        }
        assert!(granted <= bound && granted > bound / 2, "{granted}");
    }

    #[test]
    fn what_is_given_back_is_lent_again() {
        let mut budget = ReceiveBudget::new(16 << 20);
        assert!(budget.enter());
        let lent = budget.lend_first(64 << 10);
        assert_eq!(lent, 56 << 10);
        budget.leave(lent);
        assert_eq!((budget.floors, budget.lendable), (1024, 8 << 20));
    }
}
