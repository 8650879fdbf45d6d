use std::fmt;

use crate::PortLease;
use crate::io::ask_router::Asking;
use crate::protocol::MapFailure;

/// A port that a router is being asked for by [`MappingContext::begin_map_port`](crate::MappingContext::begin_map_port), while
/// nobody waits for it. Dropping it takes the question back, and with it what the router may give yet; it does not wait.
pub struct PendingLease {
    asking: Option<Asking>,
}

impl PendingLease {
    pub(crate) const fn new(asking: Asking) -> Self {
        Self { asking: Some(asking) }
    }

    /// What came of it, which is told once; `None` as long as that is open. Does not block.
    pub fn poll(&mut self) -> Option<Result<PortLease, Vec<MapFailure>>> {
        match self.asking.take()?.poll() {
            Ok(outcome) => Some(outcome),
            Err(asking) => {
                self.asking = Some(asking);
                None
            }
        }
    }
}

impl fmt::Debug for PendingLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLease").field("is_open", &self.asking.is_some()).finish_non_exhaustive()
    }
}
