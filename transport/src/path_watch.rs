use std::sync::Arc;

use crate::{SetWaker, Transport, io::path_news::Watch};

/// Tells when a connection over QUIC of a transport has taken another path, or [is cut off](crate::Connection::is_cut_off), so that
/// one thread looks after all of them without looking again and again. Dropping it ends it.
///
/// ```
/// use transport::{Identity, PathWatch, StreamSet, Transport, TransportConfig};
///
/// let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let mut set = StreamSet::new(&transport)?;
/// let watch = PathWatch::new(&transport, set.waker());
/// // `set.wait` returns when there is news.
/// assert!(!watch.take(), "nothing has moved yet");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PathWatch(Arc<Watch>);

impl PathWatch {
    /// Has the waits of a set return whenever there is news of a connection's path.
    #[must_use]
    pub fn new(transport: &Transport, waker: SetWaker) -> Self {
        Self(transport.shared().path_news.watch(waker))
    }

    /// Whether there was news since this was last asked. Does not block.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.take()
    }
}
