//! Asking a router to forward a port: PCP ([RFC 6887](https://www.rfc-editor.org/rfc/rfc6887)), NAT-PMP
//! ([RFC 6886](https://www.rfc-editor.org/rfc/rfc6886)) and UPnP.
//!
//! [`PortMapper`] is the whole life of one forwarded port: it tries the three in this order, keeps what the router gave,
//! has it renewed, notices when the router has forgotten it, and gives it back in the end.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

mod client;
mod epoch;
mod mapper;
pub mod nat_pmp;
pub mod pcp;

pub use client::{ClientEvent, PortMapClient};
pub use epoch::Epoch;
pub use mapper::{PortMapEvent, PortMapper, UpnpAnswer, UpnpTask};

/// What a port is to be forwarded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapRequest {
    /// UDP or TCP.
    pub protocol: PortProtocol,
    /// The address and port of this host that packets are to come to.
    pub local: SocketAddr,
    /// How long the router is asked to keep it without hearing from us.
    pub lifetime: Duration,
}

/// Whose ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortProtocol {
    /// Ports of UDP.
    Udp,
    /// Ports of TCP.
    Tcp,
}

impl PortProtocol {
    /// The number in [IANA's list](https://www.iana.org/assignments/protocol-numbers).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }
}

/// By which protocol a router is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMapMethod {
    /// Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// UPnP Internet Gateway Device, version 1 or 2.
    Upnp,
}

impl fmt::Display for PortMapMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// A forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping {
    /// The address outside. If it is a private one, there is another NAT behind this router.
    pub external: SocketAddr,
    /// How the router was asked.
    pub method: PortMapMethod,
    /// The router.
    pub router: IpAddr,
    /// How long the router keeps it if nobody renews it; `None` for ever.
    pub lifetime: Option<Duration>,
}

/// Why a port is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PortMapFailure {
    /// Nobody knows whom to ask.
    #[error("the system names no default gateway; name the router in the configuration")]
    NoRouter,
    /// The router does not answer.
    #[error("{method}: no answer from {router}")]
    Silent {
        /// How it was asked.
        method: PortMapMethod,
        /// The router.
        router: IpAddr,
    },
    /// The router answers that it does not do so.
    #[error("{method}: {router} refuses: {reason}")]
    Refused {
        /// How it was asked.
        method: PortMapMethod,
        /// The router.
        router: IpAddr,
        /// What it says.
        reason: Cow<'static, str>,
    },
    /// No router was found by UPnP's search, or none that may be trusted.
    #[error("UPnP: no router found: {reason}")]
    NotFound {
        /// What happened.
        reason: Cow<'static, str>,
    },
    /// The router had not answered when the time was over. If it answers later, what it gave is given back.
    #[error("no router had answered in time")]
    Late,
    /// The system gave no socket or no thread.
    #[error("cannot ask the router: {reason}")]
    System {
        /// What the system says.
        reason: Cow<'static, str>,
    },
}

/// Where PCP and NAT-PMP servers listen ([RFC 6887, section 19.1](https://www.rfc-editor.org/rfc/rfc6887#section-19.1)).
pub const SERVER_PORT: u16 = 5351;

/// Where clients hear announcements of routers that have restarted.
pub const ANNOUNCEMENT_PORT: u16 = 5350;

/// No lifetime of a router's is believed beyond a day: numbers above are for leases nobody would notice the loss of.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
