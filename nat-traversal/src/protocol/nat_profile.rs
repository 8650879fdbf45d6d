//! What a NAT does, in the words of [RFC 4787](https://www.rfc-editor.org/rfc/rfc4787), and what follows from that for two
//! peers who want to meet.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Obstacle, PortRule};

mod lifetime;
mod prober;
mod strategy;

pub use lifetime::{BindingLifetime, LifetimeProber};
pub use prober::NatProber;
pub use strategy::{Strategy, strategy};

/// What is known of the NATs and firewalls between a host and the internet. `None` always means: not measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NatProfile {
    /// The addresses under which servers see a socket of this host, the latest last.
    pub public: Vec<SocketAddr>,
    /// When a socket keeps its outside port.
    pub mapping: Option<Mapping>,
    /// Who gets in through an outside port.
    pub filtering: Option<Filtering>,
    /// Which outside port a socket gets.
    pub ports: Option<Ports>,
    /// Whether hosts behind the same NAT reach each other by their outside addresses.
    pub hairpin: Option<bool>,
    /// Whether UDP passes.
    pub udp: Option<Udp>,
    /// How many NATs there are: none, one at the nearest router, or two or more. A NAT that is farther away than the nearest
    /// router is taken for a second one. It cannot be measured where a NAT gives each port of a server another port of ours, and
    /// where it lets everybody in by another port than the inside one; a router that
    /// [forwards](crate::PortLease::external) a port tells it by its own idea of its address.
    pub nat_levels: Option<u8>,
    /// How many routers away the outermost NAT or firewall is, up to three; the nearest router is one away. It tells how long
    /// a packet has to live to open it.
    pub nat_distance: Option<u8>,
    /// How long an outside port lives at least without traffic. It takes minutes to measure:
    /// [`MappingContext::nat_profile`](crate::MappingContext::nat_profile) does not,
    /// [`MappingContext::binding_lifetime`](crate::MappingContext::binding_lifetime) does.
    pub binding_lifetime: Option<Duration>,
}

/// When a socket keeps its outside port (RFC 4787, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// There is no NAT.
    None,
    /// For all destinations.
    EndpointIndependent,
    /// For all ports of one destination address.
    AddressDependent,
    /// For one destination only. Also what a NAT is taken for that changes ports, if the servers cannot tell more.
    AddressAndPortDependent,
}

/// Who gets in through an outside port (RFC 4787, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// Who has an address that was sent to.
    AddressDependent,
    /// Who has an address and port that was sent to.
    AddressAndPortDependent,
}

/// Which outside port a socket gets (RFC 4787, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The inside one.
    Preserved,
    /// Another one, but always the same.
    Stable,
    /// The last one given plus a step, for each destination.
    Sequential(i16),
    /// Any, for each destination.
    Random,
}

/// Whether UDP passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Udp {
    /// It does.
    Open,
    /// It does not, although TCP does.
    Blocked,
}

impl NatProfile {
    /// What a peer can know of the port that it will see.
    #[must_use]
    pub const fn port_rule(&self) -> PortRule {
        match (self.mapping, self.ports) {
            (Some(Mapping::None | Mapping::EndpointIndependent), _) => PortRule::Stable,
            (_, Some(Ports::Preserved | Ports::Stable)) => PortRule::Stable,
            (_, Some(Ports::Sequential(step))) => PortRule::Sequential(step),
            (_, Some(Ports::Random)) => PortRule::Random,
            (_, None) => PortRule::Unknown,
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

impl fmt::Display for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preserved => "preserved",
            Self::Stable => "stable",
            Self::Sequential(_) => "sequential",
            Self::Random => "random",
        })
    }
}
