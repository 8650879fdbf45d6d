//! What a process holds.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        let count = |folder: &str| fs::read_dir(folder).unwrap().count();
        Self { threads: count("/proc/self/task"), descriptors: count("/proc/self/fd") }
    }

    /// What it holds once it is no more than that, or after so long: ends take a moment.
    pub(crate) fn settled(most: Self, patience: Duration) -> Self {
        let until = Instant::now() + patience;
        loop {
            let now = Self::now();
            let is_back = now.threads <= most.threads && now.descriptors <= most.descriptors;
            if is_back || Instant::now() >= until {
                return now;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The names of the threads, for who has to find out which of them is left.
pub(crate) fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}
