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
    /// sender then waits for credit rather than for the reader. Not larger than what a path of that `least` round trip can
    /// hold: beyond it, a window only fills queues.
    pub(super) fn wants(&mut self, now: Instant, round_trip: Duration, least: Duration) -> Option<u64> {
        if self.consumed < self.bytes {
            return None;
        }
        let took = now.saturating_duration_since(self.since);
        self.consumed = 0;
        self.since = now;
        let most = self.max_bytes.min(held_by_path(least));
        let more = self.bytes.min(most.saturating_sub(self.bytes));
        (more > 0 && took < round_trip.saturating_mul(KEEPS_UP)).then_some(more)
    }

    pub(super) fn grow(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Twice what a fast path of that round trip carries, so that credit on its way back never holds it up.
fn held_by_path(round_trip: Duration) -> u64 {
    let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(2 * FAST_BYTES_PER_MICRO).max(NEAR_BYTES)
}

/// 10 Gbit/s.
const FAST_BYTES_PER_MICRO: u64 = 1_250;
/// What every path may hold: less than the kernel keeps for a socket, and few enough datagrams that the engine need not copy
/// them together.
const NEAR_BYTES: u64 = 1 << 20;
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
        assert_eq!(window.wants(start + RTT, RTT, RTT), None);
        window.consume(1);
        assert_eq!(window.wants(start + RTT, RTT, RTT), Some(100));
        window.grow(100);
        window.consume(200);
        assert_eq!(window.wants(start + RTT * 10, RTT, RTT), None, "nine round trips for one window");
        window.consume(200);
        assert_eq!(window.wants(start + RTT * 11, RTT, RTT), Some(150));
        window.grow(150);
        window.consume(350);
        assert_eq!(window.wants(start + RTT * 12, RTT, RTT), None, "at the bound");
    }

    #[test]
    fn a_near_path_keeps_a_small_window_and_a_long_one_reaches_the_bound() {
        let start = start();
        let grown = |least| {
            let mut window = Window::new(512 << 10, 12_500_000, start);
            for _ in 0..10 {
                window.consume(usize::try_from(window.bytes()).unwrap());
                let more = window.wants(start, RTT, least);
                window.grow(more.unwrap_or(0));
            }
            window.bytes()
        };
        assert_eq!(grown(Duration::from_micros(50)), NEAR_BYTES, "whatever queues add to the round trip");
        assert_eq!(grown(Duration::from_millis(2)), 5_000_000);
        assert_eq!(grown(Duration::from_millis(100)), 12_500_000);
    }
}
