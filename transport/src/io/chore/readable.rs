use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    sync::Mutex,
};

use mio::{Interest, Registry, unix::SourceFd};

use crate::{Chore, io::lock::Lock as _};

/// What the poll watches for a chore.
#[derive(Debug, Default)]
pub(super) struct Watched(Mutex<Option<OwnedFd>>);

impl Watched {
    pub(super) fn unwatch(&self, registry: &Registry) {
        let Some(fd) = self.0.hold().take() else { return };
        if let Err(error) = registry.deregister(&mut SourceFd(&fd.as_raw_fd())) {
            tracing::debug!(%error, "a source was not watched any more");
        }
    }
}

impl Chore {
    /// Has the work done as well whenever `source` becomes readable: each time something comes, so read until it would block. The
    /// source, of which a second handle is kept, takes the place of an earlier one. Unix only.
    ///
    /// ```
    /// use std::{io::{Read, Write}, os::unix::net::UnixStream, sync::mpsc, time::{Duration, Instant}};
    /// use transport::{Chore, Identity, Transport, TransportConfig};
    ///
    /// let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
    /// let (mut ours, mut theirs) = UnixStream::pair()?;
    /// theirs.set_nonblocking(true)?;
    /// let source = theirs.try_clone()?;
    /// let (tell, told) = mpsc::channel();
    /// let chore = Chore::new(&transport, Instant::now() + Duration::from_secs(60), move |_| {
    ///     let mut buffer = [0; 100];
    ///     while let Ok(length @ 1..) = theirs.read(&mut buffer) {
    ///         tell.send(buffer[..length].to_vec()).ok()?;
    ///     }
    ///     None
    /// });
    /// chore.when_readable(&source)?;
    ///
    /// ours.write_all(b"hello")?;
    /// assert_eq!(told.recv()?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the system cannot watch it.
    pub fn when_readable(&self, source: impl AsFd) -> io::Result<()> {
        let fd = source.as_fd().try_clone_to_owned()?;
        let registry = &self.shared.registry;
        self.task.source.unwatch(registry);
        registry.register(&mut SourceFd(&fd.as_raw_fd()), self.task.token, Interest::READABLE)?;
        *self.task.source.0.hold() = Some(fd);
        Ok(())
    }
}
