//! A fixed group of nodes, every pair of which shares one stream.
//!
//! Of each pair the node with the smaller key dials. Over a new stream both say hello and acknowledge the other's; only then is
//! the peer up and takes messages. Each peer has a bounded queue of its own, so one that reads slowly, or not at all,
//! delays its own messages only; a full queue refuses further ones. Who is silent for too long is dead: the kernel of a stopped
//! process still acknowledges, so nodes say something now and then. A lost stream is dialled anew.

mod frame;
mod link;

use std::{
    collections::{BTreeMap, VecDeque},
    iter::Sum,
    time::{Duration, Instant},
};

use crust::PublicKey;
use serde::{Deserialize, Serialize};

#[cfg(fuzzing)]
pub use frame::check_frame;
pub use frame::{MAX_MESSAGE, MAX_NAME};
use link::{Link, Progress};

/// One node's view of the group: streams' bytes, the time and messages in; bytes, dials and events out.
///
/// After each call that takes `&mut self`, drain [`Mesh::poll_action`] and [`Mesh::poll_event`], write what
/// [`Mesh::output`] has, and then read [`Mesh::poll_timeout`]. `now` never goes back.
#[derive(Debug)]
pub struct Mesh {
    me: PublicKey,
    name: String,
    settings: Settings,
    peers: BTreeMap<PublicKey, Peer>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

/// The times and bounds of a [`Mesh`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// After this long a silence a peer is dead.
    pub timeout: Duration,
    /// How often to say something at least.
    pub beat: Duration,
    /// When to dial again; doubles up to [`Settings::redial_most`].
    pub redial: Duration,
    /// How long a peer that has come back may wait to be dialled.
    pub redial_most: Duration,
    /// Bytes that may wait for one peer.
    pub queue: usize,
    /// Whether whoever opens a stream to this node belongs to the group by that.
    pub open: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(3),
            beat: Duration::from_millis(500),
            redial: Duration::from_millis(100),
            redial_most: Duration::from_secs(1),
            queue: 1 << 20,
            open: false,
        }
    }
}

/// Names a stream; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

#[cfg(any(test, fuzzing))]
impl From<u64> for LinkId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// What the driver shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Dial this peer, and tell how it went by [`Mesh::handle_stream`] or [`Mesh::handle_dial_failed`].
    Dial(PublicKey),
    /// Throw this stream away.
    Close(LinkId),
}

/// What the application learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer is there and takes messages.
    Up {
        /// Who.
        peer: PublicKey,
        /// What it calls itself.
        name: String,
    },
    /// It said something.
    Message {
        /// Who.
        peer: PublicKey,
        /// What.
        message: Vec<u8>,
    },
    /// It was dialled in vain, for another reason than the last time.
    Unreached {
        /// Who.
        peer: PublicKey,
        /// Why, for a person to read.
        why: String,
    },
    /// It is gone, and with it the bytes that waited for it.
    Down {
        /// Who.
        peer: PublicKey,
        /// Why.
        reason: Reason,
    },
}

/// Why a peer is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It said nothing for [`Settings::timeout`].
    #[error("it was silent for too long")]
    Silent,
    /// Its stream ended.
    #[error("its stream has ended")]
    Ended,
    /// It came again over a new stream.
    #[error("it came again over another stream")]
    Replaced,
    /// This node let go of it.
    #[error("this node let go of it")]
    Removed,
    /// It broke the rules: a frame of unknown kind or excessive length, or one out of place.
    #[error("it broke the protocol: {0}")]
    Broken(&'static str),
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no such peer, or it is not up.
    #[error("the peer is not up")]
    NotUp,
    /// As much as may wait for it waits already: try again later, or let go.
    #[error("the peer's queue is full: it reads too slowly")]
    Full,
    /// Longer than [`MAX_MESSAGE`].
    #[error("a message has at most {MAX_MESSAGE} bytes")]
    TooLong,
}

/// What has happened so far, with one peer or with all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each says it")]
pub struct Counters {
    pub hellos_sent: u64,
    pub hellos_received: u64,
    pub acks_sent: u64,
    pub acks_received: u64,
    pub messages_sent: u64,
    pub messages_received: u64,
    pub refused_full: u64,
}

impl Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            hellos_sent: sum.hellos_sent + one.hellos_sent,
            hellos_received: sum.hellos_received + one.hellos_received,
            acks_sent: sum.acks_sent + one.acks_sent,
            acks_received: sum.acks_received + one.acks_received,
            messages_sent: sum.messages_sent + one.messages_sent,
            messages_received: sum.messages_received + one.messages_received,
            refused_full: sum.refused_full + one.refused_full,
        })
    }
}

#[derive(Debug, Default)]
struct Peer {
    /// Whether this node dials.
    ours: bool,
    link: Option<LinkId>,
    /// When to dial, where it is ours to do so and no dial is under way.
    dial_at: Option<Instant>,
    dial_wait: Duration,
    /// Why it was not reached when it was last dialled.
    failure: String,
    counters: Counters,
    /// It came by itself, and nobody has named it.
    stranger: bool,
}

impl Mesh {
    /// A node alone. `name` is what it calls itself, cut to [`MAX_NAME`] bytes.
    #[must_use]
    pub fn new(me: PublicKey, name: &str, settings: Settings) -> Self {
        let mut end = name.len().min(MAX_NAME);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            me,
            name: name[..end].to_owned(),
            settings,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Lets a peer belong to the group. At most [`MAX_PEERS`] do.
    pub fn add_peer(&mut self, now: Instant, peer: PublicKey) {
        let ours = self.me < peer;
        if let Some(known) = self.peers.get_mut(&peer) {
            // It may have come by itself before it was named.
            known.ours |= ours;
            known.stranger = false;
        } else if peer != self.me && self.peers.len() < MAX_PEERS {
            let dial_wait = self.settings.redial;
            let dial_at = ours.then_some(now);
            self.peers.insert(peer, Peer { ours, dial_at, dial_wait, ..Peer::default() });
        }
    }

    /// Lets a peer belong to the group that this node dials whatever their keys: only one of the two may do so.
    pub fn dial_peer(&mut self, now: Instant, peer: PublicKey) {
        self.add_peer(now, peer);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.ours = true;
            if peer.link.is_none() {
                peer.dial_at.get_or_insert(now);
            }
        }
    }

    /// Lets go of a peer and its stream. In an open group it may come again.
    pub fn remove_peer(&mut self, now: Instant, peer: PublicKey) {
        if let Some(link) = self.peers.get(&peer).and_then(|peer| peer.link) {
            self.close(now, link, Reason::Removed);
        }
        self.peers.remove(&peer);
    }

    /// Takes a stream to or from a peer. `None` when the peer does not belong to the group: throw the stream away.
    pub fn handle_stream(&mut self, now: Instant, peer: PublicKey) -> Option<LinkId> {
        if self.settings.open && peer != self.me {
            self.admit(peer);
        }
        let before = self.peers.get(&peer)?.link;
        if let Some(link) = before {
            self.close(now, link, Reason::Replaced);
        }
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let mut link = Link::new(now, peer);
        link.hello(now, &self.name);
        self.links.insert(id, link);
        let known = self.peers.get_mut(&peer)?;
        known.counters.hellos_sent += 1;
        known.link = Some(id);
        known.dial_at = None;
        Some(id)
    }

    /// Notes what the two ends of a stream alone know, for who wants to prove something over it.
    pub fn bind(&mut self, id: LinkId, binding: [u8; 32]) {
        if let Some(link) = self.links.get_mut(&id) {
            link.binding = binding;
        }
    }

    /// A peer's present stream and what [`Mesh::bind`] noted of it.
    #[must_use]
    pub fn binding(&self, peer: PublicKey) -> Option<(LinkId, [u8; 32])> {
        let id = self.peers.get(&peer)?.link?;
        Some((id, self.links.get(&id)?.binding))
    }

    /// The dial that an [`Action::Dial`] asked for has failed.
    pub fn handle_dial_failed(&mut self, now: Instant, peer: PublicKey, why: String) {
        if let Some(known) = self.peers.get_mut(&peer).filter(|peer| peer.ours && peer.link.is_none()) {
            known.dial_at = Some(now + known.dial_wait);
            known.dial_wait = (2 * known.dial_wait).min(self.settings.redial_most);
            if known.failure != why {
                known.failure.clone_from(&why);
                self.events.push_back(Event::Unreached { peer, why });
            }
        }
    }

    /// Takes bytes that came over a stream.
    pub fn handle_input(&mut self, now: Instant, id: LinkId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.take(now, bytes);
        loop {
            let Some(link) = self.links.get_mut(&id) else { return };
            let Some(peer) = self.peers.get_mut(&link.peer) else { return };
            match link.progress(now, &mut peer.counters) {
                Ok(None) => return,
                Ok(Some(progress)) => self.note(id, progress),
                Err(what) => return self.close(now, id, Reason::Broken(what)),
            }
        }
    }

    /// A stream has ended, or failed.
    pub fn handle_end(&mut self, now: Instant, id: LinkId) {
        self.close(now, id, Reason::Ended);
    }

    /// Does whatever is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let silent: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.heard_at + self.settings.timeout <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            self.close(now, id, Reason::Silent);
        }
        for link in self.links.values_mut() {
            if link.said_at + self.settings.beat <= now {
                link.beat(now);
            }
        }
        for (key, peer) in &mut self.peers {
            if peer.dial_at.is_some_and(|at| at <= now) {
                peer.dial_at = None;
                self.actions.push_back(Action::Dial(*key));
            }
        }
    }

    /// Queues a message for a peer. Never waits.
    ///
    /// # Errors
    ///
    /// [`SendError`] when it is not taken.
    pub fn send(&mut self, now: Instant, peer: PublicKey, message: &[u8]) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLong);
        }
        let peer = self.peers.get_mut(&peer).ok_or(SendError::NotUp)?;
        let link = peer.link.and_then(|id| self.links.get_mut(&id));
        let link = link.filter(|link| link.is_up()).ok_or(SendError::NotUp)?;
        if link.waiting() + message.len() > self.settings.queue {
            peer.counters.refused_full += 1;
            return Err(SendError::Full);
        }
        link.message(now, message);
        peer.counters.messages_sent += 1;
        Ok(())
    }

    /// What is to be written to a stream now.
    #[must_use]
    pub fn output(&self, id: LinkId) -> &[u8] {
        self.links.get(&id).map_or(&[], Link::output)
    }

    /// So many bytes of it were written.
    pub fn wrote(&mut self, id: LinkId, bytes: usize) {
        if let Some(link) = self.links.get_mut(&id) {
            link.wrote(bytes);
        }
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> PublicKey {
        self.me
    }

    /// Whether this node dials that peer.
    #[must_use]
    pub fn dials(&self, peer: PublicKey) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.ours)
    }

    /// The streams in use.
    pub fn links(&self) -> impl Iterator<Item = LinkId> {
        self.links.keys().copied()
    }

    /// The peers that take messages.
    pub fn up(&self) -> impl Iterator<Item = PublicKey> {
        let up = |peer: &Peer| peer.link.is_some_and(|id| self.links[&id].is_up());
        self.peers.iter().filter(move |(_, peer)| up(peer)).map(|(key, _)| *key)
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.ledger().map(|(_, counters)| counters).sum()
    }

    /// What has happened so far with each peer.
    pub fn ledger(&self) -> impl Iterator<Item = (PublicKey, Counters)> {
        self.peers.iter().map(|(key, peer)| (*key, peer.counters))
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Mesh::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let links = self
            .links
            .values()
            .map(|link| (link.heard_at + self.settings.timeout).min(link.said_at + self.settings.beat));
        links.chain(self.peers.values().filter_map(|peer| peer.dial_at)).min()
    }

    /// Lets a stranger belong to the group; one who is gone makes room.
    fn admit(&mut self, peer: PublicKey) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            let gone = self.peers.iter().find(|(_, peer)| peer.stranger && peer.link.is_none());
            if let Some(gone) = gone.map(|(key, _)| *key) {
                self.peers.remove(&gone);
            }
        }
        if self.peers.len() < MAX_PEERS {
            let stranger = Peer { dial_wait: self.settings.redial, stranger: true, ..Peer::default() };
            self.peers.entry(peer).or_insert(stranger);
        }
    }

    fn note(&mut self, id: LinkId, progress: Progress) {
        let peer = self.links[&id].peer;
        match progress {
            Progress::Up(name) => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.dial_wait = self.settings.redial;
                    known.failure.clear();
                }
                self.events.push_back(Event::Up { peer, name });
            }
            Progress::Message(message) => self.events.push_back(Event::Message { peer, message }),
        }
    }

    fn close(&mut self, now: Instant, id: LinkId, reason: Reason) {
        let Some(link) = self.links.remove(&id) else { return };
        self.actions.push_back(Action::Close(id));
        if link.is_up() {
            self.events.push_back(Event::Down { peer: link.peer, reason });
        }
        if let Some(peer) = self.peers.get_mut(&link.peer) {
            peer.link = None;
            if peer.ours && reason != Reason::Replaced {
                peer.dial_at = Some(now + peer.dial_wait);
            }
            if peer.stranger && !link.is_up() && reason != Reason::Replaced {
                self.peers.remove(&link.peer);
            }
        }
    }
}

/// The most peers of a node: each costs up to [`Settings::queue`] bytes.
pub const MAX_PEERS: usize = 256;

#[cfg(test)]
mod tests;
