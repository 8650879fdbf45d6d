use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Does what cannot be interrupted, which is the HTTP of UPnP, away from every thread that someone waits for.
///
/// The worker is one thread named `nat-slow`, started when a job comes and gone when there is none. Dropping this does not
/// wait for it: a job in progress comes to its own end, which its library bounds at ten seconds.
#[derive(Clone, Default)]
pub(crate) struct Slow {
    queue: Arc<Mutex<Queue>>,
}

/// Too many jobs wait.
#[derive(Debug)]
pub(crate) struct Busy;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_running: bool,
}

impl Slow {
    /// Has a job done as soon as those before it are. Returns at once.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        let mut queue = lock(&self.queue);
        if queue.jobs.len() >= MAX_WAITING {
            return Err(Busy);
        }
        if !queue.is_running {
            let shared = Arc::clone(&self.queue);
            let spawned = thread::Builder::new().name("nat-slow".into()).spawn(move || work(&shared));
            if let Err(error) = spawned {
                tracing::warn!(%error, "no thread for UPnP");
                return Err(Busy);
            }
            queue.is_running = true;
        }
        queue.jobs.push_back(Box::new(job));
        Ok(())
    }
}

fn work(queue: &Mutex<Queue>) {
    loop {
        let job = {
            let mut queue = lock(queue);
            let Some(job) = queue.jobs.pop_front() else {
                // Under the same lock as the last look at the jobs, so that none is left behind.
                queue.is_running = false;
                return;
            };
            job
        };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::warn!("a job for the router panicked");
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Jobs that wait at a time. Each may take ten seconds, so that one behind more of them would not be of use to anyone.
const MAX_WAITING: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn eight_jobs_wait_and_the_ninth_is_refused() {
        let slow = Slow::default();
        let (go, wait) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let (done, results) = mpsc::channel();
        slow.submit(move || {
            started.send(()).unwrap();
            wait.recv().unwrap();
        })
        .unwrap();
        has_started.recv_timeout(PATIENCE).unwrap();
        for number in 0..MAX_WAITING {
            let done = done.clone();
            slow.submit(move || done.send(number).unwrap()).unwrap();
        }
        assert!(slow.submit(|| panic!("never runs")).is_err());
        go.send(()).unwrap();
        for number in 0..MAX_WAITING {
            assert_eq!(results.recv_timeout(PATIENCE), Ok(number), "in order");
        }
    }

    #[test]
    fn a_job_that_panics_takes_none_of_the_others_along() {
        let slow = Slow::default();
        let (done, results) = mpsc::channel();
        slow.submit(|| panic!("on purpose")).unwrap();
        slow.submit(move || done.send(()).unwrap()).unwrap();
        results.recv_timeout(PATIENCE).unwrap();
    }

    /// Far beyond what this takes.
    const PATIENCE: Duration = Duration::from_secs(30);
}
