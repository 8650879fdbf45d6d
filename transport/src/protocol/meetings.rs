//! Which rendezvous are under way, and which of the streams that could serve each of them is the one.
//!
//! Both peers try several ways at once, and both must end with the two ends of one stream. So one of them, the *leader*,
//! decides: it asks for a stream, by its preface, on one connection at a time, and answers "accepted" to one at most. The
//! follower takes whatever the leader asks for.
//!
//! ```text
//!  leader:    Open ──may_ask──► Asked ──attempt_failed──► Open         one stream asked for, or accepted
//!               └────arrived──► Arrived ──arrival_failed──► Open
//!  follower:  Open ──arrived──► Arrived ──arrival_failed──► Open       until then it may ask on any connection
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use super::preface::RendezvousTag;
use crate::{ProtocolLabel, PublicKey};

/// The rendezvous of a transport by their tags; `P` is where the stream of each is to go.
pub(crate) struct Meetings<P> {
    open: BTreeMap<RendezvousTag, Entry<P>>,
    /// Tags that were ours, to tell a stream that is late from one that is nobody's.
    past: VecDeque<RendezvousTag>,
    /// Tags that serve again, and from when on.
    resting: VecDeque<(RendezvousTag, Instant)>,
}

/// One rendezvous.
#[derive(Debug)]
pub(crate) struct Meeting<P> {
    pub(crate) peer: PublicKey,
    pub(crate) label: ProtocolLabel,
    pub(crate) leads: bool,
    pub(crate) deadline: Instant,
    pub(crate) place: P,
}

/// Why a stream that came in for a rendezvous is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stray {
    /// No rendezvous of that tag with that peer.
    Unknown,
    /// It is over.
    Late,
    /// Another stream was chosen.
    Repeated,
    /// The two sides want different protocols.
    OtherLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Asked { attempt: usize },
    Arrived,
}

impl<P: Clone> Meetings<P> {
    /// Waits for a stream with that tag from now on. Tells whether there was room for one more, and the tag was new.
    pub(crate) fn begin(&mut self, tag: RendezvousTag, meeting: Meeting<P>) -> bool {
        let fits = self.open.len() < MAX_OPEN && !self.open.contains_key(&tag) && !self.past.contains(&tag);
        if fits {
            self.open.insert(tag, Entry { meeting, state: State::Open });
        }
        fits
    }

    /// Whether the stream may be asked for on the connection of that attempt.
    pub(crate) fn may_ask(&mut self, now: Instant, tag: RendezvousTag, attempt: usize) -> bool {
        let Some(entry) = self.open.get_mut(&tag) else { return false };
        let free = entry.state == State::Open && now < entry.meeting.deadline;
        if free && entry.meeting.leads {
            entry.state = State::Asked { attempt };
        }
        free
    }

    /// No stream came of that attempt; others may be asked on.
    pub(crate) fn attempt_failed(&mut self, tag: RendezvousTag, attempt: usize) {
        if let Some(entry) = self.open.get_mut(&tag)
            && entry.state == (State::Asked { attempt })
        {
            entry.state = State::Open;
        }
    }

    /// A stream came in: where it goes, or why not.
    pub(crate) fn arrived(
        &mut self,
        now: Instant,
        tag: RendezvousTag,
        peer: &PublicKey,
        label: &ProtocolLabel,
    ) -> Result<P, Stray> {
        let Some(entry) = self.open.get_mut(&tag) else {
            return Err(if self.past.contains(&tag) { Stray::Late } else { Stray::Unknown });
        };
        if entry.meeting.peer != *peer {
            return Err(Stray::Unknown);
        }
        if now >= entry.meeting.deadline {
            return Err(Stray::Late);
        }
        if entry.state != State::Open {
            return Err(Stray::Repeated);
        }
        if entry.meeting.label != *label {
            return Err(Stray::OtherLabel);
        }
        entry.state = State::Arrived;
        Ok(entry.meeting.place.clone())
    }

    /// The stream that came in broke before it was there; another may come.
    pub(crate) fn arrival_failed(&mut self, tag: RendezvousTag) {
        if let Some(entry) = self.open.get_mut(&tag)
            && entry.state == State::Arrived
        {
            entry.state = State::Open;
        }
    }

    /// The rendezvous is over: whatever comes with its tag is late.
    pub(crate) fn end(&mut self, tag: RendezvousTag) {
        if self.open.remove(&tag).is_some() {
            if self.past.len() >= MAX_PAST {
                self.past.pop_front();
            }
            self.past.push_back(tag);
        }
    }

    /// The rendezvous is over, and its tag serves again for the next one. Streams that were on the way meanwhile are nobody's,
    /// which holds if the next one begins after the [rest](Self::rests).
    pub(crate) fn rest(&mut self, now: Instant, tag: RendezvousTag) {
        if self.open.remove(&tag).is_none() {
            return;
        }
        self.resting.retain(|&(_, until)| now < until);
        if self.resting.len() >= MAX_PAST {
            self.resting.pop_front();
        }
        self.resting.push_back((tag, now + REST));
    }

    /// Until when the next rendezvous of that tag should wait, if it should.
    pub(crate) fn rests(&self, now: Instant, tag: RendezvousTag) -> Option<Instant> {
        let untils = self.resting.iter().filter(|&&(resting, until)| resting == tag && now < until);
        untils.map(|&(_, until)| until).max()
    }

    /// How many are under way.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

impl<P> Default for Meetings<P> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), past: VecDeque::new(), resting: VecDeque::new() }
    }
}

impl<P> fmt::Debug for Meetings<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Meetings").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

struct Entry<P> {
    meeting: Meeting<P>,
    state: State,
}

/// Each has a blocked thread, so that more are a leak.
const MAX_OPEN: usize = 1_024;
/// Tags remembered, 16 bytes each; a stream that is later than so many rendezvous counts as nobody's.
const MAX_PAST: usize = 1_024;
/// What the follower asked for and gave up has arrived by then, on any usual road.
const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
