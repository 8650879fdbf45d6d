#![doc = include_str!("../README.md")]

pub mod protocol;
#[cfg(feature = "testing")]
pub mod testing;
