use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    sync::Arc,
};

use mio::{Interest, Token, unix::SourceFd};

use crate::{
    SetWaker, StreamSet,
    io::{lock::Lock as _, sources::Source},
    transport::Shared,
};

/// Something of the caller's, not a stream, that wakes a [`StreamSet`] when it can be read: a pipe, a socket of another
/// protocol, the kernel's word of a change. Dropping it ends that. Unix only.
///
/// ```
/// use std::{io::Write, os::unix::net::UnixStream};
/// use transport::{Identity, StreamSet, Transport, TransportConfig};
///
/// let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let mut set = StreamSet::new(&transport)?;
/// let (mut ours, theirs) = UnixStream::pair()?;
/// theirs.set_nonblocking(true)?;
/// let _watch = set.wake_when_readable(&theirs)?;
///
/// ours.write_all(b"!")?;
/// set.wait(&mut Vec::new(), None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ReadableWatch {
    shared: Arc<Shared>,
    token: Token,
    watched: Arc<Watched>,
}

/// What the poll knows of it.
#[derive(Debug)]
pub(crate) struct Watched {
    fd: OwnedFd,
    waker: SetWaker,
}

impl Watched {
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

impl StreamSet {
    /// Has [`StreamSet::wait`] return whenever `source` becomes readable: each time something comes, so read until it
    /// would block.
    ///
    /// # Errors
    ///
    /// When the system cannot watch it.
    pub fn wake_when_readable(&self, source: impl AsFd) -> io::Result<ReadableWatch> {
        let shared = self.shared().clone();
        let watched = Arc::new(Watched { fd: source.as_fd().try_clone_to_owned()?, waker: self.waker() });
        let token = shared.sources.hold().reserve();
        let fd = watched.fd.as_raw_fd();
        if let Err(error) = shared.registry.register(&mut SourceFd(&fd), token, Interest::READABLE) {
            shared.sources.hold().remove(token);
            return Err(error);
        }
        shared.sources.hold().fill(token, Source::Watched(watched.clone()));
        Ok(ReadableWatch { shared, token, watched })
    }
}

impl Drop for ReadableWatch {
    fn drop(&mut self) {
        let fd = self.watched.fd.as_raw_fd();
        if let Err(error) = self.shared.registry.deregister(&mut SourceFd(&fd)) {
            tracing::debug!(%error, "a source was not watched any more");
        }
        let source = self.shared.sources.hold().remove(self.token);
        drop(source);
    }
}
