//! The only reader of the clocks.

use std::time::{Duration, Instant, SystemTime};

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Since 1970, by the system's clock, which may be wrong and may jump.
pub(crate) fn time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
