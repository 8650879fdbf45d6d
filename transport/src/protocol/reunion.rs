//! Two peers that dial each other at the same time keep one connection.
//!
//! Each dial brings a connection of its own under way, and whichever side the first preface reaches learns that there are
//! two. Its connection is a *guest* there: dials that wait for a handshake of ours go over it instead. It can happen that
//! both connections come up before either preface arrives. Then the peer with the smaller key rules: it answers "elsewhere"
//! to streams on the connection that it did not dial, and the other asks anew on the one that it did.
//!
//! ```text
//!  dialled:   made ──our preface leaves──► Asked ──verdict──► Confirmed       ours; streams on another are sent here until
//!                                                                             whoever asks can know of this one
//!  incoming:  up ──preface──► Guest                                           our dials go over it
//!               └──preface, we rule and Asked──► sent elsewhere
//! ```
//!
//! A preface that says that its stream *stays*, as the first on a connection of its own does, takes no part.

use std::{collections::BTreeMap, time::Instant};

use crate::PublicKey;

/// The connections of a transport by their peers, each with its number.
#[derive(Debug)]
pub(crate) struct Reunion {
    ours: PublicKey,
    links: BTreeMap<(PublicKey, u64), Side>,
}

/// Where a stream that came in belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// Here.
    Stays,
    /// Here, and our own dials to that peer go over this connection from now on.
    Welcome,
    /// On the connection that we dialled.
    Elsewhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialled(Asking),
    /// The peer dialled, and takes streams of ours there.
    Guest,
    /// The peer dialled, and does not.
    OneWay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    NotYet,
    Asked,
    /// Since then the peer knows of the connection.
    Confirmed(Instant),
}

impl Reunion {
    pub(crate) fn new(ours: PublicKey) -> Self {
        Self { ours, links: BTreeMap::new() }
    }

    /// We dial the peer, over a connection that further dials may share.
    pub(crate) fn dialling(&mut self, peer: PublicKey, link: u64) {
        self.links.entry((peer, link)).or_insert(Side::Dialled(Asking::NotYet));
    }

    /// A preface left on a connection that we dialled, for a stream that does not have to stay there.
    pub(crate) fn asked(&mut self, peer: PublicKey, link: u64) {
        if let Some(Side::Dialled(asking @ Asking::NotYet)) = self.links.get_mut(&(peer, link)) {
            *asking = Asking::Asked;
        }
    }

    /// Nobody waits for what was asked there any more.
    pub(crate) fn withdrawn(&mut self, peer: PublicKey, link: u64) {
        if let Some(Side::Dialled(asking @ Asking::Asked)) = self.links.get_mut(&(peer, link)) {
            *asking = Asking::NotYet;
        }
    }

    /// The peer has answered one.
    pub(crate) fn confirmed(&mut self, now: Instant, peer: PublicKey, link: u64) {
        if let Some(Side::Dialled(asking @ Asking::Asked)) = self.links.get_mut(&(peer, link)) {
            *asking = Asking::Confirmed(now);
        }
    }

    /// A preface came by a connection that the peer dialled, whose first packet had come at `begun`. `may_send`: streams that
    /// come in on connections that we dialled find their place.
    pub(crate) fn arrived(&mut self, peer: PublicKey, link: u64, begun: Instant, may_send: bool) -> Ruling {
        if may_send && self.ours < peer && self.has_asked(peer, begun) {
            return Ruling::Elsewhere;
        }
        if peer == self.ours {
            return Ruling::Stays;
        }
        match self.links.insert((peer, link), Side::Guest) {
            None => Ruling::Welcome,
            Some(known) => {
                self.links.insert((peer, link), known);
                Ruling::Stays
            }
        }
    }

    /// Whether a connection of ours is up of which the peer could not know when it began that other one.
    fn has_asked(&self, peer: PublicKey, begun: Instant) -> bool {
        self.of(peer).any(|(_, side)| match side {
            Side::Dialled(Asking::Asked) => true,
            Side::Dialled(Asking::Confirmed(at)) => begun <= at,
            Side::Dialled(Asking::NotYet) | Side::Guest | Side::OneWay => false,
        })
    }

    /// The peer has no place for streams on that connection, which it dialled.
    pub(crate) fn one_way(&mut self, peer: PublicKey, link: u64) {
        if let Some(side) = self.links.get_mut(&(peer, link)) {
            *side = Side::OneWay;
        }
    }

    /// A connection that the peer dialled and that takes our dials too: the latest.
    pub(crate) fn guest(&self, peer: PublicKey) -> Option<u64> {
        self.of(peer).filter(|(_, side)| *side == Side::Guest).map(|(link, _)| link).last()
    }

    /// Whether we have dialled it, and it may be shared.
    pub(crate) fn has_dialled(&self, peer: PublicKey) -> bool {
        self.of(peer).any(|(_, side)| matches!(side, Side::Dialled(_)))
    }

    pub(crate) fn ended(&mut self, peer: PublicKey, link: u64) {
        self.links.remove(&(peer, link));
    }

    fn of(&self, peer: PublicKey) -> impl Iterator<Item = (u64, Side)> {
        self.links.range((peer, 0)..=(peer, u64::MAX)).map(|(&(_, link), &side)| (link, side))
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.links.is_empty()
    }
}

#[cfg(test)]
mod tests;
