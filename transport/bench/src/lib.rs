//! Measures `transport` beside plain sockets, rustls and quinn, all in the same run. See README.md for the tables.

mod allocations;
mod bare_quic;
mod command;
mod control;
mod machine;
mod measure;
mod path;
mod peer;
mod plan;
mod statistics;
mod system_calls;
mod systems;
mod table;
mod tables;

pub use crate::allocations::allocations;
pub use crate::command::run;
pub use crate::peer::service;
