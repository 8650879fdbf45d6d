use std::net::{IpAddr, SocketAddr};

use crate::protocol::{Event, News};

/// What was heard of a peer on one interface.
///
/// A peer that is reachable by two interfaces gives two series of messages, each with its own source address.
///
/// Everything in a message is a hint: whoever is on the link can say anything, under any name. Prove who a peer is when
/// connecting to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    event: Event,
}

impl Message {
    pub(crate) const fn new(event: Event) -> Self {
        Self { event }
    }

    /// What is new: the peer appeared, changed its data, repeated itself or left.
    #[must_use]
    pub const fn news(&self) -> News {
        self.event.news
    }

    /// Where the peer sends from: its address on the link, and a port that only its beacon uses.
    ///
    /// An IPv6 address is link-local and carries the interface's index as its scope.
    #[must_use]
    pub const fn source(&self) -> SocketAddr {
        self.event.source
    }

    /// The peer's address of the other family, if it was heard by IPv4 and by IPv6 on this interface.
    #[must_use]
    pub const fn other_source(&self) -> Option<SocketAddr> {
        self.event.other_source
    }

    /// The name of the interface by which the message came.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.event.link.name
    }

    /// The index of the interface by which the message came.
    #[must_use]
    pub fn interface_index(&self) -> u32 {
        self.event.link.id.0
    }

    /// The data that the peer announces; when it has left, what it announced last.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.event.payload
    }

    /// The data, without a copy.
    #[must_use]
    pub fn into_payload(self) -> Vec<u8> {
        self.event.payload
    }

    /// Tells whether an address can be reached without a router on the interface by which the message came.
    ///
    /// An address inside a payload that is not on the link was either put there to send connections elsewhere, or
    /// belongs to another network of the peer: use it with care.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.event.link.is_on_link(address)
    }
}
