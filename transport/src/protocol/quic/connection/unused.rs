//! How long a connection is kept while it has no stream.

use std::time::{Duration, Instant};

use super::{QuicConnection, Role};

impl QuicConnection {
    /// It stays without streams for a while, though it was made for one.
    pub(crate) fn keep(&mut self) {
        if let Role::Dialer { kept, .. } = &mut self.role {
            *kept = KEPT_BY_DIALER;
        }
    }

    /// Begins to count the time without streams.
    pub(super) fn unused(&mut self, now: Instant) {
        let used = !self.streams.is_empty() || !self.waiting.is_empty();
        self.timers.unused = (!used).then(|| {
            now + match self.role {
                Role::Dialer { kept, .. } => kept,
                Role::Acceptor => KEPT_BY_ACCEPTOR,
            }
        });
    }
}

/// A next dial to the same peer within this time needs no handshake.
pub(super) const KEPT_BY_DIALER: Duration = Duration::from_secs(5);
/// Longer than the dialer's, so that it is the dialer who closes and no stream is opened on a closing connection.
const KEPT_BY_ACCEPTOR: Duration = Duration::from_secs(15);
