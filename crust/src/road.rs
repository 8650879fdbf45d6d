use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use transport::{NamedEndpoint, PathKind};

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
    pub(crate) const ALL: [Self; 4] = [Self::Lan, Self::Direct, Self::Punched, Self::Relayed];

    /// What dialling an address would be: the same rule as for streams that came about.
    pub(crate) fn to(addr: Option<SocketAddr>) -> Self {
        let near = addr.is_some_and(|addr| match addr.ip().to_canonical() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        });
        if near { Self::Lan } else { Self::Direct }
    }
}

impl FromStr for Road {
    type Err = ParseRoadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|road| road.to_string() == text).ok_or(ParseRoadError)
    }
}

/// A text is no road.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a road is one of lan, direct, punched, relayed")]
#[non_exhaustive]
pub struct ParseRoadError;

/// Roads that may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roads {
    lan: bool,
    direct: bool,
    punched: bool,
    relayed: bool,
}

impl Roads {
    pub(crate) const ALL: Self = Self { lan: true, direct: true, punched: true, relayed: true };

    pub(crate) const fn contains(self, road: Road) -> bool {
        match road {
            Road::Lan => self.lan,
            Road::Direct => self.direct,
            Road::Punched => self.punched,
            Road::Relayed => self.relayed,
        }
    }

    /// Those that both allow.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            lan: self.lan && other.lan,
            direct: self.direct && other.direct,
            punched: self.punched && other.punched,
            relayed: self.relayed && other.relayed,
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Road> {
        Road::ALL.into_iter().filter(move |road| self.contains(*road))
    }

    /// Whether an address may be dialled. Where a name leads is not known before; it counts as one that leads anywhere.
    pub(crate) fn admit(self, endpoint: &NamedEndpoint) -> bool {
        self.contains(Road::to(endpoint.to_endpoint().map(|endpoint| endpoint.addr())))
    }

    /// The same for a meeting.
    pub(crate) fn kinds(self) -> impl Iterator<Item = PathKind> {
        self.iter().map(|road| match road {
            Road::Lan => PathKind::Lan,
            Road::Direct => PathKind::Direct,
            Road::Punched => PathKind::Punched,
            Road::Relayed => PathKind::Relayed,
        })
    }
}

impl FromIterator<Road> for Roads {
    fn from_iter<I: IntoIterator<Item = Road>>(roads: I) -> Self {
        let mut some = Self { lan: false, direct: false, punched: false, relayed: false };
        for road in roads {
            *match road {
                Road::Lan => &mut some.lan,
                Road::Direct => &mut some.direct,
                Road::Punched => &mut some.punched,
                Road::Relayed => &mut some.relayed,
            } = true;
        }
        some
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
