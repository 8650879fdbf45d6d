//! What the larger examples are made of: pure state machines under [`protocol`], and beside it the thin code that moves
//! lines and bytes for them. The programs are in `src/bin`.

pub mod broadcast;
mod complaints;
pub mod kv;
mod lines;
pub mod mesh;
pub mod protocol;
