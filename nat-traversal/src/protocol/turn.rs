//! TURN ([RFC 8656](https://www.rfc-editor.org/rfc/rfc8656)): a relay that lends us one of its addresses and passes on
//! what arrives there.
//!
//! *Needs the feature `turn`.*
//!
//! [`TurnClient`] is the machine: it keeps an allocation, the permissions of peers and their channels alive. It has no
//! sockets, so that a program can carry it over a datagram socket that it shares with other protocols, or over a stream
//! with TLS.
//!
//! [`RelayServer`] is the other side, which lends addresses to others.
//!
//! Both are written on our own STUN codec: the crate at hand brings 25 crates along, records the key of each
//! message in its trace spans, and does not follow a server that refers to another.

mod auth;
mod channel;
mod client;
mod failure;
mod md5;
mod peers;
mod server;
mod transaction;

pub use auth::TurnCredentials;
pub use channel::{ChannelNumber, frame_length};
pub use client::{AddressFamily, TurnClient, TurnEvent, TurnLink, TurnReceived, TurnStats};
pub use failure::{TurnFailure, TurnSendError};
pub use server::{
    Cidr, ParseCidrError, RelayClient, RelayId, RelayOrder, RelayRules, RelaySecret, RelayServer, RelayStats,
    TargetPolicy,
};
