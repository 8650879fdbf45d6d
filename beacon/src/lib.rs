#![doc = include_str!("../README.md")]

mod beacon;
mod config;
mod error;
mod io;
mod message;
pub mod protocol;
mod stats;
mod warning;
mod watch;

pub use crate::beacon::{Beacon, BeaconController, Messages};
pub use crate::config::{BeaconConfig, Interfaces};
pub use crate::error::{BeaconError, NextError, SetDataError};
pub use crate::message::Message;
pub use crate::protocol::{Departure, GroupSecret, News, Refusals, SecretTooShort, TooLarge};
pub use crate::stats::Stats;
pub use crate::warning::Warning;
pub use crate::watch::NetworkWatch;
