//! The built command, as a user runs it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "dht")]
mod dht;
mod discover;
mod doctor;
mod forward;
mod key_and_config;
mod measure;
mod pipe;
mod support;
mod transcript;
mod transfer;
mod transfer_faults;
mod usage;
