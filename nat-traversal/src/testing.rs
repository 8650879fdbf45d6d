//! A network in memory: your own protocol behind two carrier NATs in `cargo test`, in microseconds, without root.
//!
//! *Needs the feature `testing`; outside semantic versioning.*
//!
//! A [`Net`] has hosts, NATs between them and the internet, and links with delay, loss, reordering and a rate. Time is
//! virtual: [`Net::run`] jumps from one happening to the next. One [`Seed`](crate::protocol::Seed) decides
//! everything that is left to chance, so a run that failed is replayed bit for bit by its seed. Whatever implements
//! [`Machine`](crate::protocol::Machine) runs on a host.
//!
//! ```
//! use std::time::Duration;
//! use nat_traversal::protocol::{Seed, SocketIndex};
//! use nat_traversal::testing::{Link, Nat, Net, Rule};
//!
//! let mut net = Net::new(Seed::from(1));
//! let server = net.host(None, "203.0.113.10", Link::delay(Duration::from_millis(20)));
//! let carrier = net.nat(None, "198.51.100.2", Link::delay(Duration::from_millis(20)), Nat::hard());
//! let home = net.nat(Some(carrier), "100.64.10.2", Link::default(), Nat::easy());
//! let laptop = net.host(Some(home), "192.168.1.11", Link::default());
//!
//! net.bind(server, 3478);
//! net.bind(laptop, 4000);
//! net.send(laptop, SocketIndex::MAIN, "203.0.113.10:3478".parse()?, b"who am I?");
//! let arrived = net.receive(server, Duration::from_secs(1)).expect("nothing is lost here");
//! assert_eq!(arrived.source.ip().to_string(), "198.51.100.2");
//! assert_eq!(net.elapsed(), Duration::from_millis(40));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! What it does not model: fragmentation, congestion of shared segments, ICMP, and TCP beyond what opening connections
//! needs.

mod link;
mod nat;
mod net;
mod program;
#[cfg(feature = "turn")]
mod relay;
mod router;
mod tcp;

pub use link::Link;
pub use nat::{Nat, PortChoice, Rule, Unsolicited};
pub use net::{Arrived, Net, NodeId, Passage, TraceEntry};
pub use program::{Program, Running};
#[cfg(feature = "turn")]
pub use relay::{Relay, RelayRules};
pub use router::{Forwarding, Router};
pub use tcp::{ConnectionHandle, Segment, SegmentKind, TcpEvent, TcpMapping, TcpPunching, TcpStack, TcpStun};

/// What signs the requests of who has these credentials (RFC 8489, section 9.2.2), to write requests that no client would.
#[cfg(feature = "turn")]
#[must_use]
pub fn turn_key(credentials: &crate::protocol::turn::TurnCredentials, realm: &[u8]) -> ring::hmac::Key {
    credentials.classic_key(realm)
}

/// An instant to count virtual time from.
#[must_use]
pub fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}
