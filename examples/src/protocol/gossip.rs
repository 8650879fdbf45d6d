//! Spreads entries to all nodes of a group, each once, over a network that delays, reorders, loses and parts.
//!
//! **Two relays at a time.** A node hands what its clients give it to two others: the *relay*, which gathers for
//! [`Settings::batch`] and then sends one batch to everyone, and the *standby*, which does the same a little later, and
//! only if no batch of another has come with it by then. The roles wander through the group, so that nobody is special
//! and the loss of any one node costs its neighbours one standby delay.
//!
//! **Every message carries a summary** of what its sender has, which is a cumulative acknowledgement; a batch carries
//! whatever its receiver is not known to have. So a lost or overtaken batch is mended by the next, without a message
//! of its own.
//!
//! **Anti-entropy.** From time to time a node sends its summary to another, which answers with what is missing; this
//! brings parted groups together. When nobody learns anything new, it happens ever more rarely.

mod message;
mod peer;
mod rotation;
mod store;
mod summary;
mod tasks;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

pub use message::{Entries, Kind, Message, Spread};
pub use store::{MAX_ENTRIES, MAX_ORIGINS};
pub use summary::{Dot, MAX_NAME, NotSummary, Origin, Sequences, Summary};

use peer::Peer;
use rotation::Rotation;
use store::Store;

/// One node's part in the gossip.
///
/// After each call that takes `&mut self`, drain [`Gossip::poll_transmit`] and [`Gossip::poll_entry`] and then read
/// [`Gossip::poll_timeout`]. `now` never goes back.
#[derive(Debug)]
pub struct Gossip {
    settings: Settings,
    me: Origin,
    store: Store,
    peers: BTreeMap<String, Peer>,
    rotation: Rotation,
    /// Entries to spread that went to nobody yet, and until when another may do it.
    gathered: BTreeMap<Dot, Instant>,
    /// Entries that this node has spread, and until when it looks after them.
    relayed: BTreeMap<Dot, Instant>,
    /// Own entries that no relay is known to have spread.
    unspread: BTreeSet<u64>,
    /// When to ask other relays to spread those, and for the how manieth time.
    ask_again: Option<(Instant, u32)>,
    digest_at: Instant,
    digest_wait: Duration,
    random: u64,
    transmits: VecDeque<(String, Message)>,
    learned: VecDeque<i64>,
}

/// The times and bounds of a [`Gossip`]. The defaults fit networks with up to some 100 ms one way.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a relay gathers before it sends to everyone: each batch costs a message a node.
    pub batch: Duration,
    /// How long a standby waits for the relay's batch: a batch and a bit more than one way.
    pub standby: Duration,
    /// When an entry that was not seen spread is given to other relays; doubles with each time.
    pub ask_again: Duration,
    /// When a receiver of a batch acknowledges it, unless it has sent something else by then.
    pub acknowledge: Duration,
    /// When a relay sends again what was not acknowledged; doubles with each time.
    pub send_again: Duration,
    /// How long a relay looks after an entry; later on anti-entropy does.
    pub relay_for: Duration,
    /// How long a node is relay.
    pub term: Duration,
    /// From digest to digest while there is news.
    pub digest: Duration,
    /// The same when there is none.
    pub digest_idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: Duration::from_millis(100),
            standby: Duration::from_millis(260),
            ask_again: Duration::from_millis(600),
            acknowledge: Duration::from_millis(700),
            send_again: Duration::from_millis(1_200),
            relay_for: Duration::from_secs(6),
            term: Duration::from_secs(2),
            digest: Duration::from_secs(1),
            digest_idle: Duration::from_secs(2),
        }
    }
}

impl Gossip {
    /// Starts a node. `run` tells this run of the node from earlier ones under the same name; it also seeds its choices.
    #[must_use]
    pub fn new(now: Instant, name: &str, run: u32, settings: Settings) -> Self {
        let me = Origin { node: name.to_owned(), run };
        let digest_wait = settings.digest;
        let mut gossip = Self {
            rotation: Rotation::new(now, name, settings.term),
            settings,
            me,
            store: Store::default(),
            peers: BTreeMap::new(),
            gathered: BTreeMap::new(),
            relayed: BTreeMap::new(),
            unspread: BTreeSet::new(),
            ask_again: None,
            digest_at: now,
            digest_wait,
            random: u64::from(run) ^ name.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte)),
            transmits: VecDeque::new(),
            learned: VecDeque::new(),
        };
        gossip.digest_at = now + gossip.jittered(digest_wait);
        gossip
    }

    /// Lets a node take part. Naming one again does nothing; at most [`MAX_ORIGINS`] do.
    pub fn add_peer(&mut self, name: &str) {
        if name != self.me.node && self.peers.len() < MAX_ORIGINS {
            self.rotation.add(name);
            self.peers.entry(name.to_owned()).or_default();
        }
    }

    /// Takes an entry of a client. False when the store is full.
    pub fn insert(&mut self, now: Instant, entry: i64) -> bool {
        let seq = self.store.next_seq(&self.me);
        let dot = Dot { origin: self.me.clone(), seq };
        if !self.learn(now, dot, entry) {
            return false;
        }
        if !self.peers.is_empty() {
            self.unspread.insert(seq);
            self.hand_over(now, 0, BTreeSet::from([seq]));
            self.ask_again.get_or_insert((now + self.settings.ask_again, 1));
        }
        true
    }

    /// Takes a message of another node. One whose sender was not named by [`Gossip::add_peer`] is ignored.
    pub fn handle_message(&mut self, now: Instant, from: &str, message: Message) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        self.rotation.hear(now, message.term);
        peer.known.merge(&message.have);
        if message.kind == Kind::Batch && !message.entries.is_empty() {
            peer.acknowledge_at.get_or_insert(now + self.settings.acknowledge);
        }
        peer.knows_all_of(&self.relayed);
        let due =
            now + if message.kind == Kind::Standby { self.settings.standby } else { self.settings.batch };
        for (origin, entries) in message.entries {
            for (seq, entry) in entries {
                let dot = Dot { origin: origin.clone(), seq };
                let new = self.learn(now, dot.clone(), entry);
                let asked = matches!(message.kind, Kind::Relay | Kind::Standby);
                if asked && (new || !self.relayed.contains_key(&dot)) && self.store.has(&dot) {
                    self.gathered.entry(dot).and_modify(|at| *at = due.min(*at)).or_insert(due);
                }
            }
        }
        self.see_spread(from, &message.spread);
        if message.kind == Kind::Digest {
            self.answer_digest(now, from);
        }
        self.compare_soon(now, from);
    }

    /// Does whatever is due. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.rotation.handle_timeout(now);
        if self.gathered.values().any(|due| *due <= now) {
            self.send_batch(now);
        }
        if let Some((at, times)) = self.ask_again.filter(|(at, _)| *at <= now) {
            self.ask_others(now.max(at), times);
        }
        self.send_again(now);
        if self.digest_at <= now && !self.peers.is_empty() {
            self.send_digest(now);
        }
        self.acknowledge(now);
    }

    /// The next message to send, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(String, Message)> {
        self.transmits.pop_front()
    }

    /// The next entry that was not known before, own ones included.
    pub fn poll_entry(&mut self) -> Option<i64> {
        self.learned.pop_front()
    }

    /// When [`Gossip::handle_timeout`] wants to be called. `None`: nobody is there to talk to.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.peers.is_empty() {
            return None;
        }
        let gathered = self.gathered.values().copied().min();
        let asking = self.ask_again.map(|(at, _)| at);
        let peers = self.peers.values().filter_map(Peer::timeout).min();
        [gathered, asking, peers, Some(self.digest_at)].into_iter().flatten().min()
    }

    /// Keeps an entry and tells whether it is new.
    fn learn(&mut self, now: Instant, dot: Dot, entry: i64) -> bool {
        let new = self.store.insert(now, dot, entry);
        if new {
            self.learned.push_back(entry);
            self.news(now);
        }
        new
    }
}
