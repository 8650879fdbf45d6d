//! The blocking handles over loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(target_os = "linux")]
mod home_router;
mod mapping;
mod nat_matrix;
#[cfg(target_os = "linux")]
mod port_map;
mod punch;
mod punch_tcp;
mod server;
mod world;
