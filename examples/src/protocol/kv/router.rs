mod neighbourhood;
mod pending;

use std::time::{Duration, Instant};

use crust::PublicKey;
use neighbourhood::Neighbourhood;
use pending::{Asker, Pending, wanted};
use ring::digest::{SHA256, digest};

use super::{
    ApiInput, Item, NetworkOutput, Peer, Query, RouterInput, Rules, StoreInput,
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
    neighbours: Neighbourhood<R>,
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

impl<R: Reference> Router<R> {
    /// A node without peers. `seed` is a secret.
    #[must_use]
    pub fn new(me: Peer, seed: [u8; 32], rules: Rules) -> Self {
        let next = u64::from_be_bytes(seed[..8].try_into().expect("a part of the array"));
        Self {
            me,
            rules,
            neighbours: Neighbourhood::new(),
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
            RouterInput::Online(peer) => self.meet(peer, out),
            RouterInput::Offline(peer) => self.part_from(now, peer, out),
            RouterInput::Message { from, message } => self.handle_message(now, from, message, out),
            RouterInput::Find { request, query } => self.find(now, request, &query, out),
            RouterInput::Put { request, record, copies } => self.put(request, &record, copies, out),
            RouterInput::Looked { ticket, records } => self.handle_looked(now, ticket, records, out),
            RouterInput::Peers { request } => {
                let peers = self.neighbours.peers().cloned().collect();
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
            self.give_up(now, looking, out);
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
            ("second_hand", self.neighbours.second_hand() as u64),
        ]
    }

    /// Takes a neighbour in; it and the others are told of each other.
    fn meet(&mut self, peer: R::To<Peer>, out: &mut Vec<Item<R>>) {
        let (key, others) = (peer.key, self.neighbours.keys().collect::<Vec<_>>());
        if key != self.me.key && self.neighbours.add(peer) && !self.rules.hide_origin {
            let news = Message::<R>::Neighbours { came: vec![key], left: Vec::new() };
            others.iter().for_each(|other| send(*other, None, &news, out));
            send(key, None, &Message::<R>::Neighbours { came: others, left: Vec::new() }, out);
        }
    }

    /// Lets go of a neighbour, of whom no more answers come.
    fn part_from(&mut self, now: Instant, peer: PublicKey, out: &mut Vec<Item<R>>) {
        if self.neighbours.remove(&peer) && !self.rules.hide_origin {
            let news = Message::<R>::Neighbours { came: Vec::new(), left: vec![peer] };
            self.neighbours.keys().for_each(|other| send(other, None, &news, out));
        }
        let waiting = self.pending.range(0..).filter(|(_, pending)| pending.waits_for(&peer));
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.handle_found(now, peer, id, Vec::new(), 0, out);
        }
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
            together: Vec::new(),
            history: Vec::new(),
        };
        self.look(now, Looking { asker: Asker::User { request }, ask }, out);
    }

    fn put(&mut self, request: u64, record: &R::To<Record>, copies: usize, out: &mut Vec<Item<R>>) {
        let all: Vec<PublicKey> = self.neighbours.keys().chain([self.me.key]).collect();
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
            Message::Found { id, records, share } => self.handle_found(now, from, id, records, share, out),
            Message::NotFound { id, share } => self.handle_found(now, from, id, Vec::new(), share, out),
            Message::Neighbours { came, left } => self.neighbours.learn(&from, came, &left),
            // They go elsewhere at the gate.
            Message::Auth(_) | Message::Announcement(_) | Message::Onion(_) => {}
        }
    }

    fn handle_ask(&mut self, now: Instant, from: PublicKey, mut ask: Ask, out: &mut Vec<Item<R>>) {
        self.counters.asked += 1;
        ask.hops = ask.hops.min(self.rules.max_hops);
        ask.together.truncate(MAX_FAN_OUT);
        if self.seen.insert(now + self.rules.lifetime, ask.tag, ()).is_err() {
            self.counters.asked_again += 1;
            return self.answer(now, from, &ask, Vec::new(), ask.way.share(), out);
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
            Err((_, looking)) => self.give_up(now, looking, out),
        }
    }

    fn give_up(&mut self, now: Instant, Looking { asker, ask }: Looking, out: &mut Vec<Item<R>>) {
        match asker {
            Asker::User { .. } => self.finish(Pending::new(asker, &ask, Vec::new()), out),
            Asker::Peer { key, .. } => self.answer(now, key, &ask, Vec::new(), ask.way.share(), out),
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
            return self.answer(now, from, &ask, found, ask.way.share(), out);
        }
        let way = if counts { ask.way.next() } else { ask.way.clone() };
        match way {
            Way::Far { .. } => {
                // What is here goes straight home with a part of the share, and the others are asked for the rest.
                let share = ask.way.share();
                let kept = if found.is_empty() { 0 } else { share / 2 };
                let rest = Ask { way: ask.way.with_share(share - kept), ..ask.clone() };
                let goes_on = self.spread(0, rest, out);
                self.answer(now, from, &ask, found, if goes_on { kept } else { share }, out);
            }
            way => {
                let (asker, id) = (Asker::Peer { key: from, id: ask.id }, self.number());
                ask.way = match way {
                    Way::Turn => Way::far(self.me.key, &self.me.contact, id),
                    way => way,
                };
                self.wait(now, id, Pending::new(asker, &ask, found), out);
                self.spread(id, ask, out);
            }
        }
    }

    /// Asks the peers that the route prefers, and notes them for the query that waits; tells whether there are any.
    fn spread(&mut self, id: u64, mut ask: Ask, out: &mut Vec<Item<R>>) -> bool {
        let (chosen, left) = self.choose(&ask);
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.expect(&chosen, &ask.way);
        }
        if self.rules.hide_origin {
            ask.history.clear();
        } else {
            ask.history.append(&mut ask.together);
            ask.history.extend(left);
        }
        ask.history.push(self.me.key);
        ask.history.drain(..ask.history.len().saturating_sub(MAX_HISTORY));
        ask.together.clone_from(&chosen);
        ask.id = id;
        for (place, to) in chosen.iter().enumerate() {
            self.counters.forwarded += 1;
            let ask = Ask { way: ask.way.part(place, chosen.len()), ..ask.clone() };
            send(*to, None, &Message::<R>::Ask(ask), out);
        }
        self.settle(id, out);
        !chosen.is_empty()
    }

    /// Whom to ask, and who is left to those that were asked together with this node.
    fn choose(&self, ask: &Ask) -> (Vec<PublicKey>, Vec<PublicKey>) {
        if ask.hops == 0 {
            return (Vec::new(), Vec::new());
        }
        let fan_out = usize::from(ask.fan_out.min(self.rules.max_fan_out)).clamp(1, MAX_FAN_OUT);
        // With hops that do not count by lot, nobody can rely on what another will do.
        let together = if self.rules.hide_origin { &[] } else { &ask.together[..] };
        let fresh =
            self.neighbours.keys().filter(|peer| !ask.history.contains(peer) && !ask.together.contains(peer));
        let (ours, left) = fresh.partition(|peer| self.neighbours.falls_to(&self.me.key, together, peer));
        (self.rules.route.choose(&ask.key, ours, fan_out), left)
    }

    fn handle_found(
        &mut self,
        now: Instant,
        from: PublicKey,
        id: u64,
        records: Vec<R::To<Record>>,
        share: u64,
        out: &mut Vec<Item<R>>,
    ) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        if !pending.note(&from, share) {
            return;
        }
        for record in records.into_iter().take(MAX_AUTHORS) {
            if self.rules.cache_for > Duration::ZERO && matches!(pending.asker, Asker::Peer { .. }) {
                let time = self.rules.cache_for;
                out.push(Item::Store(StoreInput::Cache { record: record.clone(), time }));
            }
            pending.add(record);
        }
        if pending.is_nearly_done() {
            self.pending.shorten(&id, now + self.rules.lifetime / LAST_THIRD);
        }
        self.settle(id, out);
    }

    /// Ends a query that has all it can get.
    fn settle(&mut self, id: u64, out: &mut Vec<Item<R>>) {
        if self.pending.get_mut(&id).is_some_and(|pending| pending.is_done())
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
                send(key, None, &reply::<R>(id, pending.found, 0), out);
            }
        }
    }

    /// Answers at once, the way that was asked for; the share tells those afar how much of the query ends here.
    fn answer(
        &mut self,
        now: Instant,
        from: PublicKey,
        ask: &Ask,
        found: Vec<R::To<Record>>,
        share: u64,
        out: &mut Vec<Item<R>>,
    ) {
        let (to, contact, id) = match &ask.way {
            Way::Far { to, contact, id, .. } => (*to, Some(contact), *id),
            _ => (from, None, ask.id),
        };
        if contact.is_some() && found.is_empty() && (share == 0 || !self.rules.tell_not_found) {
            return;
        }
        if to == self.me.key {
            return self.handle_found(now, to, id, found, share, out);
        }
        self.counters.answered += 1;
        send(to, contact.cloned(), &reply::<R>(id, found, share), out);
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

fn reply<R: Reference>(id: u64, records: Vec<R::To<Record>>, share: u64) -> Message<R> {
    if records.is_empty() { Message::NotFound { id, share } } else { Message::Found { id, records, share } }
}

fn send<R: Reference>(to: PublicKey, contact: Option<String>, message: &Message<R>, out: &mut Vec<Item<R>>) {
    out.push(Item::Network(NetworkOutput::Send { to, contact, bytes: message.to_bytes() }));
}

const MAX_PENDING: usize = 4_096;
const MAX_SEEN: usize = 65_536;
/// Nodes that a query names, beside those who are asked together: 3 KiB of text. Others may get it a second time, and let it end there.
const MAX_HISTORY: usize = 64;
/// Peers that anybody asks at once, whatever the rules.
const MAX_FAN_OUT: usize = 64;
/// Where two thirds of a query have come home from afar without a value, the rest has this part of a lifetime left: a node that has died
/// with its share does not cost all of it, and one that is only further away than the others is still heard.
const LAST_THIRD: u32 = 4;
