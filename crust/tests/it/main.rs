//! What users of a service rely on, over real sockets on loopback.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "dht")]
mod dht;
mod faults;
mod forwarding;
mod home_router;
mod introducing;
mod lan;
mod local_network;
mod reaching;
mod reloading;
mod remembering;
mod scope;
mod single;
mod support;
mod taking_apart;
