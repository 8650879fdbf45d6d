//! Whether there is a spray, and at which address.

use std::net::IpAddr;
use std::time::Instant;

use super::UdpPuncher;
use crate::protocol::Random;
use crate::protocol::punch::PunchOptions;
use crate::protocol::punch::plan::{self, Possible};
use crate::protocol::punch::spray::{SPRAY_HOPS, Shot, SprayTimer, patience};

/// What may be sprayed, and what is: one address at most in the life of a punch.
#[derive(Debug)]
pub(super) struct Spraying {
    options: PunchOptions,
    /// As the plan has them, and when each is due.
    possible: Vec<(plan::Spray, Instant)>,
    timer: Option<SprayTimer>,
    hops: u8,
}

impl Spraying {
    pub(super) const fn new() -> Self {
        Self { options: PunchOptions::DEFAULT, possible: Vec::new(), timer: None, hops: SPRAY_HOPS }
    }

    /// Takes the plan in.
    pub(super) fn learn(&mut self, now: Instant, plan: &[Possible]) {
        let due = |one: &Possible| {
            let known = self.possible.iter().find(|(kind, _)| *kind == one.kind);
            known.map_or_else(|| now + patience(*one), |(_, due)| *due)
        };
        self.possible = plan.iter().map(|one| (one.kind, due(one))).collect();
        self.choose(now);
    }

    /// Lets the openers pass so many routers.
    pub(super) fn set_hops(&mut self, hops: u8) {
        self.hops = hops;
        self.timer = self.timer.take().map(|timer| timer.opener_hops(hops));
    }

    /// Nothing more is sprayed.
    pub(super) fn end(&mut self) {
        self.possible.clear();
        self.timer = None;
    }

    /// When to ask [`next`](Self::next).
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timer.as_ref()?.timeout()
    }

    /// The next packet that is due.
    pub(super) fn next(&mut self, now: Instant, random: &mut Random) -> Option<Shot> {
        self.timer.as_mut()?.next(now, random)
    }

    /// Whether a spray could help and nobody vouches for where it would go.
    pub(super) fn is_held_back(&self) -> bool {
        self.timer.is_none() && !self.possible.is_empty()
    }

    fn choose(&mut self, now: Instant) {
        if self.timer.is_some() {
            return;
        }
        let allowed = self.possible.iter().find(|(kind, _)| self.options.allows(kind.target()));
        self.timer = allowed.map(|(kind, due)| SprayTimer::new(*kind, (*due).max(now), self.hops));
    }
}

impl UdpPuncher {
    /// Goes by these options. Call it before anything else; without it no address is vouched for.
    #[must_use]
    pub fn options(mut self, options: &PunchOptions) -> Self {
        let now = self.free;
        self.spraying.options = options.clone();
        self.spraying.choose(now);
        self
    }

    /// Somebody besides the peer says that the peer is at this IP address, so that many packets may go there: what
    /// [`PunchOptions::vouched`] says, of an address that is heard of later.
    pub fn vouch(&mut self, now: Instant, ip: IpAddr) {
        if self.spraying.options.vouch(ip) {
            self.spraying.choose(now);
        }
    }
}
