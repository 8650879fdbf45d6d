//! The thread `nat-io`: one in the process, for all leases, relays and servers. It comes with the first task and ends with the
//! last. On Linux there is one for each network namespace that the process uses, since a thread's sockets belong to its own.
//!
//! A task is turned when one of its sockets is ready, when its time has come, and when anybody has woken the thread: whoever tells a
//! task something need not say which. A task that panics is dropped; the others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::clock::now;

/// What is done on the thread. Nothing of it may block.
pub(crate) trait Task: Send {
    /// Does what is due and takes in what has come: `ready` has the numbers of sockets, as they were
    /// [registered](Sources::register), and `woken` says that somebody may have told it something. A part of it at a time, so that the
    /// others have their turn.
    fn turn(&mut self, now: Instant, ready: &[usize], woken: bool) -> Turn;

    /// When to be turned though nothing has come.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// How a task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is nothing to do for now.
    Wait,
    /// There is more of what the poll will not tell again.
    Again,
    /// It is over.
    Over,
}

/// One task, from outside. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    task: u64,
    shared: Arc<Shared>,
}

/// Where a task has its sockets watched.
#[derive(Debug)]
pub(crate) struct Sources {
    task: u64,
    registry: Registry,
    tokens: Arc<Mutex<Tokens>>,
}

/// Has a task done, which `make` makes; it may register sockets at once.
pub(crate) fn add<T: Task + 'static>(make: impl FnOnce(Sources) -> io::Result<T>) -> io::Result<Handle> {
    let mut running = lock(&RUNNING);
    let namespace = namespace();
    let known = running.iter().find(|shared| shared.namespace == namespace).cloned();
    let shared = match known {
        Some(shared) => shared,
        None => {
            let started = start(namespace)?;
            running.push(Arc::clone(&started));
            started
        }
    };
    // Whether it ends is decided with both locks held: not while this one is.
    let task = {
        let mut state = lock(&shared.state);
        state.next_task += 1;
        state.next_task
    };
    let made = shared
        .registry
        .try_clone()
        .and_then(|registry| make(Sources { task, registry, tokens: Arc::clone(&shared.tokens) }));
    let mut state = lock(&shared.state);
    let result = made.map(|made| {
        state.alive.insert(task);
        state.added.push((task, Box::new(made)));
        Handle { task, shared: Arc::clone(&shared) }
    });
    drop(state);
    // Also if nothing came of it, since it may have been the first.
    shared.wake();
    result
}

impl Handle {
    /// Has the task turned.
    pub(crate) fn wake(&self) {
        self.shared.wake();
    }

    /// What wakes the thread.
    #[cfg(feature = "turn")]
    pub(crate) fn waker(&self) -> &Arc<Waker> {
        &self.shared.waker
    }

    /// Ends the task, and waits until it and its sockets are gone, and the thread as well if that was the last; not if it is this
    /// thread that asks.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.shared.state);
        if !state.alive.contains(&self.task) {
            return;
        }
        state.stopped.push(self.task);
        self.shared.wake();
        if state.thread == Some(thread::current().id()) {
            return;
        }
        let is_alive = |state: &mut State| state.alive.contains(&self.task);
        let waited = self.shared.changed.wait_while(state, is_alive);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let ended = if state.is_over { state.join.take() } else { None };
        drop(state);
        if ended.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread nat-io had panicked");
        }
    }
}

impl Sources {
    /// Has a socket watched, under a number of the task's own.
    pub(crate) fn register(
        &self,
        source: &mut impl Source,
        number: usize,
        interests: Interest,
    ) -> io::Result<()> {
        let token = lock(&self.tokens).take(self.task, number);
        self.registry.register(source, Token(token), interests).inspect_err(|_| {
            lock(&self.tokens).owners.remove(&token);
        })
    }

    /// Has it watched no longer.
    pub(crate) fn deregister(&self, source: &mut impl Source, number: usize) {
        if let Err(error) = self.registry.deregister(source) {
            tracing::debug!(%error, "a socket was not watched");
        }
        lock(&self.tokens).owners.retain(|_, owner| *owner != (self.task, number));
    }
}

/// The running thread, as those who use it see it.
#[derive(Debug)]
struct Shared {
    namespace: Option<PathBuf>,
    registry: Registry,
    waker: Arc<Waker>,
    tokens: Arc<Mutex<Tokens>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next_task: u64,
    /// Those that are there, or on their way to the thread.
    alive: BTreeSet<u64>,
    added: Vec<(u64, Box<dyn Task>)>,
    stopped: Vec<u64>,
    thread: Option<ThreadId>,
    join: Option<JoinHandle<()>>,
    /// The thread takes nothing more.
    is_over: bool,
}

/// Whose socket a token of the poll is, and which.
#[derive(Debug, Default)]
struct Tokens {
    owners: BTreeMap<usize, (u64, usize)>,
    next: usize,
}

/// A task on the thread.
struct Running {
    task: Box<dyn Task>,
    ready: Vec<usize>,
    again: bool,
    /// It is asked for nothing more.
    is_over: bool,
}

fn start(namespace: Option<PathBuf>) -> io::Result<Arc<Shared>> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let shared = Arc::new(Shared {
        namespace,
        registry: poll.registry().try_clone()?,
        waker,
        tokens: Arc::default(),
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let theirs = Arc::clone(&shared);
    let thread = thread::Builder::new().name("nat-io".into()).spawn(move || {
        let _end = End(&theirs);
        run(&theirs, poll);
    })?;
    let mut state = lock(&shared.state);
    state.thread = Some(thread.thread().id());
    state.join = Some(thread);
    drop(state);
    Ok(shared)
}

fn run(shared: &Arc<Shared>, mut poll: Poll) {
    let mut tasks: BTreeMap<u64, Running> = BTreeMap::new();
    let mut events = Events::with_capacity(256);
    loop {
        let due = tasks.values().filter_map(Running::timeout).min();
        let again = tasks.values().any(|one| one.again);
        let wait =
            if again { Some(Duration::ZERO) } else { due.map(|due| due.saturating_duration_since(now())) };
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return tracing::warn!(%error, "leases, relays and servers are given up");
            }
            _ => {}
        }
        // Before the events are looked at: one that was added meanwhile may be among those that are ready, and is told of only once.
        if shared.exchange(&mut tasks) {
            return;
        }
        let woken = shared.sort(&events, &mut tasks);
        let time = now();
        for (number, one) in &mut tasks {
            let is_due = one.timeout().is_some_and(|due| due <= time);
            if one.is_over || !(woken || is_due || one.again || !one.ready.is_empty()) {
                continue;
            }
            one.turn(time, woken);
            if one.is_over {
                lock(&shared.state).stopped.push(*number);
                shared.wake();
            }
        }
    }
}

impl Running {
    fn timeout(&self) -> Option<Instant> {
        if self.is_over { None } else { self.task.poll_timeout() }
    }

    fn turn(&mut self, time: Instant, woken: bool) {
        let turned = catch_unwind(AssertUnwindSafe(|| self.task.turn(time, &self.ready, woken)));
        if turned.is_err() {
            tracing::error!("a task of the thread nat-io panicked and is dropped");
        }
        self.ready.clear();
        self.again = matches!(turned, Ok(Turn::Again));
        self.is_over = !matches!(turned, Ok(Turn::Wait | Turn::Again));
    }
}

impl Shared {
    /// Takes in new tasks and drops those that are over. True if there are none left and the thread is to end, which nobody can
    /// prevent any more.
    fn exchange(self: &Arc<Self>, tasks: &mut BTreeMap<u64, Running>) -> bool {
        let mut running = lock(&RUNNING);
        let mut state = lock(&self.state);
        for (number, task) in std::mem::take(&mut state.added) {
            tasks.insert(number, Running { task, ready: Vec::new(), again: false, is_over: false });
        }
        let stopped = std::mem::take(&mut state.stopped);
        state.is_over = state.alive.iter().all(|number| stopped.contains(number));
        let is_over = state.is_over;
        if is_over {
            running.retain(|known| !Arc::ptr_eq(known, self));
        }
        drop((running, state));
        // With no lock held: what a task holds may ask for something as it goes.
        for number in &stopped {
            let task = tasks.remove(number);
            if catch_unwind(AssertUnwindSafe(|| drop(task))).is_err() {
                tracing::error!("a task of the thread nat-io panicked at its end");
            }
        }
        if !stopped.is_empty() {
            lock(&self.tokens).owners.retain(|_, (task, _)| !stopped.contains(task));
            let mut state = lock(&self.state);
            state.alive.retain(|number| !stopped.contains(number));
            drop(state);
            self.changed.notify_all();
        }
        is_over
    }

    /// Gives events to their tasks; whether somebody has woken the thread.
    fn sort(&self, events: &Events, tasks: &mut BTreeMap<u64, Running>) -> bool {
        let tokens = lock(&self.tokens);
        let mut woken = false;
        for event in events {
            woken |= event.token() == WAKER;
            if let Some((task, number)) = tokens.owners.get(&event.token().0)
                && let Some(one) = tasks.get_mut(task)
                && !one.ready.contains(number)
            {
                one.ready.push(*number);
            }
        }
        woken
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "cannot wake the thread nat-io");
        }
    }
}

/// However the thread ends, nobody waits for it, and another may be started.
struct End<'a>(&'a Arc<Shared>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        lock(&RUNNING).retain(|known| !Arc::ptr_eq(known, self.0));
        let mut state = lock(&self.0.state);
        state.is_over = true;
        state.alive.clear();
        let added = std::mem::take(&mut state.added);
        drop(state);
        drop(added);
        self.0.changed.notify_all();
    }
}

impl Tokens {
    fn take(&mut self, task: u64, number: usize) -> usize {
        loop {
            let token = self.next;
            self.next = self.next.wrapping_add(1) % WAKER.0;
            if let std::collections::btree_map::Entry::Vacant(place) = self.owners.entry(token) {
                place.insert((task, number));
                return token;
            }
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("alive", &self.alive)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The network namespace of the calling thread, by the name that the system has for it.
fn namespace() -> Option<PathBuf> {
    if cfg!(target_os = "linux") { std::fs::read_link("/proc/thread-self/ns/net").ok() } else { None }
}

/// The threads of this process, one for each network namespace. Locked before the state of one.
static RUNNING: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

const WAKER: Token = Token(usize::MAX);

#[cfg(test)]
mod tests;
