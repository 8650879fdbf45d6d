use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::endpoint::Scheme;

/// How the bytes of a stream travel now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Path {
    /// By what kind of road.
    pub kind: PathKind,
    /// TCP or QUIC.
    pub scheme: Scheme,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end, as seen from here.
    pub remote: SocketAddr,
    /// The smoothed round-trip time, where it is known: on QUIC.
    pub round_trip: Option<Duration>,
    /// How often the path has changed since the connection began; it never does on TCP.
    pub changes: u64,
}

/// A kind of road.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PathKind {
    /// Within this host or this network.
    Lan,
    /// To an address that can be reached from anywhere.
    Direct,
    /// Through holes in NATs that both sides opened.
    Punched,
    /// Through a relay.
    Relayed,
}

impl PathKind {
    /// What a path to a dialled or seen address is.
    pub(crate) fn of(remote: SocketAddr, punched: bool) -> Self {
        let local = match remote.ip().to_canonical() {
            IpAddr::V4(addr) => addr.is_loopback() || addr.is_private() || addr.is_link_local(),
            IpAddr::V6(addr) => addr.is_loopback() || addr.is_unique_local() || addr.is_unicast_link_local(),
        };
        match (local, punched) {
            (true, _) => Self::Lan,
            (false, true) => Self::Punched,
            (false, false) => Self::Direct,
        }
    }
}

/// Some of the kinds of roads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathKinds {
    lan: bool,
    direct: bool,
    punched: bool,
    relayed: bool,
}

impl PathKinds {
    pub(crate) const ALL: Self = Self { lan: true, direct: true, punched: true, relayed: true };

    pub(crate) fn contains(self, kind: PathKind) -> bool {
        match kind {
            PathKind::Lan => self.lan,
            PathKind::Direct => self.direct,
            PathKind::Punched => self.punched,
            PathKind::Relayed => self.relayed,
        }
    }
}

impl FromIterator<PathKind> for PathKinds {
    fn from_iter<I: IntoIterator<Item = PathKind>>(kinds: I) -> Self {
        let mut some = Self { lan: false, direct: false, punched: false, relayed: false };
        for kind in kinds {
            *match kind {
                PathKind::Lan => &mut some.lan,
                PathKind::Direct => &mut some.direct,
                PathKind::Punched => &mut some.punched,
                PathKind::Relayed => &mut some.relayed,
            } = true;
        }
        some
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Punched => "punched",
            Self::Relayed => "relayed",
        })
    }
}
