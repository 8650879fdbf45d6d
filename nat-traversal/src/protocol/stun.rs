//! STUN ([RFC 8489](https://www.rfc-editor.org/rfc/rfc8489)): messages, a client that asks several servers at once, and
//! a server.
//!
//! The codec is our own: a Binding message needs little, its integrity is `ring`'s HMAC, which the tree has anyway, and
//! what reads datagrams of strangers should neither allocate nor log for each bad one.

mod address;
pub(crate) mod client;
mod message;
mod server;

pub use client::{StunClient, StunEvent, StunFailure};
pub use message::{Attribute, Class, DecodeError, Message, MessageBuilder, Method, TransactionId, attribute};
pub use server::{ServerAddresses, StunServer};
