use super::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whether or not a holder has panicked.
///
/// What our locks guard is changed in steps that leave it whole; a panic in the driver is noticed by the crank, which
/// ends every wait.
pub(crate) trait Lock<T> {
    fn hold(&self) -> MutexGuard<'_, T>;
}

impl<T> Lock<T> for Mutex<T> {
    fn hold(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
