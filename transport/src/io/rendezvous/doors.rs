use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{Scheme, protocol::offer::Offer};

/// Where the peer listens: dialled again and again, as the peer may come to the rendezvous later than we.
pub(super) struct Door {
    pub(super) scheme: Scheme,
    pub(super) remote: SocketAddr,
    /// When to dial it; `None` while a dial is under way, or when there is no use.
    pub(super) due: Option<Instant>,
    pub(super) pause: Duration,
}

/// The peer's listeners, a quarter of a second apart (RFC 8305 §5), so that the first has a chance to be the only one.
pub(super) fn doors(begun: Instant, listeners: &[(Scheme, SocketAddr)]) -> Vec<Door> {
    let dues = std::iter::successors(Some(begun), |last| Some(*last + PACE));
    let doors = listeners.iter().zip(dues);
    doors
        .map(|(&(scheme, remote), due)| Door { scheme, remote, due: Some(due), pause: FIRST_PAUSE })
        .collect()
}

/// Listeners that the peer named later; as many as one offer names at most.
pub(super) fn new_doors(now: Instant, known: &Offer, later: &Offer) -> Vec<Door> {
    let new = later.listeners.iter().filter(|listener| !known.listeners.contains(listener));
    let doors = new.map(|&(scheme, remote)| Door { scheme, remote, due: Some(now), pause: FIRST_PAUSE });
    doors.collect()
}

const PACE: Duration = Duration::from_millis(250);
/// Before a listener is dialled again: the peer may be a moment behind us.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
