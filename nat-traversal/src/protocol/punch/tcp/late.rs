use std::time::Instant;

use super::dial::Target;
use super::{TcpPunchEvent, TcpPuncher};
use crate::protocol::MappedSocketAddr;
use crate::protocol::punch::plan::plan;

impl TcpPuncher {
    /// Addresses of either side may [follow](Self::learn): nothing is hopeless before. Call it before anything else.
    #[must_use]
    pub fn more_to_come(mut self) -> Self {
        self.more = true;
        self.done = false;
        self.events.clear();
        self
    }

    /// Takes in what the two sides have told each other since: all addresses, those known before included. `more` as long as
    /// others may follow.
    pub fn learn(
        &mut self,
        now: Instant,
        ours: &[MappedSocketAddr],
        theirs: &[MappedSocketAddr],
        more: bool,
    ) {
        if self.done {
            return;
        }
        self.more = more;
        let plan = plan(ours, theirs);
        for remote in plan.targets {
            let known = self.targets.iter().any(|target| target.remote == remote);
            if !known && self.targets.len() < MAX_TARGETS {
                self.targets.push(Target::new(remote, now));
            }
        }
        self.same_nat |= plan.same_nat;
        self.obstacle = plan.obstacle;
        if let Some(obstacle) = plan.obstacle.filter(|_| !more && self.connections.is_empty()) {
            self.done = true;
            self.events.push_back(TcpPunchEvent::Hopeless(obstacle));
        }
    }
}

/// Sixteen addresses, some of them of a NAT that counts, before and after it was measured.
const MAX_TARGETS: usize = 64;
