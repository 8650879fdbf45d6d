//! A connection with the peer that is there already, as one that others have streams on, or that was made a few seconds ago.

use std::time::{Duration, Instant};

use transport::{Connection, Endpoint, Path, PathKind, Scheme};

use super::{Dial, Outcome};
use crate::{Attempt, Road, io::clock};

/// One that may be used, and its path.
#[derive(Debug)]
pub(super) struct Known {
    connection: Connection,
    path: Path,
}

impl Known {
    /// How long it is tried alone: whoever is there has answered by then.
    pub(super) fn head_start(&self) -> Duration {
        (self.path.round_trip.unwrap_or(LONGEST) * 2).clamp(SHORTEST, LONGEST)
    }
}

impl Dial<'_> {
    /// One by which the peer was met and answers as far as is known, the straightest.
    pub(super) fn known_connection(&self) -> Option<Known> {
        // Addresses are dialled: whoever names them, and nobody who would introduce us, is to get there.
        let may_be_met = !self.introducers.is_empty() || self.endpoints.is_empty();
        if self.single.is_some() || !may_be_met || !self.schemes.contains(&Scheme::Quic) {
            return None;
        }
        let all = self.shared.transport.connections(self.peer).into_iter();
        let known = all.filter_map(|connection| {
            let path = connection.path().ok()?;
            // Where addresses lead there, two round trips do, and no introduction is saved.
            let was_met = matches!(path.kind, PathKind::Punched | PathKind::Relayed);
            let is_usable = was_met && self.roads.contains(Road::from(path.kind));
            (is_usable && connection.is_cut_off() == Ok(false)).then_some(Known { connection, path })
        });
        known.min_by_key(|known| known.path.kind)
    }

    /// Asks for one more stream on it.
    pub(super) fn further(&self, known: &Known, started: Instant) -> Outcome {
        let stream = known.connection.connect(&self.options());
        stream.map_err(|error| {
            let endpoint = Endpoint::new(known.path.scheme, known.path.remote, self.peer).into();
            let waited = clock::now().saturating_duration_since(started);
            let failed = Attempt::of_dial(error, &endpoint, self.since_begun(started), waited).into_iter();
            let road = Road::from(known.path.kind);
            failed.map(|attempt| Attempt { road, ..attempt }).collect()
        })
    }
}

/// On a near path it is the peer's threads that take the time.
const SHORTEST: Duration = Duration::from_millis(100);
/// A peer that has gone says nothing; the other roads must not wait for it.
const LONGEST: Duration = Duration::from_millis(500);
