//! The service's use of the DHT: a node while there is something to ask or to tell, a bounded number of questions, and a thread that tells.

mod names;
mod node;
mod publisher;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::sync::Unparker;
use mainline::{MutableItem, async_dht::AsyncDht};
use transport::{BlindedIdentity, PublicKey};

use self::{
    names::Names,
    node::{Node, Question, Waiting},
};
use super::{clock, lock::Lock as _};
use crate::{
    Contact,
    protocol::{
        published::{self, CONTEXT},
        publishing::Publishing,
    },
};

/// Why nothing was found in the DHT, or told to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DhtError {
    /// It is not switched on; see [`Config::dht`](crate::Config::dht).
    #[error("the DHT is not used: it is off in the configuration")]
    Off,
    /// No address of a node by which it is entered was found.
    #[error("no node is known by which to enter the DHT: are names looked up here, and dht_bootstrap right?")]
    NoBootstrap,
    /// No node has answered.
    #[error("no node of the DHT answers: does UDP pass here, and are the nodes of dht_bootstrap up?")]
    NoAnswer,
    /// Nodes have answered, and none has anything of that key.
    #[error("nothing of that key stands in the DHT ({answered} nodes answered)")]
    NotFound {
        /// How many nodes said so.
        answered: u32,
    },
    /// What was found is no good.
    #[error("what stands of that key in the DHT is of no use: {reason}")]
    Unusable {
        /// What is wrong with it, for a person to read.
        reason: String,
    },
    /// What was found is older than what was found before.
    #[error("what stands of that key in the DHT is older than what stood there before")]
    Older,
    /// These bytes are no key.
    #[error("that is no key that a peer has")]
    NoKey,
    /// The nodes refused what was told.
    #[error("the nodes of the DHT do not take it: {reason}")]
    Refused {
        /// What they say.
        reason: String,
    },
    /// It took too long.
    #[error("the DHT did not answer in time")]
    TimedOut,
    /// Another road was quicker.
    #[error("given up, as another road was quicker")]
    Interrupted,
    /// The service is closed.
    #[error("the service is closed")]
    Closed,
    /// The operating system gives no socket or no thread.
    #[error("the DHT cannot be entered: {reason}")]
    Start {
        /// What happened, for a person to read.
        reason: String,
    },
    /// The node has failed; the next question starts another one.
    #[error("the node of the DHT has failed")]
    Failed,
}

/// Asks the DHT, and tells it where this service is. A clone is the same one.
#[derive(Clone)]
pub(crate) struct Directory(Arc<Inner>);

struct Inner {
    own: BlindedIdentity,
    names: Names,
    state: Mutex<State>,
    /// Told whenever something of the state changes.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Runs while it is of use.
    node: Option<Node>,
    used: Option<Instant>,
    /// Questions that somebody waits for.
    asking: usize,
    /// Those that nobody waits for any more, but which are still under way.
    left: Vec<Question>,
    /// Who waits for the node.
    waiting: Vec<(u64, Unparker)>,
    counted: u64,
    /// The latest that was found of peers.
    latest: BTreeMap<PublicKey, i64>,
    /// Once the thread runs.
    publishing: Option<Publishing>,
    thread: Option<JoinHandle<()>>,
}

/// Something that was found.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) contact: Contact,
    /// It grows with each that a peer tells.
    pub(crate) sequence: i64,
}

impl Directory {
    pub(crate) fn new(own: BlindedIdentity, bootstrap: Vec<String>) -> Self {
        let names = Names::new(bootstrap);
        Self(Arc::new(Inner { own, names, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// Looks a key up, and gives each contact that is newer than those before to `take`, as nodes tell of them; returns when all nodes that
    /// were asked have answered, with how many of them did. Blocks at most until `deadline`, or until `given_up` says so, which
    /// [`Directory::nudge`] has it asked.
    pub(crate) fn look_up(
        &self,
        key: PublicKey,
        deadline: Instant,
        given_up: &dyn Fn() -> bool,
        take: &mut dyn FnMut(Finding),
    ) -> Result<u32, DhtError> {
        let blinded = key.blinded(CONTEXT).ok_or(DhtError::NoKey)?;
        let (mut found, mut failure) = (None, None);
        let answered = self.ask(&blinded, deadline, given_up, &mut |item| {
            if found.is_some_and(|sequence| sequence >= item.seq()) {
                return;
            }
            match self.judge(&key, &blinded, item) {
                Ok(finding) => {
                    found = Some(finding.sequence);
                    take(finding);
                }
                Err(error) => failure = Some(error),
            }
        })?;
        match failure {
            _ if found.is_some() => Ok(answered),
            Some(error) => Err(error),
            None if answered == 0 => Err(DhtError::NoAnswer),
            None => Err(DhtError::NotFound { answered }),
        }
    }

    /// The highest number of what was told of this service's own key, by whomever.
    fn latest_of_own(&self, deadline: Instant) -> Result<Option<i64>, DhtError> {
        let mut latest = None;
        let take = &mut |item: &MutableItem| latest = latest.max(Some(item.seq()));
        self.ask(&self.0.own.public_key(), deadline, &|| false, take)?;
        Ok(latest)
    }

    /// Gives what nodes have of a blinded key to `take`; tells how many have answered.
    fn ask(
        &self,
        blinded: &PublicKey,
        deadline: Instant,
        given_up: &dyn Fn() -> bool,
        take: &mut dyn FnMut(&MutableItem),
    ) -> Result<u32, DhtError> {
        let goes_on = || self.goes_on(given_up);
        let waiting = Waiting::new();
        let _waits = self.waits(&waiting);
        let mut place = self.place(deadline, &goes_on)?;
        let node = self.node(deadline, &goes_on)?;
        let question = place.0.insert(Question::ask(node, blinded.as_bytes())?);
        while let Some(item) = waiting.wait(deadline, &goes_on, |context| question.poll_item(context))? {
            take(&item);
        }
        question.answered(&waiting, deadline, &goes_on)
    }

    /// What an item says, if it is news; its signature was found to be the blinded key's.
    fn judge(&self, key: &PublicKey, blinded: &PublicKey, item: &MutableItem) -> Result<Finding, DhtError> {
        if item.key() != blinded.as_bytes() || item.value().len() > published::MAX_BYTES {
            return Err(DhtError::Unusable { reason: "it is none of this program's".to_owned() });
        }
        let contact = published::open(key, blinded, item.value(), clock::unix_seconds())
            .map_err(|flaw| DhtError::Unusable { reason: flaw.to_string() })?;
        let mut state = self.0.state.hold();
        let is_new = state.latest.get(key).is_none_or(|latest| *latest <= item.seq());
        if !is_new {
            return Err(DhtError::Older);
        }
        if state.latest.len() >= MAX_LATEST && !state.latest.contains_key(key) {
            state.latest.pop_first();
        }
        state.latest.insert(*key, item.seq());
        Ok(Finding { contact, sequence: item.seq() })
    }

    fn goes_on(&self, given_up: &dyn Fn() -> bool) -> Result<(), DhtError> {
        if self.0.state.hold().closed {
            Err(DhtError::Closed)
        } else if given_up() {
            Err(DhtError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// One of the questions that may be under way at a time.
    fn place(
        &self,
        deadline: Instant,
        goes_on: &dyn Fn() -> Result<(), DhtError>,
    ) -> Result<Place<'_>, DhtError> {
        loop {
            goes_on()?;
            let now = clock::now();
            let mut state = self.0.state.hold();
            state.left.retain_mut(|question| question.is_under_way(now));
            if state.asking + state.left.len() < MAX_QUESTIONS {
                state.asking += 1;
                state.used = Some(now);
                return Ok(Place(None, self));
            }
            if now >= deadline {
                return Err(DhtError::TimedOut);
            }
            // Nobody tells when a question that was left has its answer.
            let until = deadline.min(now + LOOKING_AGAIN);
            let left = until.saturating_duration_since(now);
            drop(self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The node, started if it does not run.
    fn node(
        &self,
        deadline: Instant,
        goes_on: &dyn Fn() -> Result<(), DhtError>,
    ) -> Result<AsyncDht, DhtError> {
        let running = |state: &mut State| {
            state.node = state.node.take().filter(Node::is_running);
            state.node.as_ref().map(Node::handle)
        };
        if let Some(handle) = running(&mut self.0.state.hold()) {
            return Ok(handle);
        }
        let bootstrap = self.0.names.addresses(deadline, goes_on)?;
        let mut state = self.0.state.hold();
        if state.closed {
            return Err(DhtError::Closed);
        }
        if let Some(handle) = running(&mut state) {
            return Ok(handle);
        }
        let node = Node::start(&bootstrap, self.is_local())
            .map_err(|error| DhtError::Start { reason: error.to_string() })?;
        Ok(state.node.insert(node).handle())
    }

    /// Whether all of this DHT is on this machine, as in tests.
    pub(crate) fn is_local(&self) -> bool {
        self.0.names.are_local()
    }

    fn waits<'w>(&'w self, waiting: &Waiting) -> Waits<'w> {
        let mut state = self.0.state.hold();
        state.counted += 1;
        let number = state.counted;
        state.waiting.push((number, waiting.unparker()));
        Waits(number, self)
    }

    /// Has everybody who waits look whether to go on.
    pub(crate) fn nudge(&self) {
        let state = self.0.state.hold();
        state.waiting.iter().for_each(|(_, unparker)| unparker.unpark());
        drop(state);
        self.0.changed.notify_all();
        self.0.names.nudge();
    }

    /// Ends every wait.
    pub(crate) fn close(&self) {
        let mut state = self.0.state.hold();
        state.closed = true;
        state.left.clear();
        drop(state);
        self.nudge();
    }
}

/// One of the questions that may be under way. What nobody waits for any more is still counted until the node has its answers.
struct Place<'d>(Option<Question>, &'d Directory);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = clock::now();
        let mut state = self.1.0.state.hold();
        state.asking -= 1;
        state.used = Some(now);
        if let Some(mut question) = self.0.take()
            && !state.closed
            && question.is_under_way(now)
        {
            state.left.push(question);
        }
        drop(state);
        self.1.0.changed.notify_all();
    }
}

/// Somebody who waits for the node.
struct Waits<'d>(u64, &'d Directory);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.1.0.state.hold().waiting.retain(|(number, _)| *number != self.0);
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Directory").field("own", &self.0.own).finish_non_exhaustive()
    }
}

/// Each asks some dozens of nodes.
const MAX_QUESTIONS: usize = 8;
/// One that is forgotten may be found older than it was.
const MAX_LATEST: usize = 1_024;
const LOOKING_AGAIN: Duration = Duration::from_millis(100);
