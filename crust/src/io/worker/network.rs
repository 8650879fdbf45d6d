//! What follows for a service when its host comes into another network.

use std::time::Instant;

use beacon::NetworkWatch;
use transport::StreamSet;

use super::{Role, Turning};
use crate::{event::ServiceEvent, io::clock, protocol::introducer::frame::Frame};

/// Where this host is.
#[derive(Debug)]
pub(super) struct Surroundings {
    watch: NetworkWatch,
    #[cfg(unix)]
    _readable: Option<transport::ReadableWatch>,
}

impl Surroundings {
    /// Begins with the network of the calling thread; the set wakes when it may have changed, where the system tells.
    pub(super) fn new(set: &StreamSet) -> Self {
        let watch = NetworkWatch::new();
        #[cfg(not(unix))]
        let _ = set;
        Self {
            #[cfg(unix)]
            _readable: watch.as_fd().and_then(|fd| {
                let readable = set.wake_when_readable(fd);
                readable.inspect_err(|error| tracing::debug!(%error, "changes are noticed later")).ok()
            }),
            watch,
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.watch.poll_timeout()
    }
}

impl Turning {
    /// Deals with another network, if this is one.
    pub(super) fn look_around(&mut self) {
        let now = clock::now();
        if !self.surroundings.watch.poll(now) {
            return;
        }
        let addresses = self.surroundings.watch.addresses().to_vec();
        self.shared.network_changed(&addresses);
        self.shared.events.tell(ServiceEvent::NetworkChanged { addresses: addresses.clone() });
        if addresses.is_empty() {
            return;
        }
        self.improving.handle_network_change(now);
        self.forward_ports_here(now, &addresses);
        for index in 0..self.attachments.len() {
            self.ask_again(index, now);
        }
    }

    /// An introducer that calls us may not reach us any more, and one that was waited for may be reached now.
    fn ask_again(&mut self, index: usize, now: Instant) {
        if !self.attachments[index].1.handle_network_change(now) {
            return;
        }
        let through = self.connections.iter().find(|(_, one)| one.role == Role::Introducer(index));
        if let Some((&key, _)) = through {
            self.send(key, &Frame::Attach);
        }
    }
}
