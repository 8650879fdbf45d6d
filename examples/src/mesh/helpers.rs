//! The two threads that wait for streams, one for dials and one for accepts, so that the mesh's own never does.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use crust::PublicKey;
use transport::Stream;

use super::Network;
use crate::protocol::mesh::MAX_PEERS;

/// What the two have to tell.
#[derive(Debug)]
pub(super) enum Found {
    /// A stream, dialled or accepted.
    Stream(Stream),
    /// A dial that gave none, and why.
    Nobody(PublicKey, String),
}

/// The two threads; they end with it.
pub(super) struct Helpers {
    network: Arc<dyn Network>,
    dials: Option<Sender<PublicKey>>,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    /// Starts them. They call `tell` with what they find; it says whether anybody still listens.
    pub(super) fn start(
        network: Arc<dyn Network>,
        tell: impl Fn(Found) -> bool + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        // A peer has at most one dial under way.
        let (dials, wanted) = bounded(MAX_PEERS);
        let (accepting, dialling) = (Arc::clone(&network), Arc::clone(&network));
        let told = tell.clone();
        let accept = move || while accepting.accept().is_some_and(|stream| told(Found::Stream(stream))) {};
        let threads = vec![
            thread::Builder::new().name("mesh-accept".to_owned()).spawn(accept)?,
            thread::Builder::new()
                .name("mesh-dial".to_owned())
                .spawn(move || dial(&*dialling, &wanted, tell))?,
        ];
        Ok(Self { network, dials: Some(dials), threads })
    }

    pub(super) fn dial(&self, peer: PublicKey) {
        let sent = self.dials.as_ref().is_some_and(|dials| dials.try_send(peer).is_ok());
        debug_assert!(sent, "there is room for a dial of each peer");
    }
}

fn dial(network: &dyn Network, wanted: &Receiver<PublicKey>, tell: impl Fn(Found) -> bool) {
    for peer in wanted {
        if !tell(network.dial(peer).map_or_else(|why| Found::Nobody(peer, why), Found::Stream)) {
            return;
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.dials = None;
        self.network.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
