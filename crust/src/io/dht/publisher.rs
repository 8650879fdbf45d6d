//! The thread that tells the DHT where this service is, and ends the node when nobody needs it.

use std::{
    io,
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use mainline::{
    MutableItem, PutOutcome,
    errors::{ConcurrencyError, PutMutableError, PutQueryError},
};

use super::{DhtError, Directory, node::Waiting};
use crate::{
    Contact, ServiceEvent,
    io::{clock, entropy, lock::Lock as _},
    protocol::{published, publishing::Publishing},
    shared::Shared,
};

impl Directory {
    /// Starts the thread; it ends by [`Directory::close`].
    pub(crate) fn start(&self, shared: &Arc<Shared>) -> io::Result<()> {
        let mut state = self.0.state.hold();
        if state.thread.is_some() || state.closed {
            return Ok(());
        }
        state.publishing = Some(Publishing::new(clock::now()));
        let (directory, shared) = (self.clone(), shared.clone());
        let work = move || Publisher { directory, shared, told: None, sequence: 0 }.run();
        state.thread = Some(thread::Builder::new().name("crust-dht".into()).spawn(work)?);
        Ok(())
    }

    /// Where this service is reached may have changed.
    pub(crate) fn changed(&self, network: bool) {
        let now = clock::now();
        if let Some(publishing) = &mut self.0.state.hold().publishing {
            if network {
                publishing.handle_network_change(now);
            } else {
                publishing.handle_change(now);
            }
        }
        self.0.changed.notify_all();
    }

    /// Waits for the thread, and with it for the node, after [`Directory::close`].
    pub(crate) fn join(&self) {
        let thread = self.0.state.hold().thread.take();
        if let Some(thread) = thread {
            // A panic of the thread has ended it, which is all that is wanted here.
            let _ = thread.join();
        }
    }
}

struct Publisher {
    directory: Directory,
    shared: Arc<Shared>,
    /// What stands there, and since when.
    told: Option<(Contact, Instant)>,
    sequence: i64,
}

/// What there is to do.
enum Task {
    Publish,
    EndNode,
    End,
}

impl Publisher {
    fn run(mut self) {
        loop {
            match self.next_task() {
                Task::Publish => self.publish(),
                Task::EndNode => self.end_node(),
                Task::End => return self.end_node(),
            }
        }
    }

    fn next_task(&self) -> Task {
        let inner = &self.directory.0;
        let mut state = inner.state.hold();
        loop {
            if state.closed {
                return Task::End;
            }
            let now = clock::now();
            if state.publishing.as_mut().is_some_and(|publishing| publishing.poll_publish(now)) {
                return Task::Publish;
            }
            let idle = state.node.is_some() && state.asking == 0;
            let ends = state.used.filter(|_| idle).map(|used| used + IDLE);
            if ends.is_some_and(|ends| ends <= now) {
                return Task::EndNode;
            }
            let due = state.publishing.as_ref().and_then(Publishing::poll_timeout);
            state = match due.into_iter().chain(ends).min() {
                Some(until) => {
                    let left = until.saturating_duration_since(now);
                    inner.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Ends the node, unless somebody uses it again; who asks next starts another one.
    fn end_node(&self) {
        let mut state = self.directory.0.state.hold();
        if state.asking > 0 && !state.closed {
            return;
        }
        // They hold the node.
        state.left.clear();
        let node = state.node.take();
        drop(state);
        if let Some(node) = node
            && !node.stop(clock::now() + PARTING)
        {
            tracing::warn!("the node of the DHT takes long to end");
        }
    }

    fn publish(&mut self) {
        let outcome = self.try_to_publish();
        let now = clock::now();
        let mut state = self.directory.0.state.hold();
        state.used = Some(now);
        let Some(publishing) = &mut state.publishing else { return };
        let event = match outcome {
            Ok(Some(nodes)) => {
                publishing.handle_published(now, entropy::seed());
                Some(ServiceEvent::DhtPublished { nodes })
            }
            Ok(None) | Err(DhtError::Closed) => None,
            Err(error) => {
                tracing::debug!(%error, "not told to the DHT");
                let reason = error.to_string();
                publishing.handle_failure(now).then_some(ServiceEvent::DhtUnusable { reason })
            }
        };
        drop(state);
        if let Some(event) = event {
            self.shared.events.tell(event);
        }
    }

    /// Tells how many nodes have it now; `None`: there is nothing to tell, or nothing new.
    fn try_to_publish(&mut self) -> Result<Option<u32>, DhtError> {
        let contact = self.shared.contact(false);
        let contact = contact.map_err(|error| DhtError::Start { reason: error.to_string() })?;
        let now = clock::now();
        if self.says_nothing(&contact) {
            // What stands there expires.
            self.told = None;
            self.with_schedule(Publishing::handle_nothing);
            return Ok(None);
        }
        if let Some((told, since)) = &self.told
            && *told == contact
            && now < *since + STANDS
        {
            let until = *since + STANDS;
            self.with_schedule(|publishing| publishing.handle_unchanged(until));
            return Ok(None);
        }
        for _ in 0..ATTEMPTS {
            let wall = i64::try_from(clock::unix_millis()).unwrap_or(i64::MAX);
            self.sequence = self.sequence.saturating_add(1).max(wall);
            match self.put(&contact)? {
                Ok(outcome) => {
                    self.told = Some((contact, now));
                    return Ok(Some(outcome.stored_at));
                }
                // Another service with this key, or this one while its clock was ahead, has told something newer.
                Err(PutMutableError::Concurrency(ConcurrencyError::NotMostRecent)) => self.catch_up()?,
                Err(PutMutableError::Query(PutQueryError::NoClosestNodes)) => return Err(DhtError::NoAnswer),
                Err(PutMutableError::Query(PutQueryError::Timeout)) => return Err(DhtError::TimedOut),
                Err(error) => return Err(DhtError::Refused { reason: error.to_string() }),
            }
        }
        Err(DhtError::Refused { reason: "another service with this key tells more often".into() })
    }

    fn with_schedule(&self, change: impl FnOnce(&mut Publishing)) {
        if let Some(publishing) = &mut self.directory.0.state.hold().publishing {
            change(publishing);
        }
    }

    /// Whether nobody could do anything with it: addresses of this machine are of no use to others.
    fn says_nothing(&self, contact: &Contact) -> bool {
        let is_local = |endpoint: &transport::NamedEndpoint| {
            endpoint.to_endpoint().is_some_and(|endpoint| endpoint.addr().ip().to_canonical().is_loopback())
        };
        let serves = self.directory.is_local() || contact.endpoints().iter().any(|one| !is_local(one));
        contact.introducers().is_empty() && (contact.endpoints().is_empty() || !serves)
    }

    fn put(&self, contact: &Contact) -> Result<Result<PutOutcome, PutMutableError>, DhtError> {
        let (owner, own) = (self.shared.transport.public_key(), &self.directory.0.own);
        let blinded = own.public_key();
        let expires = clock::unix_seconds() + LIFETIME.as_secs();
        let value = published::seal(&owner, &blinded, contact, expires, entropy::nonce());
        let signature = own.sign(&published::signed_bytes(self.sequence, &value));
        let item =
            MutableItem::new_signed_unchecked(*blinded.as_bytes(), signature, &value, self.sequence, None);
        let deadline = clock::now() + PATIENCE;
        let goes_on = || self.directory.goes_on(&|| false);
        let waiting = Waiting::new();
        let _waits = self.directory.waits(&waiting);
        let _place = self.directory.place(deadline, &goes_on)?;
        let node = self.directory.node(deadline, &goes_on)?;
        waiting.wait_for(deadline, &goes_on, async { node.put_mutable(item, None).await })
    }

    /// Finds out what number comes next.
    fn catch_up(&mut self) -> Result<(), DhtError> {
        let deadline = clock::now() + PATIENCE;
        let latest = self.directory.latest_of_own(deadline)?;
        self.sequence = self.sequence.max(latest.unwrap_or_default());
        Ok(())
    }
}

/// After the last question; entering the DHT costs some dozens of packets.
const IDLE: Duration = Duration::from_secs(60);
/// The node looks every 50 ms whether it is to end.
const PARTING: Duration = Duration::from_secs(1);
/// Three times as long as it takes to be told again.
const LIFETIME: Duration = Duration::from_secs(3 * 3_600);
/// What has not changed is told again after this, or with the next turn.
const STANDS: Duration = Duration::from_secs(44 * 60);
/// Some rows of nodes, each of which may take two seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const ATTEMPTS: usize = 3;
