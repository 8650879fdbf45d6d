use std::{sync::Arc, time::Instant};

use crate::{Transport, io::chore::Task, transport::Shared};

/// Something small of the caller's that is looked after now and then beside the streams, so that it needs no thread: a socket of
/// another protocol, a table that ages. Dropping it ends that.
///
/// The work is done by the thread `transport-io`, and with [`Driver::Caller`](crate::Driver::Caller) by whoever is in a
/// blocking call or in [`Transport::turn`]: there, only as often as there is somebody. It gets the time, and says when it is to
/// be called again although nothing happened; `None` is never. While it works nothing else is done by that thread, so it
/// must not wait for long, and never for this transport. If it panics, the transport closes.
///
/// ```
/// use std::{sync::mpsc, time::{Duration, Instant}};
/// use transport::{Chore, Identity, Transport, TransportConfig};
///
/// let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let (tell, told) = mpsc::channel();
/// let chore = Chore::new(&transport, Instant::now(), move |now| {
///     tell.send(now).ok()?;
///     Some(now + Duration::from_millis(10))
/// });
/// assert!(told.recv()? < told.recv()?);
/// drop(chore);
/// assert!(told.iter().count() < 1_000, "nothing comes any more");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Chore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) task: Arc<Task>,
}

impl Chore {
    /// Has `work` done from `first` on. Does not block.
    pub fn new(
        transport: &Transport,
        first: Instant,
        work: impl FnMut(Instant) -> Option<Instant> + Send + 'static,
    ) -> Self {
        let shared = transport.shared().clone();
        let task = Task::begin(&shared, first, Box::new(work));
        Self { shared, task }
    }
}

impl Drop for Chore {
    /// Waits until the work is done, if somebody is at it. So the work must not own its own `Chore`.
    fn drop(&mut self) {
        self.task.end(&self.shared);
    }
}
