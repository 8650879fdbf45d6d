use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use crossbeam::channel::Receiver;

use crate::{
    Stream, Transport,
    endpoint::ListenEndpoint,
    error::AcceptError,
    io::{accept_queue::AcceptQueue, lock::Lock as _, slot::Wakes},
    listener::Listener,
    rendezvous::Listening,
    transport::Shared,
};

/// Several listeners as one: `accept` gives the next stream of any of them.
///
/// ```
/// use transport::{Identity, Listener, ListenerSet, Transport, TransportConfig};
///
/// let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let listeners = ListenerSet::new(&transport);
/// listeners.add_listener(Listener::bind(&transport, "tcp://127.0.0.1:0")?);
/// assert_eq!(listeners.local_endpoints().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ListenerSet {
    shared: Arc<Shared>,
    queue: Arc<AcceptQueue>,
    listeners: Mutex<Vec<Listener>>,
}

impl ListenerSet {
    /// An empty set.
    #[must_use]
    pub fn new(transport: &Transport) -> Self {
        let shared = transport.shared().clone();
        let queue = AcceptQueue::new(shared.config.limits.accept_queue);
        shared.add_queue(&queue);
        Self { shared, queue, listeners: Mutex::default() }
    }

    /// Takes a listener in, with the streams that wait there.
    pub fn add_listener(&self, listener: Listener) {
        listener.join_set(&self.queue);
        self.listeners.hold().push(listener);
    }

    /// Gives a listener up, which closes it; tells whether it was there.
    pub fn remove_listener(&self, local: ListenEndpoint) -> bool {
        let mut listeners = self.listeners.hold();
        let Some(index) = listeners.iter().position(|listener| listener.local_endpoint() == local) else {
            return false;
        };
        let listener = listeners.swap_remove(index);
        drop(listeners);
        drop(listener);
        true
    }

    /// Where the members listen, with the ports that the system chose.
    #[must_use]
    pub fn local_endpoints(&self) -> Vec<ListenEndpoint> {
        self.listeners.hold().iter().map(Listener::local_endpoint).collect()
    }

    /// Where others on the same networks reach the members; see [`Listener::endpoints`].
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn endpoints(&self) -> std::io::Result<Vec<crate::Endpoint>> {
        let listeners = self.listeners.hold();
        let mut endpoints = Vec::new();
        for listener in &*listeners {
            endpoints.extend(listener.endpoints()?);
        }
        Ok(endpoints)
    }

    /// The sockets of the members.
    pub(crate) fn listening(&self) -> (&Arc<Shared>, Listening) {
        let mut listening = Listening::default();
        for listener in &*self.listeners.hold() {
            listener.tell_socket(&mut listening);
        }
        (&self.shared, listening)
    }

    /// Blocks until a stream has come in.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Closed`] once the transport is closed, also while waiting.
    pub fn accept(&self) -> Result<Stream, AcceptError> {
        self.queue.accept(&self.shared, None)
    }

    /// Blocks until a stream has come in, at most until the deadline.
    ///
    /// # Errors
    ///
    /// [`AcceptError::TimedOut`] when none has, besides those of [`ListenerSet::accept`].
    pub fn accept_deadline(&self, deadline: Instant) -> Result<Stream, AcceptError> {
        self.queue.accept(&self.shared, Some(deadline))
    }

    /// Puts a stream that came about in another way among those that are accepted, if there is room: one that a third
    /// arranged, say. Gives it back if there is none.
    ///
    /// # Errors
    ///
    /// The stream, when the queue is full or closed.
    pub fn deliver(&self, stream: Stream) -> Result<(), Box<Stream>> {
        let Some(place) = self.queue.reserve() else { return Err(Box::new(stream)) };
        let mut wakes = Wakes::default();
        place.deliver(stream, &mut wakes);
        wakes.fire();
        Ok(())
    }

    /// The same streams as a channel; see [`Listener::receiver`].
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Stream> {
        self.queue.receiver()
    }
}

impl Drop for ListenerSet {
    fn drop(&mut self) {
        let mut wakes = Wakes::default();
        self.queue.close(&mut wakes);
        wakes.fire();
    }
}
