use std::sync::Mutex;

use transport::{Endpoint, PublicKey};

use crate::{
    event::{Events, ServiceEvent},
    io::{cache_file::CacheFile, clock, lock::Lock as _},
    protocol::cache::Cache,
};

/// The endpoint cache of a service, in memory and, if it is told where, on disk.
#[derive(Debug)]
pub(crate) struct Remembered {
    cache: Mutex<Cache>,
    file: Option<CacheFile>,
    events: Events,
}

impl Remembered {
    /// Reads what is there. What cannot be read is no reason not to start.
    pub(crate) fn open(file: Option<CacheFile>, events: Events) -> Self {
        let cache = file.as_ref().map_or_else(|| Ok(Cache::default()), CacheFile::read);
        let cache = cache.unwrap_or_else(|error| {
            events.tell(ServiceEvent::CacheUnusable { reason: crate::error_chain(&error) });
            Cache::default()
        });
        Self { cache: Mutex::new(cache), file, events }
    }

    /// Notes an endpoint that works.
    pub(crate) fn record(&self, endpoint: Endpoint) {
        let now = clock::unix_seconds();
        if self.cache.hold().record(now, endpoint) {
            self.write(now, |_| ());
        }
    }

    /// Forgets an endpoint; tells whether it was there.
    pub(crate) fn remove(&self, endpoint: &Endpoint) -> bool {
        let was_there = self.cache.hold().remove(endpoint);
        if was_there {
            self.write(clock::unix_seconds(), |cache| {
                cache.remove(endpoint);
            });
        }
        was_there
    }

    /// Where a peer was reached, the latest first.
    pub(crate) fn of(&self, key: PublicKey) -> Vec<Endpoint> {
        self.cache.hold().of(key).collect()
    }

    /// All, the latest first.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.cache.hold().endpoints().collect()
    }

    fn write(&self, now: u64, change: impl FnOnce(&mut Cache)) {
        let Some(file) = &self.file else { return };
        let cache = self.cache.hold().clone();
        match file.update(now, &cache, change) {
            // What other processes learned meanwhile is of use here too.
            Ok(whole) => self.cache.hold().merge(now, &whole),
            Err(error) => {
                self.events.tell(ServiceEvent::CacheUnusable { reason: crate::error_chain(&error) });
            }
        }
    }
}
