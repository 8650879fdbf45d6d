use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use super::Link;

/// When each connection is to be looked at. A connection whose deadline moves away stays where it is, and is looked at once
/// for nothing: deadlines move with every packet, and mostly away.
#[derive(Default)]
pub(super) struct Timers {
    links: BTreeMap<(Instant, u64), Arc<Link>>,
}

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        self.links.first_key_value().map(|(&(due, _), _)| due)
    }

    pub(super) fn move_to(&mut self, link: &Arc<Link>, from: Option<Instant>, to: Option<Instant>) {
        if let Some(from) = from {
            self.links.remove(&(from, link.number()));
        }
        if let Some(to) = to {
            self.links.insert((to, link.number()), link.clone());
        }
    }

    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Arc<Link>> {
        let first = self.links.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(super) fn clear(&mut self) {
        self.links.clear();
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Timers").field("links", &self.links.len()).finish()
    }
}
