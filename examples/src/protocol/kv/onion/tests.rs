//! Packets, and services in virtual time.
#![expect(clippy::disallowed_methods, reason = "virtual time needs a beginning, and all is relative to it")]

mod network;
mod packets;

use std::collections::BTreeSet;

use crust::Identity;

use super::*;

fn identity(place: usize) -> Identity {
    Identity::from_seed([place as u8 + 1; 32])
}

fn key(place: usize) -> PublicKey {
    identity(place).public_key()
}

/// Bytes by chance, the same for a seed.
fn chance(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    }
}

/// Whether two texts have so many bytes in a row in common, wherever they are.
fn share(one: &[u8], other: &[u8], bytes: usize) -> bool {
    let windows: BTreeSet<&[u8]> = one.windows(bytes).collect();
    other.windows(bytes).any(|window| windows.contains(window))
}
