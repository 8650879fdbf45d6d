//! Thin drivers: sockets, clock, entropy, threads. They decide nothing.

pub(crate) mod clock;
pub(crate) mod entropy;
