//! Chance for tests and fuzz targets: the seed tells all.
#![cfg_attr(not(test), allow(dead_code, reason = "fuzz targets use a part of it"))]

/// Draws numbers from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// 0 to `sides` - 1.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        splitmix64(&mut self.0) % sides
    }
}

/// The next number of a generator that is enough to shuffle events.
pub(crate) fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
