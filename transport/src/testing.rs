//! A transport in memory: the machines of this crate on a host of [`nat_traversal::testing::Net`], in virtual time.
//!
//! *Needs the feature `testing`; outside semantic versioning.*
//!
//! A [`Node`] is what a [`Transport`](crate::Transport) is without sockets, threads and a clock: QUIC with TLS and keys, paths and
//! their checks, dials that meet, rendezvous that punch, an address at a relay. What decides is the code that the transport
//! runs; what is the node's own is the little that carries datagrams and bytes from one machine to the next. A program of
//! a network is whoever owns the node, hands it what arrives, and sends what it gives.
//!
//! What it has not: locks, batches of datagrams, the kernel's buffers and ICMP.

mod call;
mod links;
mod meeting;
mod node;
#[cfg(test)]
mod on_the_way;

pub use meeting::{MeetingId, MeetingOptions, Seen};
pub use node::{DialId, Node, NodeConfig, NodeEvent, StreamId};
