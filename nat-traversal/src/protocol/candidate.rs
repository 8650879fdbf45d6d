use std::net::SocketAddr;

mod usable;

pub(crate) use usable::{is_global, usable};

/// An address at which a socket may be reached, and what is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedSocketAddr {
    /// The address.
    pub addr: SocketAddr,
    /// How it was learned.
    pub kind: AddrKind,
    /// Whether a NAT or firewall is known to stand before it, so that a peer gets in only after we have sent to it.
    pub nat_restricted: bool,
    /// Which port of this address other peers get to see.
    pub ports: PortRule,
}

/// How an address was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AddrKind {
    /// It is one of this host's own.
    Host,
    /// A router was asked to forward it to us.
    PortMapped,
    /// A server sees us under it.
    Reflexive,
    /// A relay forwards it to us.
    Relayed,
}

/// Which outside port a NAT gives to one inside port, as far as the answers of several servers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRule {
    /// The same for every destination.
    Stable,
    /// The next destination gets the last port plus this step; the address has the last port seen.
    Sequential(i16),
    /// Every destination gets another one, and nothing tells which.
    Random,
    /// Only one server has answered.
    Unknown,
}

impl std::fmt::Display for AddrKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::PortMapped => "port-mapped",
            Self::Reflexive => "reflexive",
            Self::Relayed => "relayed",
        })
    }
}

impl MappedSocketAddr {
    /// An address of this host.
    #[must_use]
    pub const fn host(addr: SocketAddr) -> Self {
        Self { addr, kind: AddrKind::Host, nat_restricted: false, ports: PortRule::Stable }
    }

    /// An address that a router forwards to us. Behind a further NAT it is a private one, which strangers do not reach.
    #[must_use]
    pub const fn port_mapped(addr: SocketAddr, nat_restricted: bool) -> Self {
        Self { addr, kind: AddrKind::PortMapped, nat_restricted, ports: PortRule::Stable }
    }

    /// An address that servers see.
    #[must_use]
    pub const fn reflexive(addr: SocketAddr, ports: PortRule) -> Self {
        Self { addr, kind: AddrKind::Reflexive, nat_restricted: true, ports }
    }
}
