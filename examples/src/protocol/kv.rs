//! Signed values that are found over several hops, by services that know nothing of threads.
//!
//! The [`Gate`] lets peers in who prove who they are, and of what they send only what its author has signed. The [`Router`] asks
//! neighbours, which ask theirs: how the answer comes home is the asker's choice, a [`Mode`]. The [`Store`] has the values of this node,
//! and the [`Api`] speaks with the user. The [`Onion`] sends messages over several nodes, none of which knows whence and
//! whereto. They tell each other [`Item`]s and share records and peers by a [`Reference`]; a [`Host`] has
//! some of them in one thread. Every query has a limit of hops, a fan-out and a lifetime, each node handles it once, every list here is
//! bounded, and what is not answered expires.

mod api;
mod auth;
mod expiring;
mod gate;
mod host;
mod item;
mod message;
pub mod onion;
mod record;
mod reference;
mod route;
mod router;
mod rules;
mod store;

pub use api::Api;
pub use auth::{AuthMessage, Challenge, Claim, Refused};
pub use gate::{Gate, GateSettings, Signer};
pub use host::Host;
pub use item::{
    ApiInput, GateInput, Item, NetworkOutput, OnionInput, OnionOutcome, Over, Peer, Query, RouterInput,
    StoreInput,
};
pub use message::{Ask, Message, Mode, NotMessage};
pub use onion::{Onion, OnionError, OnionSettings};
pub use record::{MAX_KEY, MAX_VALUE, Record, RecordError};
pub use reference::{ArcRef, Content, Handles, Owned, Packed, RcRef, Reference};
pub use route::Route;
pub use router::Router;
pub use rules::Rules;
pub use store::Store;

#[cfg(test)]
mod tests;
