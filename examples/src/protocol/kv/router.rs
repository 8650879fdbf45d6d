use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crust::PublicKey;
use ring::digest::{SHA256, digest};

use super::{
    ApiInput, Item, NetworkOutput, Peer, Query, Route, RouterInput, StoreInput,
    expiring::Expiring,
    message::{Ask, Message, Way},
    record::Record,
    reference::Reference,
    store::MAX_AUTHORS,
};

/// Asks neighbours, and passes their questions and answers on.
#[derive(Debug)]
pub struct Router<R: Reference> {
    me: Peer,
    rules: Rules,
    peers: BTreeMap<PublicKey, R::To<Peer>>,
    /// Queries whose answer the store is looking for.
    looking: Expiring<u64, Looking>,
    pending: Expiring<u64, Pending<R>>,
    /// Queries that were here before.
    seen: Expiring<u64, ()>,
    seed: [u8; 32],
    drawn: u64,
    next: u64,
    counters: Counters,
}

/// How a node treats queries, its own and others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
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
    /// Whether to hide where a query began from those who are asked: one hop in two, drawn by lot, does not count, and a query tells who
    /// had it last and not who had it before. Whoever gets it from its origin then sees nothing that a hop further might not have sent.
    pub hide_origin: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            route: Route::Kademlia,
            lifetime: Duration::from_secs(2),
            cache_for: Duration::ZERO,
            max_hops: 8,
            max_fan_out: 8,
            hide_origin: false,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    asked: u64,
    asked_again: u64,
    forwarded: u64,
    answered: u64,
    expired: u64,
}

/// A query that is looked for in the store.
#[derive(Debug)]
struct Looking {
    asker: Asker,
    ask: Ask,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    User { request: u64 },
    Peer { key: PublicKey, id: u64 },
}

/// A query that waits for answers.
#[derive(Debug)]
struct Pending<R: Reference> {
    asker: Asker,
    /// How many have yet to answer; those that answer from afar are not known.
    outstanding: Option<usize>,
    found: Vec<R::To<Record>>,
    wanted: usize,
}

impl<R: Reference> Router<R> {
    /// A node without peers. `seed` is a secret.
    #[must_use]
    pub fn new(me: Peer, seed: [u8; 32], rules: Rules) -> Self {
        let next = u64::from_be_bytes(seed[..8].try_into().expect("a part of the array"));
        Self {
            me,
            rules,
            peers: BTreeMap::new(),
            looking: Expiring::new(MAX_PENDING),
            pending: Expiring::new(MAX_PENDING),
            seen: Expiring::new(MAX_SEEN),
            seed,
            drawn: 0,
            next,
            counters: Counters::default(),
        }
    }

    /// Takes what is told to the router.
    pub fn handle(&mut self, now: Instant, input: RouterInput<R>, out: &mut Vec<Item<R>>) {
        match input {
            RouterInput::Online(peer) if peer.key != self.me.key && self.peers.len() < MAX_PEERS => {
                self.peers.insert(peer.key, peer);
            }
            RouterInput::Online(_) => {}
            RouterInput::Offline(peer) => drop(self.peers.remove(&peer)),
            RouterInput::Message { from, message } => self.handle_message(now, from, message, out),
            RouterInput::Find { request, query } => self.find(now, request, &query, out),
            RouterInput::Put { request, record, copies } => self.put(request, &record, copies, out),
            RouterInput::Looked { ticket, records } => self.handle_looked(now, ticket, records, out),
            RouterInput::Peers { request } => {
                let peers = self.peers.values().cloned().collect();
                out.push(Item::Api(ApiInput::Peers { request, peers }));
            }
            RouterInput::Count { request } => {
                let counts = self.counts();
                out.push(Item::Api(ApiInput::Counted { request, counts }));
            }
        }
    }

    /// Lets go of what has expired, and answers with what there is.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Item<R>>) {
        while let Some((_, (_, pending))) = self.pending.pop_expired(now) {
            self.counters.expired += 1;
            self.finish(pending, out);
        }
        while let Some((_, (_, looking))) = self.looking.pop_expired(now) {
            self.finish(Pending::new(looking.asker, &looking.ask, Vec::new()), out);
        }
        self.seen.expire(now);
    }

    /// When [`Router::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.pending.first(), self.looking.first(), self.seen.first()].into_iter().flatten().min()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("asked", self.counters.asked),
            ("asked_again", self.counters.asked_again),
            ("forwarded", self.counters.forwarded),
            ("answered", self.counters.answered),
            ("expired", self.counters.expired),
            ("waiting", (self.pending.len() + self.looking.len()) as u64),
            ("remembered", self.seen.len() as u64),
        ]
    }

    fn find(&mut self, now: Instant, request: u64, query: &Query, out: &mut Vec<Item<R>>) {
        let id = self.number();
        let tag =
            self.number() ^ u64::from_be_bytes(self.draw()[..8].try_into().expect("a part of the array"));
        // Where there is no room, the hop limit alone ends loops.
        let _ = self.seen.insert(now + self.rules.lifetime, tag, ());
        let ask = Ask {
            id,
            tag,
            key: query.key.clone(),
            hops: query.hops,
            fan_out: query.fan_out,
            wanted: query.wanted,
            way: Way::of(query.mode, self.me.key, &self.me.contact, id),
            history: Vec::new(),
        };
        self.look(now, Looking { asker: Asker::User { request }, ask }, out);
    }

    fn put(&mut self, request: u64, record: &R::To<Record>, copies: usize, out: &mut Vec<Item<R>>) {
        let all: Vec<PublicKey> = self.peers.keys().copied().chain([self.me.key]).collect();
        let chosen = self.rules.route.choose(&record.key, all, copies);
        for to in &chosen {
            if *to == self.me.key {
                out.push(Item::Store(StoreInput::Keep { record: record.clone(), request: Some(request) }));
            } else {
                send(*to, None, &Message::<R>::Put(record.clone()), out);
            }
        }
        if !chosen.contains(&self.me.key) {
            out.push(Item::Api(ApiInput::Kept { request, result: Ok(()) }));
        }
    }

    fn handle_message(&mut self, now: Instant, from: PublicKey, message: Message<R>, out: &mut Vec<Item<R>>) {
        match message {
            Message::Put(record) => out.push(Item::Store(StoreInput::Keep { record, request: None })),
            Message::Ask(ask) => self.handle_ask(now, from, ask, out),
            Message::Found { id, records } => self.handle_found(id, records, out),
            Message::NotFound { id } => self.handle_found(id, Vec::new(), out),
            Message::Auth(_) => {} // it ends at the gate
        }
    }

    fn handle_ask(&mut self, now: Instant, from: PublicKey, mut ask: Ask, out: &mut Vec<Item<R>>) {
        self.counters.asked += 1;
        ask.hops = ask.hops.min(self.rules.max_hops);
        if self.seen.insert(now + self.rules.lifetime, ask.tag, ()).is_err() {
            self.counters.asked_again += 1;
            return self.answer(from, &ask, Vec::new(), out);
        }
        let asker = Asker::Peer { key: from, id: ask.id };
        self.look(now, Looking { asker, ask }, out);
    }

    fn look(&mut self, now: Instant, looking: Looking, out: &mut Vec<Item<R>>) {
        let (key, wanted) = (looking.ask.key.clone(), wanted(&looking.ask));
        let ticket = self.number();
        match self.looking.insert(now + self.rules.lifetime, ticket, looking) {
            Ok(()) => out.push(Item::Store(StoreInput::Look { ticket, key, wanted })),
            // Too many wait.
            Err((_, looking)) => self.finish(Pending::new(looking.asker, &looking.ask, Vec::new()), out),
        }
    }

    fn handle_looked(
        &mut self,
        now: Instant,
        ticket: u64,
        found: Vec<R::To<Record>>,
        out: &mut Vec<Item<R>>,
    ) {
        let Some(Looking { asker, ask }) = self.looking.remove(&ticket) else { return };
        match asker {
            Asker::User { .. } => {
                let (id, done) = (ask.id, found.len() >= wanted(&ask));
                self.wait(now, id, Pending::new(asker, &ask, found), out);
                if done {
                    self.settle(id, out);
                } else {
                    self.spread(id, ask, out);
                }
            }
            Asker::Peer { key, .. } => self.pass_on(now, key, ask, found, out),
        }
    }

    /// Answers a question if it is done here, and else asks further.
    fn pass_on(
        &mut self,
        now: Instant,
        from: PublicKey,
        mut ask: Ask,
        found: Vec<R::To<Record>>,
        out: &mut Vec<Item<R>>,
    ) {
        let counts = !self.rules.hide_origin || self.draw()[0].is_multiple_of(2);
        ask.hops = ask.hops.saturating_sub(u8::from(counts));
        if found.len() >= wanted(&ask) || ask.hops == 0 {
            return self.answer(from, &ask, found, out);
        }
        let way = if counts { ask.way.next() } else { ask.way.clone() };
        match way {
            Way::Far { .. } => {
                // What is here goes straight home, and the others are asked for the rest.
                self.answer(from, &ask, found, out);
                self.spread(0, ask, out);
            }
            way => {
                let (asker, id) = (Asker::Peer { key: from, id: ask.id }, self.number());
                ask.way = match way {
                    Way::Turn => Way::Far { to: self.me.key, contact: self.me.contact.clone(), id },
                    way => way,
                };
                self.wait(now, id, Pending::new(asker, &ask, found), out);
                self.spread(id, ask, out);
            }
        }
    }

    /// Asks the peers that the route prefers, and notes for the query that waits how many they are.
    fn spread(&mut self, id: u64, mut ask: Ask, out: &mut Vec<Item<R>>) {
        let fan_out = usize::from(ask.fan_out.min(self.rules.max_fan_out)).max(1);
        let fresh = self.peers.keys().copied().filter(|peer| !ask.history.contains(peer)).collect();
        let chosen =
            if ask.hops == 0 { Vec::new() } else { self.rules.route.choose(&ask.key, fresh, fan_out) };
        if let Some(pending) = self.pending.get_mut(&id) {
            // From afar nobody says that he has nothing: it takes the lifetime to know.
            let far = matches!(ask.way, Way::Far { .. });
            pending.outstanding = (!far || chosen.is_empty()).then_some(chosen.len());
        }
        if self.rules.hide_origin {
            ask.history.clear();
        }
        // Those who are asked now need not ask each other.
        ask.history.extend([self.me.key].iter().chain(&chosen));
        ask.history.drain(..ask.history.len().saturating_sub(MAX_HISTORY));
        ask.id = id;
        let message = Message::<R>::Ask(ask);
        for to in chosen {
            self.counters.forwarded += 1;
            send(to, None, &message, out);
        }
        self.settle(id, out);
    }

    fn handle_found(&mut self, id: u64, records: Vec<R::To<Record>>, out: &mut Vec<Item<R>>) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        pending.outstanding = pending.outstanding.map(|number| number.saturating_sub(1));
        for record in records.into_iter().take(MAX_AUTHORS) {
            if self.rules.cache_for > Duration::ZERO && matches!(pending.asker, Asker::Peer { .. }) {
                let time = self.rules.cache_for;
                out.push(Item::Store(StoreInput::Cache { record: record.clone(), time }));
            }
            if pending.found.len() < pending.wanted
                && pending.found.iter().all(|one| one.author != record.author)
            {
                pending.found.push(record);
            }
        }
        self.settle(id, out);
    }

    /// Ends a query that has all it can get.
    fn settle(&mut self, id: u64, out: &mut Vec<Item<R>>) {
        let done = |pending: &mut Pending<R>| {
            pending.found.len() >= pending.wanted || pending.outstanding == Some(0)
        };
        if self.pending.get_mut(&id).is_some_and(done)
            && let Some(pending) = self.pending.remove(&id)
        {
            self.finish(pending, out);
        }
    }

    fn finish(&mut self, pending: Pending<R>, out: &mut Vec<Item<R>>) {
        match pending.asker {
            Asker::User { request } => {
                out.push(Item::Api(ApiInput::Found { request, records: pending.found }));
            }
            Asker::Peer { key, id } => {
                self.counters.answered += 1;
                send(key, None, &reply::<R>(id, pending.found), out);
            }
        }
    }

    /// Answers at once, the way that was asked for. Those afar are not told that there is nothing.
    fn answer(&mut self, from: PublicKey, ask: &Ask, found: Vec<R::To<Record>>, out: &mut Vec<Item<R>>) {
        match &ask.way {
            Way::Far { .. } if found.is_empty() => {}
            Way::Far { to, contact, id } => {
                self.counters.answered += 1;
                send(*to, Some(contact.clone()), &reply::<R>(*id, found), out);
            }
            _ => {
                self.counters.answered += 1;
                send(from, None, &reply::<R>(ask.id, found), out);
            }
        }
    }

    fn wait(&mut self, now: Instant, id: u64, pending: Pending<R>, out: &mut Vec<Item<R>>) {
        if let Err((_, pending)) = self.pending.insert(now + self.rules.lifetime, id, pending) {
            self.finish(pending, out); // too many wait: what is here must do
        }
    }

    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// Bytes that nobody else can foretell.
    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        let drawn = digest(&SHA256, &[&self.seed[..], &self.drawn.to_be_bytes()].concat());
        drawn.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl<R: Reference> Pending<R> {
    fn new(asker: Asker, ask: &Ask, found: Vec<R::To<Record>>) -> Self {
        Self { asker, outstanding: None, found, wanted: wanted(ask) }
    }
}

fn wanted(ask: &Ask) -> usize {
    usize::from(ask.wanted).clamp(1, MAX_AUTHORS)
}

fn reply<R: Reference>(id: u64, records: Vec<R::To<Record>>) -> Message<R> {
    if records.is_empty() { Message::NotFound { id } } else { Message::Found { id, records } }
}

fn send<R: Reference>(to: PublicKey, contact: Option<String>, message: &Message<R>, out: &mut Vec<Item<R>>) {
    out.push(Item::Network(NetworkOutput::Send { to, contact, bytes: message.to_bytes() }));
}

const MAX_PEERS: usize = 256;
const MAX_PENDING: usize = 4_096;
const MAX_SEEN: usize = 65_536;
/// Nodes that a query remembers to have passed.
const MAX_HISTORY: usize = 32;
