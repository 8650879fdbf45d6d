//! A search for another path of a connection that is there: by which ways, and when it is over.

use nat_traversal::MappedSocketAddr;

use super::{
    offer::{Hole, Offer},
    paths::UdpSource,
};
use crate::{PathKind, path::PathKinds};

/// See the module.
#[derive(Debug)]
pub(crate) struct Search {
    wanted: PathKinds,
    /// What another search finds meanwhile will do.
    takes_others: bool,
    /// How the connection did before.
    before: Standing,
    theirs: Offer,
    ours: Vec<(Hole, Vec<MappedSocketAddr>)>,
    /// One of the two may learn more.
    more: bool,
    /// What was found and may be taken.
    offered: Vec<UdpSource>,
}

/// How a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The way that carries.
    pub(crate) way: UdpSource,
    pub(crate) kind: PathKind,
    /// How often it has changed.
    pub(crate) changes: u64,
    pub(crate) is_cut_off: bool,
}

impl Search {
    /// For a connection that works over a relay, which is to go without one.
    pub(crate) fn improving(ways: PathKinds, theirs: Offer, before: Standing) -> Self {
        let wanted: PathKinds = DIRECT.into_iter().filter(|kind| ways.contains(*kind)).collect();
        Self::new(wanted, !wanted.contains(before.kind), theirs, before)
    }

    /// For one that is cut off, which takes what there is.
    pub(crate) fn rescuing(ways: PathKinds, theirs: Offer, before: Standing) -> Self {
        Self::new(ways, true, theirs, before)
    }

    fn new(wanted: PathKinds, takes_others: bool, theirs: Offer, before: Standing) -> Self {
        Self { wanted, takes_others, before, theirs, ours: Vec::new(), more: true, offered: Vec::new() }
    }

    /// The kinds of paths that are wanted.
    pub(crate) const fn wanted(&self) -> PathKinds {
        self.wanted
    }

    /// What the peer has told so far.
    pub(crate) const fn theirs(&self) -> &Offer {
        &self.theirs
    }

    /// What we have.
    pub(crate) fn ours(&self, hole: Hole) -> &[MappedSocketAddr] {
        self.ours.iter().find(|(of, _)| *of == hole).map_or(&[][..], |(_, all)| all)
    }

    /// Whether either side may learn more.
    pub(crate) const fn more(&self) -> bool {
        self.more
    }

    /// Takes in what the peer has said since, our addresses, and whether we may learn more.
    pub(crate) fn learn(
        &mut self,
        theirs: Option<Offer>,
        ours: Vec<(Hole, Vec<MappedSocketAddr>)>,
        we_may_learn_more: bool,
    ) {
        if let Some(theirs) = theirs.filter(|theirs| self.theirs.is_continued_by(theirs)) {
            self.theirs = theirs;
        }
        self.more = we_may_learn_more || self.theirs.more;
        self.ours = ours;
    }

    /// A hole was punched there, which the connection may take.
    pub(crate) fn offered(&mut self, way: UdpSource) {
        self.offered.push(way);
    }

    /// Whether there is nothing to look for any more: the connection has taken what was offered, or what another search has found, or the
    /// old path works again.
    pub(crate) fn is_over(&self, now: Standing) -> bool {
        let has_moved =
            self.takes_others && now.changes != self.before.changes && self.wanted.contains(now.kind);
        !now.is_cut_off && (self.offered.contains(&now.way) || has_moved || self.before.is_cut_off)
    }

    /// Whether nothing can come of it. `is_punching`: a hole is being punched.
    pub(crate) fn is_hopeless(&self, is_punching: bool) -> bool {
        !self.more && !is_punching && self.offered.is_empty()
    }
}

/// A path over a relay is what the connection has.
const DIRECT: [PathKind; 3] = [PathKind::Lan, PathKind::Direct, PathKind::Punched];
