//! Groups of nodes in virtual time, with all their services but the streams.
#![expect(clippy::disallowed_methods, reason = "virtual time needs a beginning, and all is relative to it")]

use std::{
    collections::{BTreeSet, VecDeque},
    sync::LazyLock,
    time::{Duration, Instant},
};

use crust::{Identity, PublicKey};

use super::*;

mod gate;
mod queries;

/// A node's router and store, without a gate: its neighbours are who they are.
struct Node<R: Reference> {
    host: Host<R>,
    out: Vec<Item<R>>,
    next: u64,
}

impl<R: Reference> Node<R> {
    fn new(place: usize, rules: &Rules) -> Self {
        let mut host = Host::default();
        host.add_router(Router::new(peer(place), [place as u8; 32], rules.clone()));
        host.add_store(Store::new(Vec::new()));
        Self { host, out: Vec::new(), next: 0 }
    }

    fn give(&mut self, now: Instant, item: Item<R>) {
        self.host.handle(now, item, &mut self.out);
    }

    fn request(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn keep(&mut self, now: Instant, record: Record) -> Result<(), RecordError> {
        let request = Some(self.request());
        self.give(now, Item::Store(StoreInput::Keep { record: R::new(record), request }));
        let kept = self.take(|item| match item {
            Item::Api(ApiInput::Kept { result, .. }) => Some(*result),
            _ => None,
        });
        kept[0]
    }

    /// What it has counted, by name.
    fn count(&mut self, now: Instant, name: &str) -> u64 {
        let request = self.request();
        self.give(now, Item::Router(RouterInput::Count { request }));
        self.give(now, Item::Store(StoreInput::Count { request }));
        let counts = self.take(|item| match item {
            Item::Api(ApiInput::Counted { counts, .. }) => Some(counts.clone()),
            _ => None,
        });
        counts.concat().into_iter().find(|(one, _)| *one == name).unwrap().1
    }

    /// Takes some of the outputs.
    fn take<T>(&mut self, which: impl Fn(&Item<R>) -> Option<T>) -> Vec<T> {
        let (mut taken, out) = (Vec::new(), std::mem::take(&mut self.out));
        for item in out {
            match which(&item) {
                Some(one) => taken.push(one),
                None => self.out.push(item),
            }
        }
        taken
    }
}

/// A message under way.
#[derive(Clone)]
struct Wired {
    at: Instant,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

struct Group<R: Reference> {
    now: Instant,
    nodes: Vec<Node<R>>,
    wire: VecDeque<Wired>,
    /// Everything that was sent.
    ledger: Vec<Wired>,
    dead: BTreeSet<usize>,
}

impl<R: Reference> Group<R> {
    /// Nodes and whom each asks; numbers from 0.
    fn new(neighbours: &[Vec<usize>], rules: &Rules) -> Self {
        let now = Instant::now();
        let nodes = neighbours.iter().enumerate().map(|(place, all)| {
            let mut node = Node::new(place, rules);
            for other in all {
                node.give(now, Item::Router(RouterInput::Online(R::new(peer(*other)))));
            }
            node
        });
        let (nodes, wire, ledger) = (nodes.collect(), VecDeque::new(), Vec::new());
        let mut group = Self { now, nodes, wire, ledger, dead: BTreeSet::new() };
        group.run(HOP); // they tell each other who their neighbours are
        group.ledger.clear();
        group
    }

    /// Nodes and which pairs of them are neighbours of each other.
    fn mutual(nodes: usize, pairs: &[(usize, usize)], rules: &Rules) -> Self {
        let mut neighbours = vec![Vec::new(); nodes];
        for (one, other) in pairs {
            neighbours[*one].push(*other);
            neighbours[*other].push(*one);
        }
        Self::new(&neighbours, rules)
    }

    /// How often each node was asked.
    fn asked(&mut self) -> Vec<u64> {
        (0..self.nodes.len()).map(|place| self.count(place, "asked")).collect()
    }

    fn line(length: usize, rules: &Rules) -> Self {
        let next = |place| if place + 1 < length { vec![place + 1] } else { Vec::new() };
        Self::new(&(0..length).map(next).collect::<Vec<_>>(), rules)
    }

    fn clique(length: usize, rules: &Rules) -> Self {
        let others = |place| (0..length).filter(|other| *other != place).collect();
        Self::new(&(0..length).map(others).collect::<Vec<Vec<usize>>>(), rules)
    }

    fn keep(&mut self, at: usize, record: Record) {
        self.nodes[at].keep(self.now, record).unwrap();
    }

    fn count(&mut self, at: usize, name: &str) -> u64 {
        self.nodes[at].count(self.now, name)
    }

    /// Runs until the node has an answer; tells how long it took.
    fn find(&mut self, at: usize, query: &Query) -> (Duration, Vec<Record>) {
        let (begin, end) = (self.now, self.now + Duration::from_secs(10));
        let wanted = self.nodes[at].request();
        let find = RouterInput::Find { request: wanted, query: query.clone() };
        self.nodes[at].give(self.now, Item::Router(find));
        loop {
            self.collect();
            let answers = self.nodes[at].take(|item| match item {
                Item::Api(ApiInput::Found { request, records }) if *request == wanted => {
                    Some(records.clone())
                }
                _ => None,
            });
            if let [records] = &answers[..] {
                return (self.now - begin, records.iter().map(|record| (**record).clone()).collect());
            }
            assert!(self.now < end);
            self.step();
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.collect();
        while self.next().is_some_and(|next| next <= end) {
            self.step();
            self.collect();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let nodes = self.nodes.iter().filter_map(|node| node.host.poll_timeout()).min();
        [nodes, self.wire.front().map(|wired| wired.at)].into_iter().flatten().min()
    }

    fn step(&mut self) {
        self.now = self.next().unwrap().max(self.now);
        while self.wire.front().is_some_and(|wired| wired.at <= self.now) {
            let Wired { from, to, bytes, .. } = self.wire.pop_front().unwrap();
            if !self.dead.contains(&to) {
                let message = Message::from_bytes(&bytes).unwrap();
                let from = key(from);
                self.nodes[to].give(self.now, Item::Router(RouterInput::Message { from, message }));
            }
        }
        for node in &mut self.nodes {
            node.host.handle_timeout(self.now, &mut node.out);
        }
    }

    fn collect(&mut self) {
        for from in 0..self.nodes.len() {
            let sent = self.nodes[from].take(|item| match item {
                Item::Network(NetworkOutput::Send { to, contact, bytes }) => {
                    Some((*to, contact.clone(), bytes.clone()))
                }
                _ => None,
            });
            for (to, contact, bytes) in sent {
                let to = (0..self.nodes.len()).find(|place| key(*place) == to).unwrap();
                assert!(contact.is_none_or(|contact| contact == peer(to).contact));
                assert_eq!(Message::<R>::from_bytes(&bytes).unwrap().to_bytes(), bytes);
                let wired = Wired { at: self.now + HOP, from, to, bytes };
                self.ledger.push(wired.clone());
                self.wire.push_back(wired);
            }
        }
    }

    /// Who sent values to whom.
    fn found_sent(&self) -> Vec<(usize, usize)> {
        let found = self
            .ledger
            .iter()
            .filter(|one| matches!(Message::<R>::from_bytes(&one.bytes), Ok(Message::Found { .. })));
        found.map(|one| (one.from, one.to)).collect()
    }

    /// Questions, from whom to whom.
    fn asks(&self) -> Vec<(usize, usize, Ask)> {
        let asks = self.ledger.iter().filter_map(|one| match Message::<R>::from_bytes(&one.bytes) {
            Ok(Message::Ask(ask)) => Some((one.from, one.to, ask)),
            _ => None,
        });
        asks.collect()
    }
}

fn identity(place: usize) -> Identity {
    Identity::from_seed([place as u8 + 1; 32])
}

fn key(place: usize) -> PublicKey {
    static KEYS: LazyLock<[PublicKey; 128]> =
        LazyLock::new(|| std::array::from_fn(|place| identity(place).public_key()));
    KEYS[place]
}

fn peer(place: usize) -> Peer {
    Peer { key: key(place), contact: format!("tcp://127.0.0.1:{}?pubkey={}", 1_000 + place, key(place)) }
}

fn record(author: usize, name: &str, version: u64) -> Record {
    let identity = identity(author);
    let sign = |purpose: &str, bytes: &[u8]| identity.sign_for(purpose, bytes);
    Record::new(identity.public_key(), name, format!("{name} {version}").as_bytes(), version, sign).unwrap()
}

fn query(mode: Mode, hops: u8) -> Query {
    Query { key: "name".to_owned(), mode, hops, fan_out: 5, wanted: 1 }
}

const HOP: Duration = Duration::from_millis(10);
const MODES: [Mode; 4] = [Mode::Proxy, Mode::Asynch, Mode::Mix(1), Mode::Mix(2)];

/// Tests that hold for every kind of references.
macro_rules! for_each_reference {
    ($($name:ident),+ $(,)?) => {
        mod with_arc {
            $(#[test] fn $name() { super::$name::<crate::protocol::kv::ArcRef>(); })+
        }
        mod with_rc {
            $(#[test] fn $name() { super::$name::<crate::protocol::kv::RcRef>(); })+
        }
    };
}
use for_each_reference;
