//! Who is to look at the paths of connections again.

use std::sync::{Arc, Mutex, Weak};

use super::lock::Lock as _;
use crate::SetWaker;

/// All who watch.
#[derive(Debug, Default)]
pub(crate) struct PathNews {
    watches: Mutex<Vec<Weak<Watch>>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Watch {
    waker: SetWaker,
    is_new: Mutex<bool>,
}

impl PathNews {
    pub(crate) fn watch(&self, waker: SetWaker) -> Arc<Watch> {
        let watch = Arc::new(Watch { waker, is_new: Mutex::new(false) });
        let mut watches = self.watches.hold();
        watches.retain(|known| known.strong_count() > 0);
        watches.push(Arc::downgrade(&watch));
        watch
    }

    /// A connection has taken another path, or is cut off.
    pub(crate) fn tell(&self) {
        let watches: Vec<_> = self.watches.hold().iter().filter_map(Weak::upgrade).collect();
        for watch in watches {
            let was_new = std::mem::replace(&mut *watch.is_new.hold(), true);
            if !was_new {
                watch.waker.wake();
            }
        }
    }
}

impl Watch {
    pub(crate) fn take(&self) -> bool {
        std::mem::take(&mut *self.is_new.hold())
    }
}
