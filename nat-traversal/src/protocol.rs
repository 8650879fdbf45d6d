//! Pure protocol code: bytes, addresses, `now` and seeds in; bytes, deadlines and events out.
//!
//! These are the machines behind the blocking calls of this crate. They are public for programs that have a loop of
//! their own, such as one that shares a socket between hole punching and another protocol; drive them as
//! [`Machine`] says.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod candidate;
mod machine;
mod mapping;
pub mod nat_profile;
pub mod port_map;
mod punch;
mod random;
mod rendezvous;
mod retry;
pub mod stun;
#[cfg(feature = "turn")]
pub mod turn;

pub(crate) use candidate::is_global;
pub use candidate::{AddrKind, MappedSocketAddr, PortRule};
pub use machine::{Datagram, Machine, SocketIndex, Transmit};
pub(crate) use mapping::StreamMapper;
pub use mapping::{MapFailure, Mapper, Mapping};
pub use nat_profile::{NatProber, NatProfile};
pub use punch::{
    ConnectionId, Dial, KeyError, Obstacle, PunchEvent, PunchKeys, PunchOptions, TcpPunchEvent, TcpPuncher,
    UdpPuncher,
};
pub use random::{Random, Seed};
pub use rendezvous::{ParseInfoError, PubRendezvousInfo};
pub use retry::{Due, Retry};
pub use stun::{StunClient, StunEvent, StunFailure, StunServer};
