use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::io::clock::now;
use crate::io::lease_slot::{News, Slot};
use crate::io::leases::Leases;
use crate::protocol::port_map::{PortMapFailure, PortMapMethod, PortMapping};

/// A port that a router forwards to this host, for as long as this lives.
///
/// The thread `nat-io` renews it at half of its life and asks for it again when the router has restarted: at once if
/// the router announces that, within a minute by PCP or NAT-PMP if it does not, within five by UPnP. Until then
/// [`external`](Self::external) may tell an address that the router has forgotten.
///
/// Dropping it gives the port back, and waits for that at most a tenth of a second, in which most routers have answered;
/// what is left is done in the background. [`release`](Self::release) waits longer.
///
/// ```no_run
/// use nat_traversal::{MappedTcpSocket, MappingConfig, MappingContext};
///
/// let mapped = MappedTcpSocket::new(&MappingContext::new(MappingConfig::new())?)?;
/// if let Some(lease) = &mapped.lease {
///     println!("{} forwards {:?} to us, by {}", lease.router(), lease.external(), lease.method());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PortLease {
    leases: Leases,
    number: usize,
    slot: Arc<Slot>,
    first: PortMapping,
    local: SocketAddr,
    /// How long a drop waits.
    patience: Duration,
}

impl PortLease {
    pub(crate) const fn new(
        leases: Leases,
        number: usize,
        slot: Arc<Slot>,
        first: PortMapping,
        local: SocketAddr,
    ) -> Self {
        Self { leases, number, slot, first, local, patience: DROP_PATIENCE }
    }

    /// The address and port of this host to which the router forwards.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The address outside that leads here now; `None` while the router does not forward it, which is being mended.
    ///
    /// If it is a private address, another NAT stands between this router and the internet.
    #[must_use]
    pub fn external(&self) -> Option<SocketAddr> {
        match self.slot.news() {
            News::Open(mapping) => Some(mapping.external),
            _ => None,
        }
    }

    /// Why the router does not forward the port at this moment; `None` if it does.
    #[must_use]
    pub fn trouble(&self) -> Option<PortMapFailure> {
        match self.slot.news() {
            News::Lost(failure) => Some(failure),
            _ => None,
        }
    }

    /// By which protocol the router was asked first.
    #[must_use]
    pub const fn method(&self) -> PortMapMethod {
        self.first.method
    }

    /// The router.
    #[must_use]
    pub const fn router(&self) -> IpAddr {
        self.first.router
    }

    /// Has the router asked again, within a second, whether it still forwards the port: for whoever knows that the network may have
    /// changed. Returns at once.
    pub fn renew(&self) {
        self.leases.renew(self.number);
    }

    /// Begins to give the port back, and returns at once; dropping or releasing the lease then waits for the rest.
    pub fn begin_release(&self) {
        self.leases.release(self.number);
    }

    /// Gives the port back and waits for the router's answer, at most until `deadline`. Whether the router has answered
    /// or been given up by then; if not, that goes on in the background.
    pub fn release(mut self, deadline: Instant) -> bool {
        self.begin_release();
        self.patience = Duration::ZERO;
        self.slot.wait_for_end(deadline.saturating_duration_since(now()))
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        if !self.slot.is_over() {
            self.leases.release(self.number);
            self.slot.wait_for_end(self.patience);
        }
    }
}

impl fmt::Debug for PortLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortLease")
            .field("external", &self.external())
            .field("method", &self.method())
            .field("router", &self.router())
            .finish_non_exhaustive()
    }
}

/// A router on the link answers in milliseconds; one by HTTP takes longer, and a drop must not.
const DROP_PATIENCE: Duration = Duration::from_millis(100);
