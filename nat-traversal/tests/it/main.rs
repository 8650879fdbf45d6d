//! The blocking handles over loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(feature = "turn")]
mod coturn;
mod mapping;
mod nat_matrix;
mod punch;
mod punch_tcp;
#[cfg(feature = "turn")]
mod relay;
mod server;
mod world;
