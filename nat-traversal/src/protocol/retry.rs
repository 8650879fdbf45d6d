use std::time::{Duration, Instant};

/// When to send a request again and when to give it up: the timer of
/// [RFC 8489, section 6.2.1](https://www.rfc-editor.org/rfc/rfc8489#section-6.2.1), as data.
///
/// The waits between sendings double. After the last sending the answer is awaited once more, and then
/// [`Retry::poll`] says [`Due::GiveUp`].
#[derive(Debug, Clone)]
pub struct Retry {
    due: Instant,
    wait: Duration,
    last_wait: Duration,
    left: u32,
    sent: u32,
}

/// What a [`Retry`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing before [`Retry::timeout`].
    Nothing,
    /// Send the request (again).
    Send,
    /// Nobody answered; it is over.
    GiveUp,
}

impl Retry {
    /// The first wait. RFC 8489 asks for at least 500 ms where nothing is known of the path. We stay below it, as ICE
    /// does, because a lost datagram would otherwise cost the user half a second of each connect.
    pub const FIRST_WAIT: Duration = Duration::from_millis(200);

    /// Sendings of one request: the RFC's seven.
    pub const SENDINGS: u32 = 7;

    /// The wait after the last sending in units of the first one: the RFC's sixteen.
    pub const LAST_WAIT_FACTOR: u32 = 16;

    /// The timer for a request to a server: its first sending is due at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self::with(now, Self::FIRST_WAIT, Self::SENDINGS, Self::FIRST_WAIT * Self::LAST_WAIT_FACTOR)
    }

    /// A timer with `sendings` sendings, the first due at `now`, the second `first_wait` later, and an end `last_wait`
    /// after the last one.
    #[must_use]
    pub const fn with(now: Instant, first_wait: Duration, sendings: u32, last_wait: Duration) -> Self {
        Self { due: now, wait: first_wait, last_wait, left: sendings, sent: 0 }
    }

    /// What is due. [`Due::Send`] counts as sent.
    pub fn poll(&mut self, now: Instant) -> Due {
        if now < self.due {
            return Due::Nothing;
        }
        if self.left == 0 {
            return Due::GiveUp;
        }
        self.left -= 1;
        self.sent += 1;
        self.due = now + if self.left == 0 { self.last_wait } else { self.wait };
        self.wait = self.wait.saturating_mul(2);
        Due::Send
    }

    /// When [`poll`](Self::poll) will next ask for something.
    #[must_use]
    pub const fn timeout(&self) -> Instant {
        self.due
    }

    /// How often the request has been sent.
    #[must_use]
    pub const fn sent(&self) -> u32 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::epoch;

    #[test]
    fn sends_seven_times_with_doubling_waits_and_then_gives_up() {
        let start = epoch();
        let mut retry = Retry::new(start);
        let mut sendings = Vec::new();
        loop {
            let now = retry.timeout();
            match retry.poll(now) {
                Due::Send => sendings.push(now.duration_since(start).as_millis()),
                Due::GiveUp => {
                    assert_eq!(now.duration_since(start).as_millis(), 12_600 + 3_200);
                    break;
                }
                Due::Nothing => panic!("asked at its own time and had nothing to do"),
            }
        }
        assert_eq!(sendings, [0, 200, 600, 1_400, 3_000, 6_200, 12_600]);
    }

    #[test]
    fn asks_for_nothing_before_its_time() {
        let start = epoch();
        let mut retry = Retry::new(start);
        assert_eq!(retry.poll(start), Due::Send);
        assert_eq!(retry.poll(start + Duration::from_millis(199)), Due::Nothing);
        assert_eq!(retry.poll(start + Duration::from_millis(200)), Due::Send);
    }

    #[test]
    fn a_late_poll_waits_from_then_on_and_does_not_catch_up_in_a_burst() {
        let start = epoch();
        let mut retry = Retry::new(start);
        assert_eq!(retry.poll(start), Due::Send);
        let late = start + Duration::from_secs(60);
        assert_eq!(retry.poll(late), Due::Send);
        assert_eq!(retry.poll(late), Due::Nothing);
    }
}
