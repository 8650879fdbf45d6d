use std::str::FromStr;

/// What runs in which thread, and how services share records and peers. No service knows of it.
///
/// ```
/// use crust_examples::kv::{Place, References, ServiceName, Threading};
///
/// // All in the caller's thread, but for the store, which waits for its disk in a thread of its own.
/// let threading = Threading::local().place(ServiceName::Store, Place::Own).references(References::Arc);
/// assert_eq!(threading.place_of(ServiceName::Api), Place::Caller);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threading {
    streams: Streams,
    references: References,
    places: [Place; SERVICES],
    pool: usize,
}

/// Where a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the thread that has the streams: telling it something is a call.
    Caller,
    /// In a thread of its own, which sleeps while there is nothing to do.
    Own,
    /// In one of a few threads that services share. It stays with the one it begins in.
    Pool,
}

/// How streams are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// A thread reads and another writes, for each peer.
    TwoThreads,
    /// One thread for all.
    OneThread,
}

/// What records and peers are held by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// Handles that go from thread to thread.
    Arc,
    /// Handles that stay in their thread; contents are moved or copied to others.
    Rc,
}

/// One of the five.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the documentation of `protocol::kv` says it")]
pub enum ServiceName {
    Gate,
    Router,
    Store,
    Api,
    Onion,
}

impl Threading {
    /// Every service has a thread, every peer two; with `Arc`.
    #[must_use]
    pub const fn threads() -> Self {
        Self {
            streams: Streams::TwoThreads,
            references: References::Arc,
            places: [Place::Own; SERVICES],
            pool: 2,
        }
    }

    /// Services share two threads, streams one; with `Arc`.
    #[must_use]
    pub const fn pool() -> Self {
        Self { streams: Streams::OneThread, places: [Place::Pool; SERVICES], ..Self::threads() }
    }

    /// Services and streams run in the caller's thread; with `Rc`.
    #[must_use]
    pub const fn local() -> Self {
        Self {
            streams: Streams::OneThread,
            references: References::Rc,
            places: [Place::Caller; SERVICES],
            pool: 0,
        }
    }

    /// Puts one service elsewhere.
    #[must_use]
    pub const fn place(mut self, service: ServiceName, place: Place) -> Self {
        self.places[service as usize] = place;
        self
    }

    /// Chooses how streams are served.
    #[must_use]
    pub const fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    /// Chooses what records and peers are held by.
    #[must_use]
    pub const fn references(mut self, references: References) -> Self {
        self.references = references;
        self
    }

    /// How many threads are in the pool, 1 to 64. They are started if a service is placed there.
    #[must_use]
    pub const fn pool_threads(mut self, threads: usize) -> Self {
        self.pool = if threads > 64 { 64 } else { threads };
        self
    }

    /// Where a service runs.
    #[must_use]
    pub const fn place_of(&self, service: ServiceName) -> Place {
        self.places[service as usize]
    }

    /// How streams are served.
    #[must_use]
    pub const fn streams_by(&self) -> Streams {
        self.streams
    }

    /// What records and peers are held by.
    #[must_use]
    pub const fn held_by(&self) -> References {
        self.references
    }

    /// Which worker each service has, if not the caller.
    pub(super) fn workers(&self) -> [Option<usize>; SERVICES] {
        let (pool, mut next) = (self.pool.max(1), 0);
        let mut own = if self.places.contains(&Place::Pool) { pool } else { 0 };
        self.places.map(|place| match place {
            Place::Caller => None,
            Place::Own => {
                own += 1;
                Some(own - 1)
            }
            Place::Pool => {
                next += 1;
                Some((next - 1) % pool)
            }
        })
    }
}

/// Reads a word, or tells which there are.
macro_rules! words {
    ($type:ty, $what:literal, $($word:literal => $value:expr),+) => {
        impl FromStr for $type {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok($value),)+
                    other => Err(format!(concat!($what, " is one of", $(" ", $word,)+ ", not {:?}"), other)),
                }
            }
        }
    };
}

words!(Threading, "a threading", "threads" => Self::threads(), "pool" => Self::pool(), "local" => Self::local());
words!(References, "a kind of references", "arc" => Self::Arc, "rc" => Self::Rc);
words!(Place, "a place", "caller" => Self::Caller, "own" => Self::Own, "pool" => Self::Pool);
words!(
    ServiceName, "a service",
    "gate" => Self::Gate, "router" => Self::Router, "store" => Self::Store, "api" => Self::Api,
    "onion" => Self::Onion
);

pub(super) const SERVICES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_the_workers_that_they_are_placed_with() {
        assert_eq!(Threading::local().workers(), [None; 5]);
        assert_eq!(Threading::threads().workers(), [Some(0), Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!(Threading::pool().workers(), [Some(0), Some(1), Some(0), Some(1), Some(0)]);
        let mixed =
            Threading::pool().place(ServiceName::Store, Place::Own).place(ServiceName::Api, Place::Caller);
        assert_eq!(mixed.workers(), [Some(0), Some(1), Some(2), None, Some(0)]);
        assert_eq!("own".parse(), Ok(Place::Own));
        assert_eq!("green".parse::<Place>().unwrap_err(), "a place is one of caller own pool, not \"green\"");
    }
}
