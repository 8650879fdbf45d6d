//! The blocking handles over loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adversary;
#[cfg(feature = "turn")]
mod coturn;
#[cfg(target_os = "linux")]
mod home_router;
mod late;
mod mapping;
mod nat_matrix;
#[cfg(target_os = "linux")]
mod port_map;
mod punch;
mod punch_tcp;
#[cfg(feature = "turn")]
mod relay;
mod relay_host;
#[cfg(feature = "turn")]
mod relay_matrix;
mod server;
mod simulation;
mod strategy;
mod tcp_matrix;
mod tcp_world;
mod world;
