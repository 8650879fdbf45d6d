use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mio::Interest;

use super::clock::now;
use super::interrupt::{Interrupter, Watch};
use super::worker::{self, Sources, Task, Turn};
use crate::TurnSocket;
use crate::protocol::turn::{TurnEvent, TurnFailure, TurnSendError};

/// The relays of one mapping context. A task on the thread `nat-io` receives for them and keeps them alive: it comes with the first
/// and goes when the last has been given back.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    working: Mutex<Option<Working>>,
}

/// What the task shares with those who add relays.
#[derive(Debug)]
struct Working {
    sources: Sources,
    task: worker::Handle,
    relays: BTreeMap<usize, Arc<Relay>>,
    next: usize,
    _watch: Watch,
}

/// One relay: its socket, and what has come for its holder.
#[derive(Debug)]
pub(crate) struct Relay {
    socket: Mutex<TurnSocket>,
    inbox: Mutex<Inbox>,
    changed: Condvar,
    task: worker::Handle,
}

#[derive(Debug, Default)]
struct Inbox {
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    dropped: u64,
    relayed: Option<(SocketAddr, Option<SocketAddr>)>,
    ended: Option<Ended>,
    /// Nobody holds it any more.
    released: bool,
}

/// Why nothing more comes.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    Failed(TurnFailure, Option<Arc<io::Error>>),
    Interrupted,
    Closed,
}

/// Why a call came to no result.
#[derive(Debug)]
pub(crate) enum WaitError {
    TimedOut,
    Ended(Ended),
    Send(TurnSendError),
}

impl Relays {
    /// Adds a relay that begins to connect.
    pub(crate) fn add(
        self: &Arc<Self>,
        mut socket: TurnSocket,
        interrupter: &Interrupter,
    ) -> io::Result<Arc<Relay>> {
        let mut guard = lock(&self.working);
        if guard.is_none() {
            *guard = Some(self.start(interrupter)?);
        }
        let working = guard.as_mut().expect("set above");
        if working.relays.len() >= MAX_RELAYS {
            return Err(io::Error::other("too many relays in one mapping context"));
        }
        let number = working.next;
        working.next = working.next.wrapping_add(1);
        working.sources.register(&mut socket, number, Interest::READABLE)?;
        let relay = Arc::new(Relay {
            socket: Mutex::new(socket),
            inbox: Mutex::default(),
            changed: Condvar::new(),
            task: working.task.clone(),
        });
        working.relays.insert(number, Arc::clone(&relay));
        relay.task.wake();
        Ok(relay)
    }

    fn start(self: &Arc<Self>, interrupter: &Interrupter) -> io::Result<Working> {
        let mut of_task = None;
        let task = worker::add(|sources| {
            of_task = Some(sources);
            let (relays, interrupter) = (Arc::clone(self), interrupter.clone());
            Ok(Receiving { relays, interrupter, again: Vec::new(), is_over: false })
        })?;
        let sources = of_task.expect("given to the task");
        let watch = interrupter.watch(Arc::clone(task.waker()))?;
        Ok(Working { sources, task, relays: BTreeMap::new(), next: 0, _watch: watch })
    }

    /// The relays that have not been given back; none means that the task is to end.
    fn current(&self) -> Option<Vec<(usize, Arc<Relay>)>> {
        let mut guard = lock(&self.working);
        let working = guard.as_mut()?;
        let sources = &working.sources;
        working.relays.retain(|number, relay| {
            let is_over = relay.is_given_back();
            if is_over {
                sources.deregister(&mut *relay.lock_socket(), *number);
            }
            !is_over
        });
        if working.relays.is_empty() {
            *guard = None;
            return None;
        }
        Some(working.relays.iter().map(|(number, relay)| (*number, Arc::clone(relay))).collect())
    }
}

/// The task.
struct Receiving {
    relays: Arc<Relays>,
    interrupter: Interrupter,
    /// Those with more to read than one turn takes.
    again: Vec<usize>,
    is_over: bool,
}

impl Task for Receiving {
    fn turn(&mut self, time: Instant, ready: &[usize], woken: bool) -> Turn {
        let Some(relays) = self.relays.current() else {
            self.is_over = true;
            return Turn::Over;
        };
        let again = std::mem::take(&mut self.again);
        let interrupted = self.interrupter.is_interrupted();
        for (number, relay) in &relays {
            let is_due = relay.lock_socket().poll_timeout().is_some_and(|due| due <= time);
            let is_ready = ready.contains(number) || again.contains(number);
            if (woken || is_due || is_ready) && relay.turn() {
                self.again.push(*number);
            }
            if interrupted {
                relay.end(&Ended::Interrupted);
            }
        }
        // Once more, as some may have ended just now, and nothing would tell of it again.
        self.is_over = self.relays.current().is_none();
        match self.is_over {
            true => Turn::Over,
            false if self.again.is_empty() => Turn::Wait,
            false => Turn::Again,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let guard = lock(&self.relays.working);
        guard.as_ref()?.relays.values().filter_map(|relay| relay.lock_socket().poll_timeout()).min()
    }
}

/// Whoever waits for a relay that its task has left learns that nothing will come.
impl Drop for Receiving {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Some(working) = lock(&self.relays.working).take() {
            let ended = Ended::Failed(TurnFailure::Disconnected, None);
            working.relays.values().for_each(|relay| relay.end(&ended));
        }
    }
}

impl Relay {
    /// Waits for the allocation; the address at which peers reach us, and the one under which the server sees us.
    pub(crate) fn wait_allocated(
        &self,
        deadline: Instant,
    ) -> Result<(SocketAddr, Option<SocketAddr>), WaitError> {
        self.wait(deadline, |inbox| inbox.relayed)
    }

    /// Waits for a packet.
    pub(crate) fn receive(&self, deadline: Instant) -> Result<(SocketAddr, Vec<u8>), WaitError> {
        self.wait(deadline, |inbox| inbox.packets.pop_front())
    }

    /// Sends a packet; waits only if a stream to the server is far behind.
    pub(crate) fn send(&self, payload: &[u8], peer: SocketAddr, deadline: Instant) -> Result<(), WaitError> {
        loop {
            if let Some(ended) = self.lock_inbox().ended.clone() {
                return Err(WaitError::Ended(ended));
            }
            let sent = self.with_socket(|socket| socket.send_to(payload, peer));
            if sent != Err(TurnSendError::Busy) {
                return sent.map_err(WaitError::Send);
            }
            let inbox = self.lock_inbox();
            let time = now();
            if time >= deadline {
                return Err(WaitError::TimedOut);
            }
            let wait = deadline.saturating_duration_since(time).min(BUSY_WAIT);
            drop(self.changed.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Does something with the socket, and has the task look at its timers again.
    pub(crate) fn with_socket<T>(&self, act: impl FnOnce(&mut TurnSocket) -> T) -> T {
        let mut socket = self.lock_socket();
        let before = socket.poll_timeout();
        let result = act(&mut socket);
        let after = socket.poll_timeout();
        drop(socket);
        if after != before {
            self.task.wake();
        }
        result
    }

    /// Packets that came faster than they were taken.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock_inbox().dropped
    }

    /// Gives the allocation back, in the background.
    pub(crate) fn close(&self) {
        self.with_socket(TurnSocket::close);
        self.lock_inbox().released = true;
        self.task.wake();
    }

    /// Reads, sends and does what is due; true if more is to be read.
    fn turn(&self) -> bool {
        let mut socket = self.lock_socket();
        let more = socket.turn(|peer, payload| {
            let mut inbox = self.lock_inbox();
            if inbox.packets.len() >= MAX_PACKETS {
                inbox.packets.pop_front();
                inbox.dropped += 1;
            }
            inbox.packets.push_back((peer, payload.to_vec()));
        });
        let mut inbox = self.lock_inbox();
        while let Some(event) = socket.poll_event() {
            match event {
                TurnEvent::Allocated { relayed, mapped } => inbox.relayed = Some((relayed, mapped)),
                TurnEvent::PeerRefused { peer, failure } => {
                    tracing::debug!(%peer, %failure, "the relay does not let us talk to a peer");
                }
                TurnEvent::Failed(failure) => {
                    let error = socket.take_error().map(Arc::new);
                    inbox.ended = Some(Ended::Failed(failure, error));
                }
                TurnEvent::Closed => inbox.ended = Some(Ended::Closed),
                TurnEvent::Data { .. } | TurnEvent::Redirected(_) => {}
            }
        }
        drop((socket, inbox));
        self.changed.notify_all();
        more
    }

    fn wait<T>(
        &self,
        deadline: Instant,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T, WaitError> {
        let mut inbox = self.lock_inbox();
        loop {
            if let Some(taken) = take(&mut inbox) {
                return Ok(taken);
            }
            if let Some(ended) = inbox.ended.clone() {
                return Err(WaitError::Ended(ended));
            }
            let time = now();
            if time >= deadline {
                return Err(WaitError::TimedOut);
            }
            let wait = deadline.saturating_duration_since(time);
            inbox = self.changed.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn end(&self, ended: &Ended) {
        self.lock_inbox().ended.get_or_insert_with(|| ended.clone());
        self.changed.notify_all();
    }

    /// Whether nobody holds it and the server knows, or is gone.
    fn is_given_back(&self) -> bool {
        let inbox = self.lock_inbox();
        inbox.released && matches!(inbox.ended, Some(Ended::Closed | Ended::Failed(..)))
    }

    fn lock_socket(&self) -> MutexGuard<'_, TurnSocket> {
        lock(&self.socket)
    }

    fn lock_inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Relays at a time in one context.
const MAX_RELAYS: usize = 256;

/// Packets that wait to be taken; the oldest goes first, as in a system's socket buffer of a few hundred kilobytes.
const MAX_PACKETS: usize = 256;

/// A stream that is behind is looked at again after this time at the latest.
const BUSY_WAIT: std::time::Duration = std::time::Duration::from_millis(20);
