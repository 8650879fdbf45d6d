//! Pure protocol code: bytes, addresses, `now` and seeds in; bytes, deadlines and events out.
//!
//! These are the machines behind the blocking calls of this crate. They are public for programs that have a loop of
//! their own, such as one that shares a socket between hole punching and another protocol; drive them as
//! [`Machine`] says.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod machine;
mod random;
mod retry;

pub use machine::{Datagram, Machine, SocketIndex, Transmit};
pub use random::{Random, Seed};
pub use retry::{Due, Retry};
