use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use super::clock::now;
use super::interrupt::Interrupter;
use super::run::RunError;
use crate::protocol::port_map::{PortMapFailure, PortMapping};

/// What is known of one lease, between its thread and those who hold it.
#[derive(Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    changed: Condvar,
    /// Told of all news, beside those who wait.
    watcher: Option<Watcher>,
}

/// Called with no lock held, by the thread of the leases mostly.
pub(crate) struct Watcher(pub(crate) Box<dyn Fn() + Send + Sync>);

/// `Asking` → `Open` ⇄ `Lost` → `Closed`, or `Asking` → `Failed`.
#[derive(Debug, Clone, Default)]
pub(crate) enum News {
    #[default]
    Asking,
    Open(PortMapping),
    Lost(PortMapFailure),
    Failed(Vec<PortMapFailure>),
    Closed,
}

#[derive(Default)]
struct State {
    news: News,
    waker: Option<Arc<Waker>>,
}

impl Slot {
    pub(crate) fn new(watcher: Option<Watcher>) -> Self {
        Self { watcher, ..Self::default() }
    }

    pub(crate) fn tell(&self, news: News) {
        let mut state = self.lock();
        // Why it failed is worth more than that it is over.
        if !matches!(state.news, News::Failed(_)) {
            state.news = news;
        }
        if let Some(waker) = &state.waker
            && let Err(error) = waker.wake()
        {
            tracing::warn!(%error, "cannot wake who waits for a router");
        }
        drop(state);
        self.changed.notify_all();
        if let Some(Watcher(tell)) = &self.watcher {
            tell();
        }
    }

    pub(crate) fn news(&self) -> News {
        self.lock().news.clone()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.lock().news, News::Failed(_) | News::Closed)
    }

    /// Waits for the first outcome. [`RunError::TimedOut`] if there is none by the deadline.
    pub(crate) fn wait_for_outcome(
        &self,
        deadline: Instant,
        interrupter: &Interrupter,
    ) -> Result<News, RunError> {
        let mut poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
        let _watch = interrupter.watch(Arc::clone(&waker))?;
        self.lock().waker = Some(waker);
        let mut events = Events::with_capacity(1);
        let outcome = loop {
            let news = self.news();
            if !matches!(news, News::Asking) {
                break Ok(news);
            }
            if interrupter.is_interrupted() {
                break Err(RunError::Interrupted);
            }
            let time = now();
            if time >= deadline {
                break Err(RunError::TimedOut);
            }
            match poll.poll(&mut events, Some(deadline.saturating_duration_since(time))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break Err(error.into()),
                _ => {}
            }
        };
        self.lock().waker = None;
        outcome
    }

    /// Waits until all is over, at most so long; whether it is.
    pub(crate) fn wait_for_end(&self, patience: Duration) -> bool {
        let going_on = |state: &mut State| !matches!(state.news, News::Failed(_) | News::Closed);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, going_on);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
