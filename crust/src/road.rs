use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use transport::PathKind;

/// By what kind of way a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Road {
    /// Inside one local network, or one machine.
    Lan,
    /// Straight to an address of the peer.
    Direct,
    /// Straight, through a hole punched into the routers on the way.
    Punched,
    /// Over a relay, which sees ciphertext only.
    Relayed,
}

impl Road {
    /// What dialling an address would be: the same rule as for streams that came about.
    pub(crate) fn to(addr: Option<SocketAddr>) -> Self {
        let near = addr.is_some_and(|addr| match addr.ip().to_canonical() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        });
        if near { Self::Lan } else { Self::Direct }
    }
}

impl fmt::Display for Road {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Punched => "punched",
            Self::Relayed => "relayed",
        })
    }
}

impl From<PathKind> for Road {
    fn from(kind: PathKind) -> Self {
        match kind {
            PathKind::Lan => Self::Lan,
            PathKind::Punched => Self::Punched,
            PathKind::Relayed => Self::Relayed,
            _ => Self::Direct,
        }
    }
}
