//! Pure state machines: `now`, seeds and messages in; messages and deadlines out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod gossip;
pub mod kv;
pub mod maelstrom;
pub mod mesh;
mod node;

pub use node::Node;
