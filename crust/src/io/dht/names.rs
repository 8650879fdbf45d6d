//! The addresses of the nodes by which the DHT is entered.

use std::{
    net::{SocketAddr, SocketAddrV4, ToSocketAddrs as _},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

use super::DhtError;
use crate::io::{clock, lock::Lock as _};

/// Looks the names up when they are needed. The system's resolver cannot be interrupted: it runs on a thread that nobody joins, one at
/// a time, which ends when the resolver does.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<String>,
    answer: Arc<Answer>,
}

#[derive(Debug, Default)]
struct Answer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asking: bool,
    found: Option<Vec<SocketAddrV4>>,
}

impl Names {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { names, answer: Arc::default() }
    }

    /// Blocks until it is known, at most until `deadline`, or until `given_up`, which [`Names::nudge`] has it asked.
    pub(super) fn addresses(
        &self,
        deadline: Instant,
        given_up: &dyn Fn() -> Result<(), DhtError>,
    ) -> Result<Vec<SocketAddrV4>, DhtError> {
        let addresses: Option<Vec<SocketAddrV4>> = self.names.iter().map(|name| name.parse().ok()).collect();
        if let Some(addresses) = addresses {
            return known(addresses);
        }
        let mut state = self.answer.state.hold();
        loop {
            given_up()?;
            if let Some(found) = state.found.take() {
                return known(found);
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(DhtError::TimedOut);
            }
            if !state.asking {
                self.ask().map_err(|error| DhtError::Start { reason: error.to_string() })?;
                state.asking = true;
            }
            let waited = self.answer.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn ask(&self) -> std::io::Result<()> {
        let (names, answer) = (self.names.clone(), self.answer.clone());
        let work = move || {
            let found = names.iter().filter_map(|name| name.to_socket_addrs().ok()).flatten();
            let ipv4 = found.filter_map(|addr| match addr {
                SocketAddr::V4(addr) => Some(addr),
                SocketAddr::V6(_) => None,
            });
            let found = ipv4.take(MAX_ADDRESSES).collect();
            *answer.state.hold() = State { asking: false, found: Some(found) };
            answer.changed.notify_all();
        };
        thread::Builder::new().name("crust-names".into()).spawn(work).map(drop)
    }

    /// Has everybody who waits look whether to go on.
    pub(super) fn nudge(&self) {
        drop(self.answer.state.hold());
        self.answer.changed.notify_all();
    }

    /// Whether all of them are on this machine.
    pub(super) fn are_local(&self) -> bool {
        let is_local = |name: &String| name.parse::<SocketAddrV4>().is_ok_and(|addr| addr.ip().is_loopback());
        self.names.iter().all(is_local)
    }
}

fn known(addresses: Vec<SocketAddrV4>) -> Result<Vec<SocketAddrV4>, DhtError> {
    if addresses.is_empty() { Err(DhtError::NoBootstrap) } else { Ok(addresses) }
}

/// Each is asked at the start of the node.
const MAX_ADDRESSES: usize = 16;
