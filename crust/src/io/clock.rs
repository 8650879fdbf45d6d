use std::time::Instant;

/// The one place where this crate asks for the time.
pub(crate) fn now() -> Instant {
    Instant::now()
}
