//! Streams that are ready and wait for somebody to accept them.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{
    crank::Waited,
    lock::Lock as _,
    slot::{Slot, Wakes},
};
use crate::{
    AcceptError, SetWaker, Stream,
    protocol::{meetings::Meetings, preface::RendezvousTag},
    transport::Shared,
};

/// A bounded queue between those who judge streams and those who accept them.
#[derive(Debug)]
pub(crate) struct AcceptQueue {
    receiver: Receiver<Stream>,
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    /// Gone once the queue is closed, so that whoever waits on the receiver learns of it.
    sender: Option<Sender<Stream>>,
    /// Places promised to streams that were accepted and are on their way.
    reserved: usize,
    waiting: Vec<Arc<Slot>>,
    /// A set whose waits return when a stream has come.
    set: Option<SetWaker>,
}

impl AcceptQueue {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        let (sender, receiver) = bounded(capacity);
        let state = State { sender: Some(sender), reserved: 0, waiting: Vec::new(), set: None };
        Arc::new(Self { receiver, state: Mutex::new(state), capacity })
    }

    pub(crate) fn receiver(&self) -> &Receiver<Stream> {
        &self.receiver
    }

    /// Promises a place to one stream, if there is one: whoever is told "accepted" will be accepted.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state.hold();
        if state.sender.is_none() || self.receiver.len() + state.reserved >= self.capacity {
            return None;
        }
        state.reserved += 1;
        Some(Place { queue: Some(self.clone()), rendezvous: None })
    }

    /// The stream that has come in, if one has.
    pub(crate) fn take(&self) -> Option<Stream> {
        self.receiver.try_recv().ok()
    }

    /// Has the slot woken when a stream comes in, for as long as the guard lives.
    pub(crate) fn watch(&self, slot: &Arc<Slot>) -> Waiting<'_> {
        Waiting::enter(self, slot.clone())
    }

    /// Has the waits of a set return whenever a stream has come.
    pub(crate) fn set_waker(&self, waker: SetWaker) {
        self.state.hold().set = Some(waker);
    }

    /// Waits for a stream.
    pub(crate) fn accept(&self, shared: &Shared, deadline: Option<Instant>) -> Result<Stream, AcceptError> {
        if let Ok(stream) = self.receiver.try_recv() {
            return Ok(stream);
        }
        let waiting = Waiting::enter(self, shared.crank.slot());
        loop {
            if let Ok(stream) = self.receiver.try_recv() {
                return Ok(stream);
            }
            if self.state.hold().sender.is_none() {
                return Err(AcceptError::Closed);
            }
            match shared.crank.wait(&waiting.slot, deadline) {
                Waited::Ready => {}
                Waited::TimedOut => return self.receiver.try_recv().map_err(|_| AcceptError::TimedOut),
                Waited::Closed => return Err(AcceptError::Closed),
            }
        }
    }

    /// Moves what waits here to another queue, as far as it has room.
    pub(crate) fn move_to(&self, other: &Arc<Self>, wakes: &mut Wakes) {
        while let Ok(stream) = self.receiver.try_recv() {
            if let Some(place) = other.reserve() {
                place.deliver(stream, wakes);
            }
        }
    }

    /// Ends every `accept`, and what nobody has accepted.
    pub(crate) fn close(&self, wakes: &mut Wakes) {
        let mut state = self.state.hold();
        state.sender = None;
        for slot in &state.waiting {
            wakes.push(slot);
        }
        drop(state);
        while let Ok(stream) = self.receiver.try_recv() {
            drop(stream);
        }
    }

    fn wake_one(&self, wakes: &mut Wakes) {
        if let Some(slot) = self.state.hold().waiting.first() {
            wakes.push(slot);
        }
    }
}

/// The rendezvous of a transport, each with the queue where its one stream is awaited.
pub(crate) type MeetingTable = Mutex<Meetings<Arc<AcceptQueue>>>;

/// A promised place, given back if no stream comes.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Option<Arc<AcceptQueue>>,
    /// Told if no stream comes.
    rendezvous: Option<(Arc<MeetingTable>, RendezvousTag)>,
}

impl Place {
    /// The place of the stream that a rendezvous waits for.
    pub(crate) fn of_rendezvous(
        queue: &Arc<AcceptQueue>,
        meetings: &Arc<MeetingTable>,
        tag: RendezvousTag,
    ) -> Option<Self> {
        let mut place = queue.reserve()?;
        place.rendezvous = Some((meetings.clone(), tag));
        Some(place)
    }

    /// Puts the stream where `accept` finds it.
    pub(crate) fn deliver(mut self, stream: Stream, wakes: &mut Wakes) {
        let Some(queue) = self.queue.take() else { return };
        self.rendezvous = None;
        let (refused, set) = {
            let mut state = queue.state.hold();
            state.reserved -= 1;
            let refused = match &state.sender {
                Some(sender) => sender.try_send(stream).err(),
                None => None,
            };
            (refused, state.set.clone())
        };
        // A queue closed meanwhile gives the stream back, and here it ends, outside the lock.
        drop(refused);
        if let Some(set) = set {
            set.wake();
        }
        queue.wake_one(wakes);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.state.hold().reserved -= 1;
        }
        if let Some((meetings, tag)) = &self.rendezvous {
            meetings.hold().arrival_failed(*tag);
        }
    }
}

/// One waiting `accept`, taken off the list on drop.
#[derive(Debug)]
pub(crate) struct Waiting<'q> {
    queue: &'q AcceptQueue,
    slot: Arc<Slot>,
}

impl<'q> Waiting<'q> {
    fn enter(queue: &'q AcceptQueue, slot: Arc<Slot>) -> Self {
        queue.state.hold().waiting.push(slot.clone());
        Self { queue, slot }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut wakes = Wakes::default();
        {
            let mut state = self.queue.state.hold();
            state.waiting.retain(|slot| !Arc::ptr_eq(slot, &self.slot));
        }
        // The wake that was ours may have been for a stream that somebody else must take now.
        if !self.queue.receiver.is_empty() {
            self.queue.wake_one(&mut wakes);
        }
        wakes.fire();
    }
}
