use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;

use crate::protocol::MappedSocketAddr;

/// Addresses that the two sides of a punch for TCP learn after it has begun; see
/// [`tcp_punch_hole_with`](crate::tcp_punch_hole_with). Clones are the same one.
///
/// ```
/// use nat_traversal::LateAddresses;
///
/// let late = LateAddresses::new();
/// // Nothing was learned on either side, and nothing will be.
/// late.tell(&[], &[], false);
/// ```
#[derive(Clone, Default)]
pub struct LateAddresses {
    inner: Arc<Mutex<Inner>>,
}

impl LateAddresses {
    /// One that nobody has told anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells all addresses of both sides, those known before included; `more` as long as others may follow. Never blocks.
    pub fn tell(&self, ours: &[MappedSocketAddr], theirs: &[MappedSocketAddr], more: bool) {
        let waker = {
            let mut inner = self.lock();
            inner.news = Some(News { ours: ours.to_vec(), theirs: theirs.to_vec(), more });
            inner.waker.clone()
        };
        if let Some(Err(error)) = waker.map(|waker| waker.wake()) {
            tracing::warn!(%error, "cannot wake a punch; it goes on with the addresses that it has");
        }
    }

    /// What is new, once.
    pub(crate) fn take(&self) -> Option<News> {
        self.lock().news.take()
    }

    /// Has `waker` woken by what is told from now on.
    pub(crate) fn watch(&self, waker: Arc<Waker>) {
        self.lock().waker = Some(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked under the lock left what is whole at every step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for LateAddresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LateAddresses").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    news: Option<News>,
    waker: Option<Arc<Waker>>,
}

/// All addresses of both sides.
pub(crate) struct News {
    pub(crate) ours: Vec<MappedSocketAddr>,
    pub(crate) theirs: Vec<MappedSocketAddr>,
    pub(crate) more: bool,
}
