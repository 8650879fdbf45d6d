//! Messages over several nodes, none of which knows more of them than who gave them to it and to whom it gives them, and answers to whoever
//! has sent one, whom nobody else knows.
//!
//! The sender draws a way from what nodes have [announced](Announcement), and puts a layer around the message for each of them. A node takes
//! off its layer, finds the next node in it, and passes on the rest. The answer goes another way that the sender has prepared: the message has
//! a [`ReplyBlock`] in it, a header without a body, whose layers end at the sender.
//!
//! **Why a block and not a memory of the way at each hop.** A node on the way keeps nothing of a message but that it was there. So there is
//! nothing to fill up, nothing that is lost with a node that the answer need not pass, the answer may go another way than the question, and
//! it takes as long as it takes. The price is a header in the message, and that the sender keeps a key for each hop until the answer is there.
//!
//! What is known against such packets, and what stands against it here:
//!
//! | attack | what becomes of it |
//! | --- | --- |
//! | **Length**: a packet is the longer the more layers it has | All have [`PACKET_BYTES`]. What a hop takes off in front it adds at the end, and the writer has reckoned with it |
//! | **Place**: what is added shows how many were before | It looks like chance to all who have not added it; nor are there zeros in what the last one gets (Sphinx as it was published has them: Kuhn and others, 2020) |
//! | **Marks**: the first hop changes some bytes, the last one knows the packet again by the damage | The header has a tag at each hop, and in it is a tag of the body: the next honest hop throws it away. An answer's body cannot have one, since who prepares the header does not know it; but what it looks like at a hop depends on keys of all before, so nobody knows it again, and its receiver throws it away |
//! | **Recognition**: two hops compare what they have seen | All bytes change at each hop: each has a key of its own in its layer, and nothing of a packet is the same at two places. This includes who answers, who knows only the first hop's header and what he has written himself |
//! | **Replay**: sending a packet again shows by what comes out where it goes | Each node reads a packet once, as long as it has the key for it; it has a new key every ten minutes and forgets the old one two minutes later |
//! | **Recording**: what was recorded is read when a node falls into wrong hands | Keys of the past are gone, and those for a layer are used once |
//! | **Flooding** | Neighbours have a quota, queues and memories have bounds, a packet has 8 hops at most and never becomes two |
//!
//! Nobody tells the sender where a packet was lost: who answered errors would say where it is, and could be asked. The sender knows it by the time.
//!
//! A hop can tell an answer from a message, by the tag that is missing. What is **not** hidden is time: who sees all streams sees packets go in and
//! come out. Who passes on for nobody, having one neighbour only or [hiding](OnionSettings::hidden) those it has, is known by its neighbours as the origin of
//! what it sends, though not to whom. Nor is it hidden that this program is used, and by whom. A way all of whose nodes are one person's hides nothing from that person, who can
//! announce as many nodes as he likes.

mod announcement;
mod build;
mod directory;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keyring;
mod keys;
mod packet;
mod peel;
mod quota;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
    time::{Duration, Instant},
};

pub use announcement::Announcement;
pub use build::{BuildError, Content, Hop, MAX_TEXT, ReplyBlock, message};
use build::{ReplyKeys, reply_block};
use crust::PublicKey;
use directory::{Directory, Map};
pub use error::OnionError;
use keyring::{Keyring, Unread};
pub use keys::{OnionKey, OnionSecret};
use packet::Ticket;
pub use packet::{MAX_LAYERS, PACKET_BYTES, Packet};
use peel::{Opened, Peeled, Refused};
use quota::Quota;
use ring::digest::{SHA256, digest};

use super::{
    ApiInput, Item, NetworkOutput, OnionInput, OnionOutcome, Over, Signer, expiring::Expiring,
    message::Message, reference::Reference,
};

/// Sends messages in layers, and passes others' on.
pub struct Onion<R: Reference> {
    settings: OnionSettings,
    sign: Signer,
    keys: Keyring,
    /// Who is online.
    neighbours: BTreeSet<PublicKey>,
    quotas: BTreeMap<PublicKey, Quotas>,
    directory: Directory,
    /// When to tell of this node, and when it was told of last.
    announce_at: Instant,
    announced_at: Option<Instant>,
    version: u64,
    /// Messages of this node that are to be answered.
    waiting: Expiring<Ticket, Waiting>,
    /// Messages to this node that can be answered.
    inbox: Expiring<u64, Box<ReplyBlock>>,
    heard: u64,
    drawn: u64,
    counters: Counters,
    references: PhantomData<R>,
}

/// Who a node is, and what it tells of itself.
#[derive(Debug, Clone)]
pub struct OnionSettings {
    /// Its key.
    pub me: PublicKey,
    /// What keys and ways are made of; a secret.
    pub seed: [u8; 32],
    /// Microseconds since 1970, for versions of what it tells.
    pub micros: u64,
    /// How long an answer is waited for.
    pub answer_within: Duration,
    /// Whether to tell nobody who the neighbours are. Such a node sends, and nobody sends to it or over it, so that its neighbours know what comes
    /// from it as its own.
    pub hidden: bool,
}

#[derive(Debug)]
struct Quotas {
    packets: Quota,
    announcements: Quota,
}

struct Waiting {
    request: u64,
    to: PublicKey,
    keys: ReplyKeys,
}

#[derive(Debug, Default)]
struct Counters {
    passed: u64,
    heard: u64,
    answered: u64,
    unreadable: u64,
    damaged: u64,
    repeated: u64,
    over_quota: u64,
    lost: u64,
}

impl<R: Reference> Onion<R> {
    /// A node that knows nobody.
    #[must_use]
    pub fn new(now: Instant, settings: OnionSettings, sign: Signer) -> Self {
        let mut drawn = 0;
        let keys = Keyring::new(now, draw(&settings.seed, &mut drawn));
        Self {
            version: settings.micros,
            settings,
            sign,
            keys,
            neighbours: BTreeSet::new(),
            quotas: BTreeMap::new(),
            directory: Directory::new(),
            announce_at: now + AGAIN, // sooner, once somebody is there to hear it
            announced_at: None,
            waiting: Expiring::new(MAX_WAITING),
            inbox: Expiring::new(MAX_INBOX),
            heard: 0,
            drawn,
            counters: Counters::default(),
            references: PhantomData,
        }
    }

    /// Takes what is told to the service.
    pub fn handle(&mut self, now: Instant, input: OnionInput, out: &mut Vec<Item<R>>) {
        match input {
            OnionInput::Online(peer) => self.meet(now, peer, out),
            OnionInput::Offline(peer) => {
                if self.neighbours.remove(&peer) {
                    self.quotas.remove(&peer);
                    self.announce_soon(now);
                }
            }
            OnionInput::Packet { from, packet } => self.take(now, from, &packet, out),
            OnionInput::Announced { from, announcement } => self.learn(now, from, &announcement, out),
            OnionInput::Send { request, to, over, text, answered } => {
                if let Err(error) = self.send(now, request, to, &over, &text, answered, out) {
                    done(request, Err(error), out);
                }
            }
            OnionInput::Answer { request, number, text } => {
                let result = self.answer(number, &text, out).map(|()| OnionOutcome::AnswerSent);
                done(request, result, out);
            }
            OnionInput::Nodes { request } => {
                let nodes = self.others().map(|told| (told.node, told.neighbours.len())).collect();
                out.push(Item::Api(ApiInput::Nodes { request, nodes }));
            }
            OnionInput::Count { request } => {
                out.push(Item::Api(ApiInput::Counted { request, counts: self.counts() }));
            }
        }
    }

    /// Does whatever is due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Item<R>>) {
        self.keys.forget(now);
        if self.keys.is_due(now) {
            let seed = self.draw();
            self.keys.replace(now, seed);
            self.announce_soon(now);
        }
        if self.announce_at <= now {
            self.announce(now, out);
        }
        self.directory.expire(now);
        self.inbox.expire(now);
        while let Some((_, (_, waiting))) = self.waiting.pop_expired(now) {
            let after = self.settings.answer_within;
            done(waiting.request, Err(OnionError::NoAnswer { of: waiting.to, after }), out);
        }
    }

    /// When [`Onion::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let always = [Some(self.announce_at), Some(self.keys.poll_timeout())];
        let others = [self.directory.first(), self.inbox.first(), self.waiting.first()];
        always.into_iter().chain(others).flatten().min()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("onion_answered", self.counters.answered),
            ("onion_damaged", self.counters.damaged),
            ("onion_heard", self.counters.heard),
            ("onion_inbox", self.inbox.len() as u64),
            ("onion_lost", self.counters.lost),
            ("onion_nodes", self.others().count() as u64),
            ("onion_over_quota", self.counters.over_quota),
            ("onion_passed", self.counters.passed),
            ("onion_remembered", self.keys.remembered() as u64),
            ("onion_repeated", self.counters.repeated),
            ("onion_unreadable", self.counters.unreadable),
            ("onion_waiting", self.waiting.len() as u64),
        ]
    }

    /// What others have told of themselves.
    fn others(&self) -> impl Iterator<Item = &Announcement> {
        self.directory.all().filter(|told| told.node != self.settings.me)
    }

    /// Takes a neighbour in, and tells it what others have told.
    fn meet(&mut self, now: Instant, peer: PublicKey, out: &mut Vec<Item<R>>) {
        if peer == self.settings.me || !self.neighbours.insert(peer) {
            return;
        }
        let quotas = Quotas {
            packets: Quota::new(now, PACKETS_AT_ONCE, BETWEEN_PACKETS),
            announcements: Quota::new(now, ANNOUNCEMENTS_AT_ONCE, BETWEEN_ANNOUNCEMENTS),
        };
        self.quotas.insert(peer, quotas);
        out.extend(self.directory.all().map(|told| announcing(peer, told)));
        self.announce_soon(now);
    }

    fn announce_soon(&mut self, now: Instant) {
        let soon = now + SETTLE;
        let soon = self.announced_at.map_or(soon, |at| soon.max(at + PAUSE));
        self.announce_at = self.announce_at.min(soon);
    }

    /// Tells everybody of this node.
    fn announce(&mut self, now: Instant, out: &mut Vec<Item<R>>) {
        self.announce_at = now + AGAIN;
        if self.settings.hidden {
            return;
        }
        self.announced_at = Some(now);
        self.version += 1;
        let told = Announcement {
            node: self.settings.me,
            key: self.keys.public(),
            neighbours: self.neighbours.iter().copied().collect(),
            version: self.version,
            signature: [0; 64],
        };
        let told = told.sign(&self.sign);
        out.extend(self.neighbours.iter().map(|peer| announcing(*peer, &told)));
        // So that whoever comes next is told of it like of others.
        self.directory.learn(now, &told);
    }

    fn learn(&mut self, now: Instant, from: PublicKey, told: &Announcement, out: &mut Vec<Item<R>>) {
        let Some(quotas) = self.quotas.get_mut(&from) else { return };
        if told.node == self.settings.me {
            return;
        }
        if !quotas.announcements.take(now) {
            self.counters.over_quota += 1;
            return;
        }
        if self.directory.learn(now, told) {
            let others = self.neighbours.iter().filter(|peer| ![from, told.node].contains(peer));
            out.extend(others.map(|peer| announcing(*peer, told)));
        }
    }

    /// Takes a packet of a neighbour. What is wrong with it nobody is told: who sent it to find that out, learns nothing.
    fn take(&mut self, now: Instant, from: PublicKey, packet: &Packet, out: &mut Vec<Item<R>>) {
        if !self.quotas.get_mut(&from).is_some_and(|quotas| quotas.packets.take(now)) {
            self.counters.over_quota += 1;
            return;
        }
        match self.keys.read(packet).and_then(|opened| Opened::peel(opened).map_err(Unread::Refused)) {
            Ok(Peeled::Pass { next, packet }) if self.neighbours.contains(&next) => {
                self.counters.passed += 1;
                send(next, &packet, out);
            }
            Ok(Peeled::Pass { .. }) => self.counters.lost += 1,
            Ok(Peeled::Message(content)) => self.hear(now, content, out),
            Ok(Peeled::Home { ticket, body }) => self.come_home(&ticket, &body, out),
            Err(Unread::Refused(Refused::Damaged)) => self.counters.damaged += 1,
            Err(Unread::Refused(Refused::Unreadable | Refused::Malformed)) => self.counters.unreadable += 1,
            Err(Unread::Again) => self.counters.repeated += 1,
            Err(Unread::Full) => self.counters.over_quota += 1,
        }
    }

    fn hear(&mut self, now: Instant, content: Content, out: &mut Vec<Item<R>>) {
        self.counters.heard += 1;
        self.heard += 1;
        let number = self.heard;
        let kept = |block| self.inbox.insert(now + ANSWER, number, Box::new(block)).is_ok();
        let number = content.reply.is_some_and(kept).then_some(number);
        out.push(Item::Api(ApiInput::Heard { number, text: content.text }));
    }

    fn come_home(&mut self, ticket: &Ticket, body: &[u8; packet::BODY_BYTES], out: &mut Vec<Item<R>>) {
        let Some(waiting) = self.waiting.remove(ticket) else {
            self.counters.unreadable += 1;
            return;
        };
        let result = match waiting.keys.open(body) {
            Some(text) => {
                self.counters.answered += 1;
                Ok(OnionOutcome::Answered { text })
            }
            None => {
                self.counters.damaged += 1;
                Err(OnionError::Damaged { of: waiting.to })
            }
        };
        done(waiting.request, result, out);
    }

    #[expect(clippy::too_many_arguments, reason = "it is one input taken apart")]
    fn send(
        &mut self,
        now: Instant,
        request: u64,
        to: PublicKey,
        over: &Over,
        text: &[u8],
        answered: bool,
        out: &mut Vec<Item<R>>,
    ) -> Result<(), OnionError> {
        let way = self.way_there(to, over)?;
        let mut reply = None;
        if answered {
            let back = self.way_back(to, over)?;
            let (seed, ticket) = (self.draw(), self.draw());
            let ticket: Ticket = *ticket.first_chunk().expect("32 bytes are more than 16");
            let (block, keys) = reply_block(&seed, &back, ticket)?;
            reply = Some((block, ticket, keys));
        }
        let seed = self.draw();
        let (block, kept) = reply.map(|(block, ticket, keys)| (block, (ticket, keys))).unzip();
        let packet = message(&seed, &way, &Content { text: text.to_vec(), reply: block })?;
        match kept {
            Some((ticket, keys)) => {
                let waiting = Waiting { request, to, keys };
                let kept = self.waiting.insert(now + self.settings.answer_within, ticket, waiting);
                kept.map_err(|_| OnionError::Full)?;
            }
            None => done(request, Ok(OnionOutcome::Sent { relays: way.len() - 1 }), out),
        }
        send(way[0].node, &packet, out);
        Ok(())
    }

    fn way_there(&mut self, to: PublicKey, over: &Over) -> Result<Vec<Hop>, OnionError> {
        let me = self.settings.me;
        if to == me {
            return Err(OnionError::Itself);
        }
        let relays = match over {
            Over::Drawn(relays) => self.draw_way(me, to, usize::from(*relays))?,
            Over::Named { there, .. } => there.clone(),
        };
        self.check(&[&[me][..], &relays, &[to]].concat())?;
        relays.into_iter().chain([to]).map(|node| self.hop(node)).collect()
    }

    fn way_back(&mut self, from: PublicKey, over: &Over) -> Result<Vec<Hop>, OnionError> {
        let me = self.settings.me;
        let relays = match over {
            Over::Drawn(relays) => self.draw_way(from, me, usize::from(*relays))?,
            Over::Named { back: Some(back), .. } => back.clone(),
            Over::Named { there, back: None } => there.iter().rev().copied().collect(),
        };
        self.check(&[&[from][..], &relays, &[me]].concat())?;
        let mut way: Vec<Hop> = relays.into_iter().map(|node| self.hop(node)).collect::<Result<_, _>>()?;
        way.push(Hop { node: me, key: self.keys.public() });
        Ok(way)
    }

    fn draw_way(
        &mut self,
        from: PublicKey,
        to: PublicKey,
        relays: usize,
    ) -> Result<Vec<PublicKey>, OnionError> {
        let (seed, drawn) = (&self.settings.seed, &mut self.drawn);
        let number =
            || u64::from_be_bytes(*draw(seed, drawn).first_chunk().expect("32 bytes are more than 8"));
        let end = if to == self.settings.me { from } else { to };
        if self.directory.hop(end).is_none() {
            return Err(OnionError::Unknown { node: end });
        }
        let map = Map::new(&self.directory, self.settings.me, &self.neighbours);
        map.way(from, to, relays, number).ok_or(OnionError::NoWay { from, to, relays })
    }

    /// Whether each can pass on to the next.
    fn check(&self, way: &[PublicKey]) -> Result<(), OnionError> {
        let map = Map::new(&self.directory, self.settings.me, &self.neighbours);
        way.iter().try_for_each(|node| {
            if *node == self.settings.me { Ok(()) } else { self.hop(*node).map(drop) }
        })?;
        match way.windows(2).find(|pair| !map.joins(&pair[0], &pair[1])) {
            Some(pair) => Err(OnionError::NotNeighbours { one: pair[0], other: pair[1] }),
            None => Ok(()),
        }
    }

    fn hop(&self, node: PublicKey) -> Result<Hop, OnionError> {
        self.directory.hop(node).ok_or(OnionError::Unknown { node })
    }

    fn answer(&mut self, number: u64, text: &[u8], out: &mut Vec<Item<R>>) -> Result<(), OnionError> {
        let block = self.inbox.get(&number).ok_or(OnionError::NothingToAnswer { number })?;
        let (first, packet) = block.answer(text)?;
        if !self.neighbours.contains(&first) {
            return Err(OnionError::Gone { node: first });
        }
        self.inbox.remove(&number);
        send(first, &packet, out);
        Ok(())
    }

    fn draw(&mut self) -> [u8; 32] {
        draw(&self.settings.seed, &mut self.drawn)
    }
}

impl<R: Reference> fmt::Debug for Onion<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Onion").field("neighbours", &self.neighbours).finish_non_exhaustive()
    }
}

/// Bytes that nobody else can foretell.
fn draw(seed: &[u8; 32], drawn: &mut u64) -> [u8; 32] {
    *drawn += 1;
    let bytes = digest(&SHA256, &[&seed[..], &drawn.to_be_bytes()].concat());
    bytes.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn send<R: Reference>(to: PublicKey, packet: &Packet, out: &mut Vec<Item<R>>) {
    out.push(Item::Network(NetworkOutput::Send { to, contact: None, bytes: packet.to_bytes() }));
}

fn announcing<R: Reference>(to: PublicKey, told: &Announcement) -> Item<R> {
    let bytes = Message::<R>::Announcement(Box::new(told.clone())).to_bytes();
    Item::Network(NetworkOutput::Send { to, contact: None, bytes })
}

fn done<R: Reference>(request: u64, result: Result<OnionOutcome, OnionError>, out: &mut Vec<Item<R>>) {
    out.push(Item::Api(ApiInput::OnionDone { request, result }));
}

/// Messages of this node that wait for their answers.
const MAX_WAITING: usize = 256;
/// Messages to this node that can be answered; of further ones it is said that they cannot.
const MAX_INBOX: usize = 64;
/// How long: not longer than the keys of the way back are good for.
const ANSWER: Duration = keyring::GRACE;
/// How long to wait for more to change before telling of it, and how long between two tellings.
const SETTLE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(500);
/// How often to tell of this node though nothing has changed: what got lost is made good.
const AGAIN: Duration = Duration::from_secs(300);
/// What a neighbour may send: some milliseconds of work a second, and not more in the life of a key than is remembered of it.
const PACKETS_AT_ONCE: u32 = 256;
const BETWEEN_PACKETS: Duration = Duration::from_millis(10);
/// And tell: all it knows when it comes, and then what changes in a network of hundreds.
const ANNOUNCEMENTS_AT_ONCE: u32 = 1_024;
const BETWEEN_ANNOUNCEMENTS: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;
