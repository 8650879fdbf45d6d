use std::{sync::Arc, time::Instant};

use crossbeam::channel::Receiver;
use transport::{AcceptError, ListenerSet, Stream};

/// Gives the streams that peers open, over all places where the service listens.
///
/// Every stream that comes out of it is encrypted, its peer has proved its key, and was admitted.
///
/// ```
/// use std::time::{Duration, Instant};
/// use crust::{AcceptError, Config, Service};
///
/// let place = "quic://127.0.0.1:0".parse()?;
/// let service = Service::new_from_config(Config::new().listen([place]))?;
/// let soon = Instant::now() + Duration::from_millis(10);
/// assert_eq!(service.acceptor.accept_deadline(soon).err(), Some(AcceptError::TimedOut));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ServiceListener {
    listeners: Arc<ListenerSet>,
}

impl ServiceListener {
    pub(crate) const fn new(listeners: Arc<ListenerSet>) -> Self {
        Self { listeners }
    }

    /// Waits for the next stream, for as long as it takes.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Closed`] when the service is shut down, also while waiting.
    pub fn accept(&self) -> Result<Stream, AcceptError> {
        self.listeners.accept()
    }

    /// Waits for the next stream until `deadline`.
    ///
    /// # Errors
    ///
    /// [`AcceptError::TimedOut`] at the deadline, [`AcceptError::Closed`] when the service is shut down.
    pub fn accept_deadline(&self, deadline: Instant) -> Result<Stream, AcceptError> {
        self.listeners.accept_deadline(deadline)
    }

    /// The streams one after the other, until the service is shut down; each step waits like
    /// [`ServiceListener::accept`].
    #[must_use]
    pub const fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The streams as a channel, to wait for them and for other things with one `select!`. Takes part in
    /// [`Driver::Background`](crate::Driver::Background) only.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Stream> {
        self.listeners.receiver()
    }
}

/// The iterator of [`ServiceListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a ServiceListener,
}

impl Iterator for Incoming<'_> {
    type Item = Stream;

    fn next(&mut self) -> Option<Stream> {
        self.listener.accept().ok()
    }
}
