use std::time::{Duration, Instant};

/// How many bytes a peer may have in flight towards one connection; grows while the reader keeps up.
#[derive(Debug)]
pub(super) struct Window {
    bytes: u64,
    max_bytes: u64,
    /// Read since the window was last looked at.
    consumed: u64,
    since: Instant,
}

impl Window {
    pub(super) fn new(bytes: u64, max_bytes: u64, now: Instant) -> Self {
        Self { bytes, max_bytes, consumed: 0, since: now }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The reader took so many bytes.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.consumed = self.consumed.saturating_add(bytes as u64);
    }

    /// How much larger the window should be: twice, if a whole window was read within [`KEEPS_UP`] round trips, since the
    /// sender then waits for credit rather than for the reader.
    pub(super) fn wants(&mut self, now: Instant, round_trip: Duration) -> Option<u64> {
        if self.consumed < self.bytes {
            return None;
        }
        let took = now.saturating_duration_since(self.since);
        self.consumed = 0;
        self.since = now;
        let more = self.bytes.min(self.max_bytes.saturating_sub(self.bytes));
        (more > 0 && took < round_trip.saturating_mul(KEEPS_UP)).then_some(more)
    }

    pub(super) fn grow(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// One round trip empties a window at full speed; credit comes in eighths, and measurements waver.
const KEEPS_UP: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    /// Any instant will do: the window only adds to it.
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_fast_reader_doubles_it_up_to_the_bound_and_a_slow_one_does_not() {
        let start = start();
        let mut window = Window::new(100, 350, start);
        window.consume(99);
        assert_eq!(window.wants(start + RTT, RTT), None);
        window.consume(1);
        assert_eq!(window.wants(start + RTT, RTT), Some(100));
        window.grow(100);
        window.consume(200);
        assert_eq!(window.wants(start + RTT * 10, RTT), None, "nine round trips for one window");
        window.consume(200);
        assert_eq!(window.wants(start + RTT * 11, RTT), Some(150));
        window.grow(150);
        window.consume(350);
        assert_eq!(window.wants(start + RTT * 12, RTT), None, "at the bound");
    }
}
