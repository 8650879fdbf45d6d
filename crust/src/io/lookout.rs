//! Notices that this host has come into another network, beside the transport's own work, and tells whom it concerns.

use std::sync::{Arc, Weak};

use beacon::NetworkWatch;
use transport::Chore;

use super::worker::OnDemand;
use crate::{ServiceEvent, shared::Shared};

/// Looks for as long as it is there.
#[derive(Debug)]
pub(crate) struct Lookout {
    #[expect(dead_code, reason = "held for its drop")]
    chore: Chore,
}

impl Lookout {
    /// Begins with the network of the calling thread.
    pub(crate) fn start(shared: &Arc<Shared>, worker: &Arc<OnDemand>) -> Self {
        let mut watch = NetworkWatch::new();
        #[cfg(unix)]
        let source = watch.as_fd().map(|fd| fd.try_clone_to_owned());
        let first = watch.poll_timeout();
        let (service, worker) = (Arc::downgrade(shared), worker.clone());
        let chore = Chore::new(&shared.transport, first, move |now| {
            if watch.poll(now) {
                changed(&service, &worker, watch.addresses().to_vec());
            }
            Some(watch.poll_timeout())
        });
        #[cfg(unix)]
        if let Some(source) = source
            && let Err(error) = source.and_then(|source| chore.when_readable(source))
        {
            tracing::debug!(%error, "changes of the network are noticed later");
        }
        Self { chore }
    }
}

fn changed(service: &Weak<Shared>, worker: &OnDemand, addresses: Vec<std::net::IpAddr>) {
    let Some(shared) = service.upgrade() else { return };
    shared.network_changed(&addresses);
    shared.events.tell(ServiceEvent::NetworkChanged { addresses: addresses.clone() });
    if !addresses.is_empty() {
        worker.network_changed(addresses);
    }
}
