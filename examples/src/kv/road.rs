use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use crust::{Endpoint, PublicKey, Stream};
use transport::Transport;

use crate::mesh::{Group, Network};

/// How other nodes are reached; tells the user why one is not.
pub(super) struct Road {
    group: Group,
    /// What was said last of each, so that it is not said again and again.
    told: Mutex<BTreeMap<PublicKey, String>>,
}

impl Road {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { group: Group::new()?, told: Mutex::default() })
    }

    pub(super) fn endpoint(&self) -> io::Result<Endpoint> {
        self.group.endpoint()
    }

    pub(super) fn add(&self, endpoint: Endpoint) {
        self.group.add(endpoint);
    }

    pub(super) const fn transport(&self) -> &Transport {
        self.group.transport()
    }

    /// Forgets how a peer is reached, and what was said of it.
    pub(super) fn remove(&self, peer: &PublicKey) {
        self.group.remove(peer);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }
}

impl Network for Road {
    fn accept(&self) -> Option<Stream> {
        self.group.accept()
    }

    fn dial(&self, peer: PublicKey) -> Option<Stream> {
        let dialled = self.group.try_dial(peer);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match dialled {
            Ok(stream) => {
                told.remove(&peer);
                Some(stream)
            }
            Err(error) => {
                if told.insert(peer, error.clone()).as_ref() != Some(&error) {
                    eprintln!("{peer} is not reached: {error}");
                }
                None
            }
        }
    }

    fn close(&self) {
        self.group.close();
    }
}
