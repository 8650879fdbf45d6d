use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    time::{Duration, Instant},
};

use crust::PublicKey;

/// Lines about peers that misbehave, so many that a person can read them: whoever sends nonsense all day must not fill a disk.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    told: BTreeMap<(PublicKey, &'static str), Told>,
    /// Lines about peers for whom there was no room.
    others: u64,
}

#[derive(Debug)]
struct Told {
    /// When there may be another line.
    until: Instant,
    /// How many there would have been since.
    more: u64,
}

impl Complaints {
    /// The line that says what a peer does and why; none if it was said a moment ago, which the next one then tells.
    pub(crate) fn line(
        &mut self,
        now: Instant,
        peer: PublicKey,
        what: &'static str,
        why: &dyn Display,
    ) -> Option<String> {
        let key = (peer, what);
        if let Some(told) = self.told.get_mut(&key).filter(|told| now < told.until) {
            told.more += 1;
            return None;
        }
        let more = self.told.remove(&key).map_or(0, |told| told.more);
        if self.told.len() >= MAX_LINES {
            self.told.retain(|_, told| {
                let recent = now < told.until;
                self.others += if recent { 0 } else { told.more };
                recent
            });
        }
        if self.told.len() >= MAX_LINES {
            self.others += 1 + more;
            return None;
        }
        self.told.insert(key, Told { until: now + INTERVAL, more: 0 });
        let mut line = format!("{peer} {what}: {why}");
        let others = std::mem::take(&mut self.others);
        for (number, whom) in [(more, ""), (others, " of others")] {
            if number > 0 {
                let _ = write!(line, " (and {number} times more{whom})");
            }
        }
        Some(line)
    }
}

/// Between two lines that say the same of one peer.
const INTERVAL: Duration = Duration::from_secs(10);
/// Lines in that time.
const MAX_LINES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_told_of_once_in_a_while_and_then_how_often_it_was() {
        let (mut complaints, begin) = (Complaints::default(), Instant::now());
        let peer = key(1);
        let mut line =
            |seconds, what| complaints.line(begin + Duration::from_secs(seconds), peer, what, &"why");
        assert_eq!(line(0, "errs").unwrap(), format!("{peer} errs: why"));
        assert_eq!([line(1, "errs"), line(9, "errs")], [None, None]);
        assert_eq!(line(9, "lies").unwrap(), format!("{peer} lies: why"));
        assert_eq!(line(10, "errs").unwrap(), format!("{peer} errs: why (and 2 times more)"));
        assert_eq!(line(19, "errs"), None);
        assert_eq!(line(30, "lies").unwrap(), format!("{peer} lies: why"));
    }

    #[test]
    fn peers_that_come_under_ever_new_keys_get_no_more_lines_than_others() {
        let (mut complaints, begin) = (Complaints::default(), Instant::now());
        let lines = (0..200).filter_map(|peer| complaints.line(begin, key(peer), "errs", &"why"));
        assert_eq!(lines.count(), MAX_LINES);
        let later = complaints.line(begin + INTERVAL, key(200), "errs", &"why").unwrap();
        assert!(
            later.ends_with(&format!("errs: why (and {} times more of others)", 200 - MAX_LINES)),
            "{later}"
        );
    }

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }
}
