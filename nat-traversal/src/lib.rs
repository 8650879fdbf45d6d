#![doc = include_str!("../README.md")]

mod config;
mod error;
mod hole_punch_server;
mod io;
mod mapped_tcp_socket;
mod mapped_udp_socket;
mod mapping_context;
mod port_lease;
pub mod protocol;
mod punched_udp_socket;
mod rendezvous_info;
mod tcp_punch;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::MappingConfig;
pub use error::{ContextError, MapError, PunchError, ServerError};
pub use hole_punch_server::HolePunchServer;
pub use igd;
pub use io::interrupt::Interrupter;
pub use mapped_tcp_socket::MappedTcpSocket;
pub use mapped_udp_socket::MappedUdpSocket;
pub use mapping_context::{HolePunchServerAddr, MappingContext};
pub use port_lease::PortLease;
pub use protocol::port_map::{PortMapFailure, PortMapMethod, PortProtocol};
pub use protocol::{
    AddrKind, MapFailure, MappedSocketAddr, Obstacle, ParseInfoError, PortRule, PubRendezvousInfo,
};
pub use punched_udp_socket::PunchedUdpSocket;
pub use rendezvous_info::{PrivRendezvousInfo, gen_rendezvous_info};
pub use tcp_punch::tcp_punch_hole;
