use std::time::{Duration, Instant};

/// Notices from a router's clock that it has restarted and forgotten all mappings, as
/// [RFC 6887, section 8.5](https://www.rfc-editor.org/rfc/rfc6887#section-8.5) says.
///
/// Each response tells for how many seconds the router has remembered. That number must have grown as our own clock has,
/// within a second or two and a sixteenth.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epoch {
    last: Option<(u32, Instant)>,
}

impl Epoch {
    /// Takes in the number of a response; false if the router must have restarted since the one before.
    pub fn check(&mut self, now: Instant, epoch_s: u32) -> bool {
        let Some((last_s, last_at)) = self.last.replace((epoch_s, now)) else { return true };
        if epoch_s.saturating_add(1) < last_s {
            return false;
        }
        let ours = now.saturating_duration_since(last_at);
        let theirs = Duration::from_secs(u64::from(epoch_s.saturating_sub(last_s)));
        let slack = Duration::from_secs(2);
        ours + slack >= theirs - theirs / 16 && theirs + slack >= ours - ours / 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::epoch;

    #[test]
    fn a_clock_that_goes_as_ours_is_believed_and_another_is_a_restart() {
        // After so many seconds of ours the router's clock says so, having said 1,000 before.
        let cases = [
            (0, 1_000, true),
            (100, 1_100, true),
            (100, 1_107, true),
            (100, 1_092, true),
            (1, 999, true),
            (100, 900, false),
            (100, 3, false),
            (100, 1_000, false),
            (100, 1_200, false),
            (0, u32::MAX, false),
        ];
        for (ours, theirs, believed) in cases {
            let mut clock = Epoch::default();
            let start = epoch();
            assert!(clock.check(start, 1_000), "nothing to compare with yet");
            assert_eq!(clock.check(start + Duration::from_secs(ours), theirs), believed, "{ours} {theirs}");
        }
    }
}
