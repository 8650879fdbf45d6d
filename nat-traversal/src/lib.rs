#![doc = include_str!("../README.md")]

mod config;
mod error;
mod hole_punch_server;
mod io;
mod late_addresses;
mod mapped_tcp_socket;
mod mapped_udp_socket;
mod mapping_context;
mod pending_lease;
mod port_lease;
pub mod protocol;
mod punched_udp_socket;
#[cfg(feature = "turn")]
mod relay_host;
#[cfg(feature = "turn")]
mod relayed_udp_socket;
mod rendezvous_info;
mod tcp_punch;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "turn")]
mod turn_server;
#[cfg(feature = "turn")]
mod turn_socket;

pub use config::MappingConfig;
#[cfg(feature = "turn")]
pub use error::RelayError;
pub use error::{ContextError, MapError, PunchError, ServerError};
pub use hole_punch_server::HolePunchServer;
pub use igd;
pub use io::interrupt::Interrupter;
pub use late_addresses::LateAddresses;
pub use mapped_tcp_socket::MappedTcpSocket;
pub use mapped_udp_socket::MappedUdpSocket;
pub use mapping_context::{HolePunchServerAddr, MappingContext};
pub use pending_lease::PendingLease;
pub use port_lease::PortLease;
pub use protocol::nat_profile::NatProfile;
pub use protocol::port_map::{PortMapFailure, PortMapMethod, PortProtocol};
pub use protocol::{
    AddrKind, MapFailure, MappedSocketAddr, Obstacle, ParseInfoError, PortRule, PubRendezvousInfo,
    PunchOptions,
};
pub use punched_udp_socket::PunchedUdpSocket;
#[cfg(feature = "turn")]
pub use relay_host::RelayHost;
#[cfg(feature = "turn")]
pub use relayed_udp_socket::RelayedUdpSocket;
pub use rendezvous_info::{PrivRendezvousInfo, gen_rendezvous_info};
pub use tcp_punch::{tcp_punch_hole, tcp_punch_hole_with};
#[cfg(feature = "turn")]
pub use turn_server::{ParseTurnServerError, TurnServer, TurnTransport};
#[cfg(feature = "turn")]
pub use turn_socket::TurnSocket;
