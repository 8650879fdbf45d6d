//! The blocking handles over loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod mapping;
mod nat_matrix;
mod punch;
mod punch_tcp;
mod server;
mod world;
