//! What a meeting leaves behind while it lasts, each taken back on drop.

use std::{
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Instant,
};

use nat_traversal::{Interrupter, PunchError, protocol::PunchKeys};

use crate::{
    connect_options::ConnectOptions,
    identity::PublicKey,
    io::{
        accept_queue::AcceptQueue,
        clock,
        lock::Lock as _,
        slot::{Slot, Wakes},
    },
    protocol::{meetings::Meeting, offer::Hole, preface::RendezvousTag},
    rendezvous::RendezvousError,
    transport::Shared,
};

/// Ends the punches of one call.
pub(super) struct EndPunches(pub(super) Interrupter);

impl Drop for EndPunches {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// What came of TCP punches, from their threads.
pub(super) struct TcpFinds {
    pub(super) slot: Arc<Slot>,
    pub(super) found: Mutex<Vec<(Hole, Result<TcpStream, PunchError>)>>,
}

impl TcpFinds {
    pub(super) fn report(&self, hole: Hole, found: Result<TcpStream, PunchError>) {
        self.found.hold().push((hole, found));
        self.slot.wake();
    }
}

/// A rendezvous that the transport knows of, until it is dropped.
pub(super) struct Expected<'s> {
    shared: &'s Shared,
    pub(super) peer: PublicKey,
    pub(super) tag: RendezvousTag,
    pub(super) leads: bool,
    pub(super) queue: Arc<AcceptQueue>,
    /// Others with the same tag follow.
    repeats: bool,
}

impl<'s> Expected<'s> {
    pub(super) fn begin(
        shared: &'s Shared,
        keys: &PunchKeys,
        leads: bool,
        peer: PublicKey,
        options: &ConnectOptions,
        deadline: Instant,
    ) -> Result<Self, RendezvousError> {
        let mut tag = RendezvousTag([0; 16]);
        tag.0.copy_from_slice(&keys.export(b"rendezvous tag")[..16]);
        Self::enter(shared, tag, leads, peer, options, deadline, false)
    }

    /// One of many with that tag, one after the other.
    pub(super) fn single(
        shared: &'s Shared,
        tag: RendezvousTag,
        peer: PublicKey,
        options: &ConnectOptions,
        deadline: Instant,
    ) -> Result<Self, RendezvousError> {
        Self::enter(shared, tag, shared.public_key < peer, peer, options, deadline, true)
    }

    fn enter(
        shared: &'s Shared,
        tag: RendezvousTag,
        leads: bool,
        peer: PublicKey,
        options: &ConnectOptions,
        deadline: Instant,
        repeats: bool,
    ) -> Result<Self, RendezvousError> {
        let queue = AcceptQueue::new(1);
        let label = options.label.clone();
        let meeting = Meeting { peer, label, leads, deadline, place: queue.clone() };
        if !shared.meetings.hold().begin(tag, meeting) {
            return Err(RendezvousError::Full);
        }
        Ok(Self { shared, peer, tag, leads, queue, repeats })
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut meetings = self.shared.meetings.hold();
        if self.repeats {
            meetings.rest(clock::now(), self.tag);
        } else {
            meetings.end(self.tag);
        }
        drop(meetings);
        let mut wakes = Wakes::default();
        // Whatever came in at the last moment ends here.
        self.queue.close(&mut wakes);
        wakes.fire();
    }
}

/// The error and what it stands on, in one line.
pub(super) fn describe(error: &PunchError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
