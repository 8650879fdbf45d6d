//! Behaviour that users rely on, over real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod chores;
mod connect;
mod dialogue;
mod endings;
mod labels;
mod paths;
mod promptness;
mod proxy;
#[cfg(feature = "turn")]
mod relay;
mod rendezvous;
mod reunion;
mod shutdown;
mod stream_set;
mod support;
mod tails;
mod tcp;
