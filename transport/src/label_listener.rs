use std::{sync::Arc, time::Instant};

use crossbeam::channel::Receiver;

use crate::{
    AcceptError, Admission, ProtocolLabel, SetWaker, Stream, Transport,
    io::{accept_queue::AcceptQueue, slot::Wakes},
    transport::Shared,
};

/// Takes the streams of one protocol label out of what all listeners of a transport accept: for a part of a program that
/// speaks a protocol of its own beside the application's, and judges dialers by rules of its own.
///
/// Dropping it gives the label back; streams that were accepted stay.
///
/// ```
/// use std::{io::Read, thread};
/// use transport::{
///     Admission, ConnectOptions, Identity, LabelListener, Listener, ProtocolLabel, Stream, Transport, TransportConfig,
/// };
///
/// let server = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let listener = Listener::bind(&server, "tcp://127.0.0.1:0")?;
/// let label = ProtocolLabel::new("side/1")?;
/// let side = LabelListener::new(&server, label.clone(), Admission::default())?;
///
/// let client = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let endpoint = listener.endpoints()?.next().expect("a bound listener has an endpoint");
/// let _stream = Stream::connect_with(&client, endpoint, &ConnectOptions::new().protocol(label))?;
/// assert_eq!(side.accept()?.public_key(), client.public_key());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LabelListener {
    shared: Arc<Shared>,
    label: ProtocolLabel,
    queue: Arc<AcceptQueue>,
}

/// Somebody takes the streams of that label already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the protocol label {label} is taken")]
pub struct LabelTaken {
    label: ProtocolLabel,
}

impl LabelListener {
    /// Takes the streams of `label` from now on, as far as `admission` admits their dialers; what that says of labels does
    /// not matter. As many as [`Limits::accept_queue`](crate::Limits::accept_queue) wait here, further ones are refused.
    ///
    /// # Errors
    ///
    /// [`LabelTaken`] when there is such a listener already.
    pub fn new(
        transport: &Transport,
        label: ProtocolLabel,
        admission: Admission,
    ) -> Result<Self, LabelTaken> {
        let shared = transport.shared().clone();
        let queue = AcceptQueue::new(shared.config.limits.accept_queue);
        if !shared.take_label(&label, admission.protocols([label.clone()]), &queue) {
            return Err(LabelTaken { label });
        }
        shared.add_queue(&queue);
        Ok(Self { shared, label, queue })
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
    /// [`AcceptError::TimedOut`] when none has, besides that of [`LabelListener::accept`].
    pub fn accept_deadline(&self, deadline: Instant) -> Result<Stream, AcceptError> {
        self.queue.accept(&self.shared, Some(deadline))
    }

    /// The same streams as a channel; see [`Listener::receiver`](crate::Listener::receiver).
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Stream> {
        self.queue.receiver()
    }

    /// Has the waits of a [`StreamSet`](crate::StreamSet) return whenever a stream has come in, so that one thread serves
    /// the streams that it has and takes in new ones from [`LabelListener::receiver`].
    pub fn wake(&self, waker: SetWaker) {
        self.queue.set_waker(waker);
    }
}

impl Drop for LabelListener {
    fn drop(&mut self) {
        self.shared.give_label(&self.label);
        let mut wakes = Wakes::default();
        self.queue.close(&mut wakes);
        wakes.fire();
    }
}
