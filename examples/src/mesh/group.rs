use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crust::{Endpoint, Identity, PublicKey, error_chain};
use transport::{ConnectOptions, Driver, Listener, Stream, Transport, TransportConfig};

use super::Network;

/// Nodes whose endpoints are known.
#[derive(Debug)]
pub struct Group {
    transport: Transport,
    listener: Listener,
    endpoints: Mutex<BTreeMap<PublicKey, Endpoint>>,
}

impl Group {
    /// Listens on loopback, at a port that the system chooses, under a new key.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn new() -> io::Result<Self> {
        Self::open(Identity::generate(), "tcp://127.0.0.1:0")
    }

    /// Listens at this place, under this key.
    ///
    /// # Errors
    ///
    /// When the system refuses, or the place is none.
    pub fn open(identity: Identity, place: &str) -> io::Result<Self> {
        // One thread always waits in `accept`, so the stack needs none of its own.
        let config = TransportConfig::default().driver(Driver::Caller);
        let transport = Transport::new(identity, config).map_err(io::Error::other)?;
        let listener =
            Listener::bind(&transport, place).map_err(|error| io::Error::other(error_chain(&error)))?;
        Ok(Self { transport, listener, endpoints: Mutex::default() })
    }

    /// Where others reach this node.
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        self.listener.endpoints()?.next().ok_or_else(|| io::Error::other("the listener has no endpoint"))
    }

    /// Tells where a member is reached.
    pub fn add(&self, endpoint: Endpoint) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint.public_key(), endpoint);
    }

    /// Forgets where a member is reached.
    pub fn remove(&self, peer: &PublicKey) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// What carries the streams.
    #[must_use]
    pub const fn transport(&self) -> &Transport {
        &self.transport
    }
}

impl Network for Group {
    fn accept(&self) -> Option<Stream> {
        self.listener.accept().ok()
    }

    fn dial(&self, peer: PublicKey) -> Result<Stream, String> {
        let endpoint = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).copied();
        let endpoint = endpoint.ok_or("nobody has told where it is")?;
        let options = ConnectOptions::new().deadline(Instant::now() + DIAL);
        Stream::connect_with(&self.transport, endpoint, &options).map_err(|error| error_chain(&error))
    }

    fn close(&self) {
        self.transport.close();
    }
}

/// A member that does not answer delays dials of others by no more.
const DIAL: Duration = Duration::from_secs(1);
