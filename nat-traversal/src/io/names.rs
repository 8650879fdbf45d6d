use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use mio::{Events, Poll, Token, Waker};

use super::clock::now;
use super::interrupt::Interrupter;
use super::run::RunError;

/// The addresses of a host, by the system's resolver, which cannot be interrupted: it runs on a thread of its own, and who
/// waits leaves at `deadline` or when interrupted. A thread left behind ends when the resolver does.
pub(crate) fn resolve(
    host: &str,
    port: u16,
    deadline: Instant,
    interrupter: &Interrupter,
) -> Result<Vec<SocketAddr>, RunError> {
    let mut poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
    let _watch = interrupter.watch(Arc::clone(&waker))?;
    let answer = Arc::new(Mutex::new(None));
    let (theirs, host) = (Arc::clone(&answer), host.to_owned());
    let place = Place::take()?;
    thread::Builder::new().name("nat-names".into()).spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect());
        *theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        drop(place);
        if let Err(error) = waker.wake() {
            tracing::warn!(%error, "cannot wake who waits for a name");
        }
    })?;
    let mut events = Events::with_capacity(4);
    loop {
        if let Some(found) = answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return found.map_err(RunError::Io);
        }
        if interrupter.is_interrupted() {
            return Err(RunError::Interrupted);
        }
        let time = now();
        if time >= deadline {
            return Err(RunError::TimedOut);
        }
        match poll.poll(&mut events, Some(deadline.saturating_duration_since(time))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
    }
}

/// A lookup under way.
struct Place;

impl Place {
    fn take() -> io::Result<Self> {
        let mut lookups = LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner);
        if *lookups >= MAX_LOOKUPS {
            return Err(io::Error::other("too many names are being looked up"));
        }
        *lookups += 1;
        Ok(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

static LOOKUPS: Mutex<u32> = Mutex::new(0);

/// Lookups at a time in the process: a resolver that hangs must not gather threads.
const MAX_LOOKUPS: u32 = 8;

/// Addresses looked at; each is tried in turn.
const MAX_ADDRESSES: usize = 8;
