//! Thin drivers: sockets, clock, entropy, the thread. No decision about the protocol is made here.

pub(crate) mod changes;
pub(crate) mod clock;
pub(crate) mod entropy;
pub(crate) mod interfaces;
pub(crate) mod mailbox;
pub(crate) mod network;
pub(crate) mod queue;
pub(crate) mod socket;
pub(crate) mod worker;
