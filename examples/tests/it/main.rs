//! Each example, run as its README says.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod broadcast;
mod connect;
mod echo;
mod hole_punch;
mod kv;
mod lan_discovery;
mod mesh;
mod puppet;
mod readme;
mod sources;
mod support;
