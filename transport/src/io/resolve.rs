//! Names to addresses, on a thread that nobody waits to join: the system's resolver cannot be interrupted.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{clock, crank::Waited, lock::Lock as _, slot::Slot};
use crate::transport::Shared;

/// Looks names up one after the other; its thread comes when there is work and goes when there is none.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Arc<Job>>,
    running: bool,
}

#[derive(Debug)]
struct Job {
    host: String,
    port: u16,
    slot: Arc<Slot>,
    answer: Mutex<Option<io::Result<Vec<SocketAddr>>>>,
}

impl Resolver {
    /// Blocks until the system's resolver has answered, at most until the deadline; the late answer is forgotten.
    pub(crate) fn resolve(
        &self,
        shared: &Shared,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> io::Result<Vec<SocketAddr>> {
        let slot = shared.crank.slot();
        let job = Arc::new(Job { host: host.to_owned(), port, slot, answer: Mutex::default() });
        self.start(job.clone())?;
        loop {
            if let Some(answer) = job.answer.hold().take() {
                return answer;
            }
            match shared.crank.wait(&job.slot, Some(deadline)) {
                Waited::Ready => {}
                Waited::TimedOut => return Err(io::ErrorKind::TimedOut.into()),
                Waited::Closed => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
    }

    fn start(&self, job: Arc<Job>) -> io::Result<()> {
        let mut state = self.state.hold();
        if state.jobs.len() >= MAX_WAITING {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "too many names are being looked up"));
        }
        state.jobs.push_back(job);
        if !state.running {
            let shared = self.state.clone();
            thread::Builder::new().name("transport-names".into()).spawn(move || work(&shared))?;
            state.running = true;
        }
        Ok(())
    }
}

fn work(state: &Mutex<State>) {
    loop {
        let job = {
            let mut state = state.hold();
            let Some(job) = state.jobs.pop_front() else {
                state.running = false;
                return;
            };
            job
        };
        // Whoever asked may have gone; then nobody else holds the job.
        if Arc::strong_count(&job) > 1 {
            let begun = clock::now();
            let answer = (job.host.as_str(), job.port).to_socket_addrs().map(Iterator::collect);
            if clock::now().saturating_duration_since(begun) > SLOW {
                tracing::warn!(host = job.host, "the resolver took long");
            }
            *job.answer.hold() = Some(answer);
            job.slot.wake();
        }
    }
}

/// A resolver that hangs holds up those behind it; more than this would only wait in vain.
const MAX_WAITING: usize = 8;
/// Worth telling an operator.
const SLOW: Duration = Duration::from_secs(2);
