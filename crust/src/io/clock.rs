use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The one place where this crate asks for the time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock, in seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The same in milliseconds.
#[cfg(feature = "dht")]
pub(crate) fn unix_millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}
