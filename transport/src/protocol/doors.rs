//! Where a peer of a rendezvous listens, and when it is dialled there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::offer::Offer;
use crate::Scheme;

/// Where the peer listens: dialled again and again, as the peer may come to the rendezvous later than we.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) scheme: Scheme,
    pub(crate) remote: SocketAddr,
    /// When to dial it; `None` while a dial is under way, or when there is no use.
    pub(crate) due: Option<Instant>,
    pub(crate) pause: Duration,
}

/// The peer's listeners, a quarter of a second apart (RFC 8305 §5), so that the first has a chance to be the only one.
pub(crate) fn doors(begun: Instant, listeners: &[(Scheme, SocketAddr)]) -> Vec<Door> {
    let dues = std::iter::successors(Some(begun), |last| Some(*last + PACE));
    let doors = listeners.iter().zip(dues);
    doors
        .map(|(&(scheme, remote), due)| Door { scheme, remote, due: Some(due), pause: FIRST_PAUSE })
        .collect()
}

/// Listeners that the peer named later; as many as one offer names at most.
pub(crate) fn new_doors(now: Instant, known: &Offer, later: &Offer) -> Vec<Door> {
    let new = later.listeners.iter().filter(|listener| !known.listeners.contains(listener));
    let doors = new.map(|&(scheme, remote)| Door { scheme, remote, due: Some(now), pause: FIRST_PAUSE });
    doors.collect()
}

const PACE: Duration = Duration::from_millis(250);
/// Before a listener is dialled again: the peer may be a moment behind us.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Between two dials of a listener of a peer that is slow, or never comes.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
