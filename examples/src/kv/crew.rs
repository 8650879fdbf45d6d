use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::{
    disk::Disk,
    threading::{SERVICES, Threading},
};
use crate::protocol::kv::{Host, Item, Packed, Record, Reference};

/// The services of a node, in the threads that they are placed in. Never waits for any of them.
pub(super) struct Crew<R: Reference> {
    here: Station<R>,
    workers: Vec<Worker<R>>,
    places: [Option<usize>; SERVICES],
    /// For services.
    inner: VecDeque<Item<R>>,
    /// For others.
    outer: Vec<Item<R>>,
}

/// Services in one thread, and what they keep on disk.
pub(super) struct Station<R: Reference> {
    pub(super) host: Host<R>,
    pub(super) disk: Option<Disk>,
}

/// Makes a service, in the thread that it shall run in.
pub(super) type Make<R> = Box<dyn FnOnce(&mut Station<R>) + Send>;

/// What a worker has done.
pub(super) struct Batch<R: Reference> {
    worker: usize,
    /// How many items it has dealt with.
    done: usize,
    items: Vec<Item<Packed<R>>>,
    result: io::Result<()>,
}

/// Takes what workers have done to the thread of the crew; tells whether anybody is there.
pub(super) type Tell<R> = Arc<dyn Fn(Batch<R>) -> bool + Send + Sync>;

struct Worker<R: Reference> {
    jobs: Option<Sender<Item<Packed<R>>>>,
    /// Items that it has got and not dealt with.
    outstanding: usize,
    waiting: VecDeque<Item<R>>,
    thread: JoinHandle<()>,
}

impl<R: Reference> Crew<R> {
    /// Starts what has a thread. The services are made in the order gate, router, store, api, onion.
    pub(super) fn start(
        threading: &Threading,
        make: [Make<R>; SERVICES],
        tell: &Tell<R>,
    ) -> io::Result<Self> {
        let places = threading.workers();
        let mut here = Station::default();
        let count = places.iter().flatten().max().map_or(0, |last| last + 1);
        let mut others: Vec<Vec<Make<R>>> = (0..count).map(|_| Vec::new()).collect();
        for (place, make) in places.iter().zip(make) {
            match place {
                None => make(&mut here),
                Some(worker) => others[*worker].push(make),
            }
        }
        let workers = others.into_iter().enumerate().map(|(number, make)| Worker::start(number, make, tell));
        let workers = workers.collect::<io::Result<_>>()?;
        Ok(Self { here, workers, places, inner: VecDeque::new(), outer: Vec::new() })
    }

    /// Hands something to the service that it is for.
    pub(super) fn give(&mut self, item: Item<R>) {
        self.inner.push_back(item);
    }

    /// Takes what a worker has done.
    ///
    /// # Errors
    ///
    /// When it could not write to the disk.
    pub(super) fn take(&mut self, batch: Batch<R>) -> io::Result<()> {
        self.workers[batch.worker].outstanding -= batch.done;
        for item in batch.items {
            self.inner.push_back(Item::unpack(item));
        }
        batch.result
    }

    /// Does what is due here.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let mut out = Vec::new();
        self.here.host.handle_timeout(now, &mut out);
        self.inner.extend(out);
    }

    /// When [`Crew::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.here.host.poll_timeout()
    }

    /// Lets everything here and what follows from it be done, and gives workers their share. What it returns is for nobody here, and
    /// what led to it is on disk.
    pub(super) fn settle(&mut self, now: Instant) -> io::Result<Vec<Item<R>>> {
        let mut out = Vec::new();
        while let Some(item) = self.inner.pop_front() {
            let place = match item {
                Item::Gate(_) => self.places[0],
                Item::Router(_) => self.places[1],
                Item::Store(_) => self.places[2],
                Item::Api(_) => self.places[3],
                Item::Onion(_) => self.places[4],
                Item::Network(_) | Item::User(_) => {
                    self.outer.push(item);
                    continue;
                }
            };
            match place {
                Some(worker) => self.workers[worker].waiting.push_back(item),
                None if self.here.host.has(&item) => self.here.host.handle(now, item, &mut out),
                None => self.outer.push(item),
            }
            self.inner.extend(out.drain(..));
        }
        self.here.write_down()?;
        for worker in &mut self.workers {
            worker.feed()?;
        }
        Ok(std::mem::take(&mut self.outer))
    }

    /// Whether something was for nobody here; it is thrown away.
    pub(super) fn answered(&mut self, now: Instant) -> io::Result<bool> {
        Ok(!self.settle(now)?.is_empty())
    }

    /// How many items wait for a worker that has enough to do.
    pub(super) fn waiting(&self) -> usize {
        self.workers.iter().map(|worker| worker.waiting.len()).sum()
    }
}

impl<R: Reference> Drop for Crew<R> {
    fn drop(&mut self) {
        for mut worker in self.workers.drain(..) {
            worker.jobs = None;
            let _ = worker.thread.join();
        }
    }
}

impl<R: Reference> Worker<R> {
    fn start(number: usize, make: Vec<Make<R>>, tell: &Tell<R>) -> io::Result<Self> {
        let (jobs, inbox) = bounded(MAX_OUTSTANDING);
        let tell = Arc::clone(tell);
        let thread = thread::Builder::new()
            .name(format!("kv-services-{number}"))
            .spawn(move || work(number, make, &inbox, &*tell))?;
        Ok(Self { jobs: Some(jobs), outstanding: 0, waiting: VecDeque::new(), thread })
    }

    /// Gives it as much as it has room for.
    fn feed(&mut self) -> io::Result<()> {
        let Some(jobs) = &self.jobs else { return Ok(()) };
        while self.outstanding < MAX_OUTSTANDING
            && let Some(item) = self.waiting.pop_front()
        {
            match jobs.try_send(item.pack()) {
                Ok(()) => self.outstanding += 1,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    return Err(io::Error::other("a thread of services has ended"));
                }
            }
        }
        Ok(())
    }
}

fn work<R: Reference>(
    worker: usize,
    make: Vec<Make<R>>,
    inbox: &Receiver<Item<Packed<R>>>,
    tell: &(dyn Fn(Batch<R>) -> bool + Send + Sync),
) {
    let mut station = Station::default();
    make.into_iter().for_each(|make| make(&mut station));
    loop {
        let until = station.host.poll_timeout().unwrap_or_else(|| Instant::now() + IDLE);
        let first = match inbox.recv_deadline(until) {
            Ok(item) => Some(item),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (now, mut out, mut done) = (Instant::now(), Vec::new(), 0);
        // What has gathered meanwhile goes along, and to disk at once.
        for item in first.into_iter().chain(inbox.try_iter()).take(MAX_OUTSTANDING) {
            done += 1;
            station.host.handle(now, Item::unpack(item), &mut out);
        }
        station.host.handle_timeout(now, &mut out);
        let result = station.write_down();
        if done == 0 && out.is_empty() && result.is_ok() {
            continue;
        }
        let items = out.into_iter().map(Item::pack).collect();
        if !tell(Batch { worker, done, items, result }) {
            return;
        }
    }
}

impl<R: Reference> Station<R> {
    /// Writes down what is new.
    fn write_down(&mut self) -> io::Result<()> {
        let new: Vec<R::To<Record>> = std::iter::from_fn(|| self.host.poll_unwritten()).collect();
        match &self.disk {
            Some(disk) if !new.is_empty() => disk.write(new.iter().map(|record| &**record)),
            _ => Ok(()),
        }
    }
}

impl<R: Reference> Default for Station<R> {
    fn default() -> Self {
        Self { host: Host::default(), disk: None }
    }
}

/// Items that a worker has got: enough that it is never idle for want of them.
const MAX_OUTSTANDING: usize = 256;
/// How long a worker sleeps at most when nobody has a wish.
const IDLE: Duration = Duration::from_secs(60);
