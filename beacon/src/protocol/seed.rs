//! Randomness of the machines: drawn from a seed given at construction, so that a run can be repeated.

use std::time::Duration;

/// 32 bytes of entropy from which a machine derives its identity and all its jitter.
///
/// Not shown by `Debug`: the identity bytes come from it.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Wraps 32 bytes, from the system's entropy in production and from a test's seed in simulations.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Seed {
    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Seed(..)")
    }
}

/// A small generator (xoshiro256**) for jitter and identity bytes: nothing here has to resist a cryptanalyst.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    pub(super) fn new(seed: &Seed) -> Self {
        let mut state = [0_u64; 4];
        for (word, bytes) in state.iter_mut().zip(seed.0.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        }
        // The all-zero state is the generator's only fixed point.
        state[3] |= u64::from(state == [0; 4]);
        let mut random = Self { state };
        // Seeds of tests differ in few bits; a few steps spread them over the state.
        for _ in 0..WARM_UP {
            random.next();
        }
        random
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_be_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// A duration between nothing and `limit`, evenly distributed.
    pub(super) fn up_to(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.fraction())
    }

    /// `middle`, up to a twentieth shorter or longer.
    pub(super) fn around(&mut self, middle: Duration) -> Duration {
        middle.mul_f64(0.95 + 0.1 * self.fraction())
    }

    /// A number from 0 to just below 1.
    fn fraction(&mut self) -> f64 {
        // 53 bits are what a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let fraction = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        fraction
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }
}

const WARM_UP: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equally_and_others_do_not() {
        let draw = |byte| Random::new(&Seed::new([byte; 32])).bytes(16);

        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(0), vec![0; 16]);
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        let mut random = Random::new(&Seed::new([7; 32]));
        let second = Duration::from_secs(1);

        for _ in 0..1000 {
            assert!(random.up_to(second) < second);
            let around = random.around(second);
            assert!(around >= second.mul_f64(0.95) && around < second.mul_f64(1.05));
        }
    }
}
