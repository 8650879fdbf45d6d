use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use super::{Hosting, Worker};
use crate::{Introducer, improving::Detour, io::lock::Lock as _, reloading::Reloading, shared::Shared};

/// The thread `crust-io`, from when there is something for it to do.
#[derive(Debug, Default)]
pub(crate) struct OnDemand(Mutex<Option<Worker>>);

impl OnDemand {
    /// Starts it with what it has to do from the beginning.
    pub(crate) fn start(
        &self,
        shared: &Arc<Shared>,
        hosting: Option<Hosting>,
        reloading: Option<Reloading>,
    ) -> io::Result<()> {
        *self.0.hold() = Some(Worker::start(shared.clone(), hosting, reloading)?);
        Ok(())
    }

    /// Keeps in touch with one more introducer from now on.
    pub(crate) fn attach(&self, shared: &Arc<Shared>, introducer: Introducer) -> io::Result<()> {
        self.with(shared, |worker| worker.attach(introducer))
    }

    /// A connection has come up whose path may have to change.
    pub(crate) fn look_after(&self, shared: &Arc<Shared>, detour: Detour) -> io::Result<()> {
        self.with(shared, |worker| worker.look_after(detour))
    }

    /// Sees to the ports of the listeners, if that is wanted and there is one that a router might forward.
    pub(crate) fn forward_ports(&self, shared: &Arc<Shared>) -> io::Result<()> {
        let is_wanted = shared.forwarded.is_wanted_for(&shared.listeners.local_endpoints());
        if is_wanted { self.with(shared, |_| ()) } else { Ok(()) }
    }

    /// This host has come into another network, where what the last one gave is to be asked for.
    pub(crate) fn network_changed(&self, addresses: Vec<IpAddr>) {
        if let Some(worker) = &*self.0.hold() {
            worker.network_changed(addresses);
        }
    }

    fn with(&self, shared: &Arc<Shared>, tell: impl FnOnce(&Worker)) -> io::Result<()> {
        let mut worker = self.0.hold();
        let worker = match &mut *worker {
            Some(worker) => worker,
            none => none.insert(Worker::start(shared.clone(), None, None)?),
        };
        tell(worker);
        Ok(())
    }

    /// Whether it was started.
    pub(crate) fn is_running(&self) -> bool {
        self.0.hold().is_some()
    }

    /// Waits for it, after the transport was closed.
    pub(crate) fn join(&self) {
        let worker = self.0.hold().take();
        if let Some(worker) = worker {
            worker.join();
        }
    }
}
