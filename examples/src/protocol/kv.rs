//! Signed values that are found over several hops.
//!
//! A node asks neighbours, which ask theirs. How the answer comes home is the asker's choice, a [`Mode`]. Every query has a limit of
//! hops, a fan-out and a lifetime; each node handles it once; every list here is bounded, and what is not answered expires.

mod expiring;
mod message;
mod record;
mod route;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crust::PublicKey;

use expiring::Expiring;
use message::Way;
pub use message::{Ask, Message, Mode, NotMessage};
pub use record::{MAX_KEY, MAX_VALUE, Record, RecordError};
pub use route::Route;

/// One node: messages of peers and wishes of its user in, messages and answers out.
///
/// After each call that takes `&mut self`, drain [`Kv::poll_kept`], [`Kv::poll_transmit`] and [`Kv::poll_answer`] and then read
/// [`Kv::poll_timeout`]. `now` never goes back.
#[derive(Debug)]
pub struct Kv {
    me: PublicKey,
    contact: String,
    settings: Settings,
    peers: BTreeSet<PublicKey>,
    store: BTreeMap<String, BTreeMap<PublicKey, Record>>,
    cached: Expiring<(String, PublicKey), Record>,
    pending: Expiring<u64, Pending>,
    /// Queries that were here before.
    seen: Expiring<u64, ()>,
    next: u64,
    transmits: VecDeque<Transmit>,
    answers: VecDeque<Answer>,
    kept: VecDeque<Record>,
    counters: Counters,
}

/// The rules of a node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom to ask.
    pub route: Route,
    /// How long a query lives at each node.
    pub lifetime: Duration,
    /// How long values that pass by are kept; zero keeps none.
    pub cache_for: Duration,
    /// The most hops that are granted to anybody.
    pub max_hops: u8,
    /// The most peers that are asked at once for anybody.
    pub max_fan_out: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            route: Route::Kademlia,
            lifetime: Duration::from_secs(2),
            cache_for: Duration::ZERO,
            max_hops: 8,
            max_fan_out: 8,
        }
    }
}

/// What to look for, and how.
#[derive(Debug, Clone)]
pub struct Query {
    /// The name of the value.
    pub key: String,
    /// How the answer comes home.
    pub mode: Mode,
    /// How far to ask.
    pub hops: u8,
    /// How many peers each node asks.
    pub fan_out: u8,
    /// How many values to wait for; of each author there is one.
    pub wanted: u8,
}

/// A message to send. Where `contact` is there, the receiver may be no neighbour, and that tells how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says it")]
pub struct Transmit {
    pub to: PublicKey,
    pub contact: Option<String>,
    pub message: Message,
}

/// What came of a [`Kv::find`]: the values, of which there may be fewer than were wanted, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What [`Kv::find`] returned.
    pub query: u64,
    /// The values, each with its author.
    pub records: Vec<Record>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says it")]
pub struct Counters {
    pub asked: u64,
    pub asked_again: u64,
    pub forwarded: u64,
    pub answered: u64,
    pub expired: u64,
    pub refused_records: u64,
}

/// A query that waits for answers.
#[derive(Debug)]
struct Pending {
    /// Who waits for them; the user, if nobody.
    asker: Option<(PublicKey, u64)>,
    /// How many have yet to answer; those that answer from afar are not known.
    outstanding: Option<usize>,
    found: Vec<Record>,
    wanted: usize,
}

impl Kv {
    /// A node without peers. `contact` tells others how to reach it, `seed` where its query numbers begin.
    #[must_use]
    pub fn new(me: PublicKey, contact: &str, seed: u64, settings: Settings) -> Self {
        Self {
            me,
            contact: contact.to_owned(),
            settings,
            peers: BTreeSet::new(),
            store: BTreeMap::new(),
            cached: Expiring::new(MAX_CACHED),
            pending: Expiring::new(MAX_PENDING),
            seen: Expiring::new(MAX_SEEN),
            next: seed,
            transmits: VecDeque::new(),
            answers: VecDeque::new(),
            kept: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// A neighbour is there; this node itself never is.
    pub fn add_peer(&mut self, peer: PublicKey) {
        if peer != self.me && self.peers.len() < MAX_PEERS {
            self.peers.insert(peer);
        }
    }

    /// A neighbour is gone.
    pub fn remove_peer(&mut self, peer: PublicKey) {
        self.peers.remove(&peer);
    }

    /// The neighbours.
    pub fn peers(&self) -> impl Iterator<Item = PublicKey> {
        self.peers.iter().copied()
    }

    /// Keeps a value here.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when its author did not sign it, it is older than the one here, or the store is full.
    pub fn keep(&mut self, record: Record) -> Result<(), RecordError> {
        record.verify()?;
        let known = self.store.get(&record.key);
        match known.and_then(|all| all.get(&record.author)) {
            Some(before) if before.version >= record.version => return Err(RecordError::Old),
            None if self.store.len() >= MAX_STORED || known.is_some_and(|all| all.len() >= MAX_AUTHORS) => {
                return Err(RecordError::Full);
            }
            _ => {}
        }
        self.kept.push_back(record.clone());
        self.store.entry(record.key.clone()).or_default().insert(record.author, record);
        Ok(())
    }

    /// The next record that was taken into the store, to be written down.
    pub fn poll_kept(&mut self) -> Option<Record> {
        self.kept.pop_front()
    }

    /// Gives a value to so many nodes, of those that the route prefers; this one may be among them.
    ///
    /// # Errors
    ///
    /// [`RecordError`] as [`Kv::keep`].
    pub fn put(&mut self, record: &Record, copies: usize) -> Result<(), RecordError> {
        record.verify()?;
        let all: Vec<PublicKey> = self.peers.iter().copied().chain([self.me]).collect();
        for to in self.settings.route.choose(&record.key, all, copies) {
            if to == self.me {
                self.keep(record.clone())?;
            } else {
                self.send(to, None, Message::Put(record.clone()));
            }
        }
        Ok(())
    }

    /// Begins to look for a value; the [`Answer`] comes within [`Settings::lifetime`].
    pub fn find(&mut self, now: Instant, query: &Query) -> u64 {
        let id = self.number();
        let wanted = usize::from(query.wanted).clamp(1, MAX_AUTHORS);
        let found = self.local(&query.key, wanted);
        if found.len() >= wanted {
            self.answers.push_back(Answer { query: id, records: found });
            return id;
        }
        let tag = self.number() ^ u64::from_be_bytes(self.me.as_bytes()[..8].try_into().expect("8 bytes"));
        // Where there is no room, the hop limit alone ends loops.
        let _ = self.seen.insert(now + self.settings.lifetime, tag, ());
        let ask = Ask {
            id,
            tag,
            key: query.key.clone(),
            hops: query.hops,
            fan_out: query.fan_out,
            wanted: query.wanted,
            way: Way::of(query.mode, self.me, &self.contact, id),
            history: vec![self.me],
        };
        self.wait(now, id, Pending { asker: None, outstanding: None, found, wanted });
        self.spread(id, ask);
        id
    }

    /// Takes a message of a peer, who need not be a neighbour.
    pub fn handle_message(&mut self, now: Instant, from: PublicKey, message: Message) {
        match message {
            Message::Put(record) => {
                if !matches!(self.keep(record), Ok(()) | Err(RecordError::Old)) {
                    self.counters.refused_records += 1;
                }
            }
            Message::Ask(ask) => self.handle_ask(now, from, ask),
            Message::Found { id, records } => self.handle_found(now, id, records),
            Message::NotFound { id } => self.handle_found(now, id, Vec::new()),
        }
    }

    /// Lets go of what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, pending)) = self.pending_expired(now) {
            self.counters.expired += 1;
            self.finish(pending.0, pending.1);
        }
        self.cached.expire(now);
        self.seen.expire(now);
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next answer to a [`Kv::find`].
    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// When [`Kv::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.pending.first(), self.cached.first(), self.seen.first()].into_iter().flatten().min()
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How many queries wait for answers here.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    fn handle_ask(&mut self, now: Instant, from: PublicKey, mut ask: Ask) {
        self.counters.asked += 1;
        ask.hops = ask.hops.min(self.settings.max_hops);
        let again = self.seen.insert(now + self.settings.lifetime, ask.tag, ()).is_err();
        let wanted = usize::from(ask.wanted).clamp(1, MAX_AUTHORS);
        let found = if again { Vec::new() } else { self.local(&ask.key, wanted) };
        self.counters.asked_again += u64::from(again);
        if again || found.len() >= wanted || ask.hops <= 1 {
            return self.answer(from, &ask, found);
        }
        ask.hops -= 1;
        ask.history.push(self.me);
        match ask.way.next() {
            Way::Far { .. } if !found.is_empty() => {
                // What is here goes straight home, and the others are asked for the rest.
                self.answer(from, &ask, found);
                self.spread(0, ask);
            }
            Way::Far { .. } => {
                self.spread(0, ask);
            }
            way => {
                let (asker, id) = ((from, ask.id), self.number());
                ask.way = match way {
                    Way::Turn => Way::Far { to: self.me, contact: self.contact.clone(), id },
                    way => way,
                };
                self.wait(now, id, Pending { asker: Some(asker), outstanding: None, found, wanted });
                self.spread(id, ask);
            }
        }
    }

    /// Asks the peers that the route prefers, and notes for the query that waits how many they are.
    fn spread(&mut self, id: u64, mut ask: Ask) {
        let fan_out = usize::from(ask.fan_out.min(self.settings.max_fan_out)).max(1);
        let fresh: Vec<PublicKey> =
            self.peers.iter().copied().filter(|peer| !ask.history.contains(peer)).collect();
        let chosen =
            if ask.hops == 0 { Vec::new() } else { self.settings.route.choose(&ask.key, fresh, fan_out) };
        let far = matches!(ask.way, Way::Far { .. });
        ask.id = id;
        ask.history.truncate(MAX_HISTORY);
        if let Some(pending) = self.pending.get_mut(&id) {
            // From afar nobody says that he has nothing: it takes the lifetime to know.
            pending.outstanding = (!far || chosen.is_empty()).then_some(chosen.len());
        }
        for to in chosen {
            self.counters.forwarded += 1;
            self.send(to, None, Message::Ask(ask.clone()));
        }
        self.settle(id);
    }

    fn handle_found(&mut self, now: Instant, id: u64, records: Vec<Record>) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        pending.outstanding = pending.outstanding.map(|number| number.saturating_sub(1));
        for record in records.into_iter().take(MAX_AUTHORS) {
            if record.verify().is_err() {
                self.counters.refused_records += 1;
                continue;
            }
            if self.settings.cache_for > Duration::ZERO && pending.asker.is_some() {
                let name = (record.key.clone(), record.author);
                let _ = self.cached.insert(now + self.settings.cache_for, name, record.clone());
            }
            if pending.found.len() < pending.wanted
                && pending.found.iter().all(|one| one.author != record.author)
            {
                pending.found.push(record);
            }
        }
        self.settle(id);
    }

    /// Ends a query that has all it can get.
    fn settle(&mut self, id: u64) {
        let done =
            |pending: &Pending| pending.found.len() >= pending.wanted || pending.outstanding == Some(0);
        if self.pending.get_mut(&id).is_some_and(|pending| done(pending))
            && let Some(pending) = self.pending.remove(&id)
        {
            self.finish(id, pending);
        }
    }

    fn finish(&mut self, id: u64, pending: Pending) {
        match pending.asker {
            None => self.answers.push_back(Answer { query: id, records: pending.found }),
            Some((to, id)) => {
                self.counters.answered += 1;
                self.send(to, None, reply(id, pending.found));
            }
        }
    }

    /// Answers at once, the way that was asked for. Those afar are not told that there is nothing.
    fn answer(&mut self, from: PublicKey, ask: &Ask, found: Vec<Record>) {
        match &ask.way {
            Way::Far { .. } if found.is_empty() => {}
            Way::Far { to, contact, id } => {
                self.counters.answered += 1;
                self.send(*to, Some(contact.clone()), reply(*id, found));
            }
            _ => {
                self.counters.answered += 1;
                self.send(from, None, reply(ask.id, found));
            }
        }
    }

    fn local(&self, key: &str, wanted: usize) -> Vec<Record> {
        let stored = self.store.get(key).into_iter().flat_map(BTreeMap::values);
        let cached = self.cached.iter().filter(|((name, _), _)| name == key).map(|(_, record)| record);
        let mut found: Vec<Record> = Vec::new();
        for record in stored.chain(cached) {
            if found.len() < wanted && found.iter().all(|one| one.author != record.author) {
                found.push(record.clone());
            }
        }
        found
    }

    fn wait(&mut self, now: Instant, id: u64, pending: Pending) {
        if let Err((id, pending)) = self.pending.insert(now + self.settings.lifetime, id, pending) {
            self.finish(id, pending); // too many wait: what is here must do
        }
    }

    fn pending_expired(&mut self, now: Instant) -> Option<(Instant, (u64, Pending))> {
        self.pending.pop_expired(now)
    }

    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    fn send(&mut self, to: PublicKey, contact: Option<String>, message: Message) {
        self.transmits.push_back(Transmit { to, contact, message });
    }
}

fn reply(id: u64, records: Vec<Record>) -> Message {
    if records.is_empty() { Message::NotFound { id } } else { Message::Found { id, records } }
}

const MAX_PEERS: usize = 256;
/// Names that are kept, and authors of each.
const MAX_STORED: usize = 100_000;
const MAX_AUTHORS: usize = 16;
const MAX_CACHED: usize = 4_096;
const MAX_PENDING: usize = 4_096;
const MAX_SEEN: usize = 65_536;
/// Nodes that a query remembers to have passed.
const MAX_HISTORY: usize = 32;

#[cfg(test)]
mod tests;
