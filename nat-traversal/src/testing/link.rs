use std::time::{Duration, Instant};

use crate::protocol::Random;

/// What joins a host or a NAT to the network outside it. The same holds both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Link {
    /// How long a packet is under way.
    pub delay: Duration,
    /// At most so much is added to the delay, drawn anew for each packet, so that packets overtake each other.
    pub jitter: Duration,
    /// Which share of packets is lost: 0.05 is 5 %.
    pub loss: f64,
    /// Bytes a second each way; `None` for no limit. What is over it waits.
    pub rate_bytes: Option<u64>,
    /// Routers on the way, each of which counts a packet's hops down. Between two homes there are some ten.
    pub hops: u8,
}

impl Link {
    /// A link that only takes time.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// This link with a loss.
    #[must_use]
    pub const fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// This link with a jitter.
    #[must_use]
    pub const fn jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// This link with a rate.
    #[must_use]
    pub const fn rate_bytes(self, rate_bytes: u64) -> Self {
        Self { rate_bytes: Some(rate_bytes), ..self }
    }

    /// This link with so many routers on it.
    #[must_use]
    pub const fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    /// When a packet sent now arrives, `None` if it is lost. `free` is when this direction has sent all before it.
    pub(super) fn pass(
        &self,
        now: Instant,
        free: &mut Option<Instant>,
        size_bytes: usize,
        random: &mut Random,
    ) -> Option<Instant> {
        if self.loss > 0.0 && (random.below(LOSS_GRAIN) as f64) < self.loss * LOSS_GRAIN as f64 {
            return None;
        }
        let mut leaves = now;
        if let Some(rate) = self.rate_bytes {
            leaves = free.map_or(now, |free| free.max(now))
                + Duration::from_nanos(size_bytes as u64 * 1_000_000_000 / rate.max(1));
            *free = Some(leaves);
        }
        let jitter = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        let late = if jitter == 0 { 0 } else { random.below(jitter) };
        Some(leaves + self.delay + Duration::from_nanos(late))
    }
}

/// Losses are drawn in millionths.
const LOSS_GRAIN: u64 = 1_000_000;
