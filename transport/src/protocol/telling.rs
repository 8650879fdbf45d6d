//! What we tell a peer of ourselves for one meeting: all that is known, as often as there is more.
//!
//! The keys are drawn with the first offer and stay; addresses are added.

use std::net::SocketAddr;

use nat_traversal::{MappedSocketAddr, PrivRendezvousInfo, PubRendezvousInfo};

use super::offer::{Hole, Offer};
use crate::{PublicKey, Scheme};

/// Our side of a meeting, as far as it is told.
#[derive(Debug)]
pub(crate) struct Telling {
    public_key: PublicKey,
    public: Option<PubRendezvousInfo>,
    meeting: Option<PrivRendezvousInfo>,
    holes: Vec<Told>,
    listeners: Vec<(Scheme, SocketAddr)>,
    second: bool,
    relay_at_once: bool,
    more: bool,
    relays: usize,
}

/// What stays here of each key that was drawn.
#[derive(Debug)]
pub(crate) struct Secrets {
    pub(crate) meeting: PrivRendezvousInfo,
    pub(crate) holes: Vec<(Hole, PrivRendezvousInfo)>,
}

/// What the peer is told of one hole.
#[derive(Debug)]
struct Told {
    hole: Hole,
    hosts: Vec<MappedSocketAddr>,
    seen: Vec<MappedSocketAddr>,
    relayed: Vec<MappedSocketAddr>,
    /// Made with the first offer.
    public: Option<PubRendezvousInfo>,
    private: Option<PrivRendezvousInfo>,
}

/// Draws a key for a meeting: what stays here, and what the peer is told.
pub(crate) type Draw<'d> = &'d mut dyn FnMut() -> (PrivRendezvousInfo, PubRendezvousInfo);

impl Telling {
    /// `second`: we get the other's offer last. `relay_at_once`: we know that a relay is needed.
    pub(crate) const fn new(
        public_key: PublicKey,
        listeners: Vec<(Scheme, SocketAddr)>,
        second: bool,
        relay_at_once: bool,
    ) -> Self {
        Self {
            public_key,
            public: None,
            meeting: None,
            holes: Vec::new(),
            listeners,
            second,
            relay_at_once,
            more: true,
            relays: 0,
        }
    }

    /// Adds a kind of hole: this host's own addresses, and others that are known already. Before the first offer.
    pub(crate) fn add_hole(&mut self, hole: Hole, hosts: Vec<MappedSocketAddr>, seen: Vec<MappedSocketAddr>) {
        let (public, private) = (None, None);
        self.holes.push(Told { hole, hosts, seen, relayed: Vec::new(), public, private });
    }

    /// What the peer is to be told now.
    pub(crate) fn offer(&mut self, draw: Draw<'_>) -> Offer {
        let public = self.public.get_or_insert_with(|| {
            let (private, public) = draw();
            self.meeting = Some(private);
            public
        });
        let mut holes = [const { None }; Hole::ALL.len()];
        for told in &mut self.holes {
            let endpoints = told.endpoints();
            let public = match &told.public {
                Some(public) => public.with_endpoints(endpoints),
                // Nobody can be told to punch towards nothing.
                None if endpoints.is_empty() && !self.more => continue,
                None => {
                    // Without addresses, as the keys are made of it: the peer's first offer need not be the first that was made here.
                    let (private, public) = draw();
                    told.private = Some(private);
                    told.public.insert(public).with_endpoints(endpoints)
                }
            };
            holes[told.hole as usize] = Some(public);
        }
        Offer {
            public_key: self.public_key,
            meeting: public.clone(),
            holes,
            listeners: self.listeners.clone(),
            more: self.more,
            second: self.second,
            relay_at_once: self.relay_at_once,
        }
    }

    /// Gives the secrets to the call that meets, of what was offered; once.
    pub(crate) fn take_secrets(&mut self) -> Option<Secrets> {
        let meeting = self.meeting.take()?;
        let holes = self.holes.iter_mut().filter_map(|told| Some((told.hole, told.private.take()?)));
        Some(Secrets { meeting, holes: holes.collect() })
    }

    /// How a hole's socket is seen from outside; tells whether that is news.
    pub(crate) fn mapped(&mut self, hole: Hole, seen: Vec<MappedSocketAddr>) -> bool {
        let Some(told) = self.of(hole) else { return false };
        let is_news = told.seen != seen;
        told.seen = seen;
        is_news
    }

    /// The peer may be met at that address of a relay as well; tells whether there was room for it.
    pub(crate) fn relayed(&mut self, endpoint: MappedSocketAddr) -> bool {
        if self.relays >= MAX_RELAYS {
            return false;
        }
        let Some(told) = self.of(Hole::UdpV4) else { return false };
        told.relayed.push(endpoint);
        self.relays += 1;
        true
    }

    /// Nothing is learned any more; tells whether that is news.
    pub(crate) const fn complete(&mut self) -> bool {
        std::mem::replace(&mut self.more, false)
    }

    fn of(&mut self, hole: Hole) -> Option<&mut Told> {
        self.holes.iter_mut().find(|told| told.hole == hole)
    }

    /// All addresses of each hole.
    pub(crate) fn endpoints(&self) -> Vec<(Hole, Vec<MappedSocketAddr>)> {
        self.holes.iter().map(|told| (told.hole, told.endpoints())).collect()
    }

    /// As servers have seen that hole's socket so far.
    pub(crate) fn seen(&self, hole: Hole) -> &[MappedSocketAddr] {
        self.holes.iter().find(|told| told.hole == hole).map_or(&[][..], |told| &told.seen)
    }

    /// Whether servers have seen a socket for one of those holes.
    pub(crate) fn is_seen(&self, of: impl Fn(Hole) -> bool) -> bool {
        self.holes.iter().any(|told| of(told.hole) && !told.seen.is_empty())
    }

    /// Whether the peer is told where we listen.
    pub(crate) const fn is_dialable(&self) -> bool {
        !self.listeners.is_empty()
    }

    pub(crate) const fn second(&self) -> bool {
        self.second
    }

    /// Whether we may learn more.
    pub(crate) const fn more(&self) -> bool {
        self.more
    }
}

impl Told {
    fn endpoints(&self) -> Vec<MappedSocketAddr> {
        let mut endpoints = self.hosts.clone();
        for seen in &self.seen {
            // An address of this host that servers see as well has no NAT before it.
            if endpoints.iter().all(|known| known.addr != seen.addr) {
                endpoints.push(*seen);
            }
        }
        // A peer tries no more than sixteen, and relays come last.
        endpoints.truncate(MAX_ENDPOINTS - self.relayed.len());
        endpoints.extend(&self.relayed);
        endpoints
    }
}

/// As many as a rendezvous information has.
const MAX_ENDPOINTS: usize = 16;
/// Each costs a check a peer's address.
const MAX_RELAYS: usize = 2;
