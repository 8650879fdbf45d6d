//! What the larger examples are made of: pure state machines under [`protocol`], and beside it the thin code that moves
//! lines and bytes for them. The programs are in `src/bin`.

pub mod broadcast;
mod complaints;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod kv;
mod lines;
pub mod mesh;
pub mod protocol;
