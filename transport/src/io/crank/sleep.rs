use std::time::Instant;

use super::super::{
    alarm::Alarm,
    clock,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst, fence},
    },
};

/// Until when the leader sleeps, for those who set timers.
pub(crate) struct Sleep {
    pub(super) until_nanos: AtomicU64,
    base: Instant,
    pub(super) alarm: Arc<Alarm>,
}

impl Sleep {
    pub(super) fn new(alarm: Arc<Alarm>) -> Self {
        Self { until_nanos: AtomicU64::new(AWAKE), base: clock::now(), alarm }
    }

    /// Call it before reading the timers.
    pub(crate) fn prepare(&self) {
        self.until_nanos.store(FOR_EVER, SeqCst);
        fence(SeqCst);
    }

    /// Call it with the earliest of them.
    pub(crate) fn until(&self, timer: Option<Instant>) {
        self.until_nanos.store(timer.map_or(FOR_EVER, |timer| self.nanos(timer)), SeqCst);
    }

    /// Call it after the sleep.
    pub(crate) fn over(&self) {
        self.until_nanos.store(AWAKE, SeqCst);
    }

    /// Whether a leader sleeps.
    pub(super) fn is_on(&self) -> bool {
        self.until_nanos.load(SeqCst) != AWAKE
    }

    pub(super) fn poke(&self, timer: Instant) {
        fence(SeqCst);
        if self.nanos(timer) < self.until_nanos.load(SeqCst) {
            self.alarm.wake();
        }
    }

    pub(super) fn nanos(&self, timer: Instant) -> u64 {
        let nanos = timer.saturating_duration_since(self.base).as_nanos();
        u64::try_from(nanos).unwrap_or(FOR_EVER - 1).max(AWAKE + 1)
    }
}

/// No timer is earlier, so nobody who sets one interrupts.
pub(super) const AWAKE: u64 = 0;
const FOR_EVER: u64 = u64::MAX;
