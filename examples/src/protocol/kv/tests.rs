//! Groups of nodes in virtual time.
#![expect(clippy::disallowed_methods, reason = "virtual time needs a beginning, and all is relative to it")]

use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

const HOP: Duration = Duration::from_millis(10);

struct Group {
    now: Instant,
    nodes: Vec<Kv>,
    keys: Vec<PublicKey>,
    wire: VecDeque<(Instant, usize, usize, Message)>,
    /// Who sent to whom what, and whether over a connection of its own.
    ledger: Vec<(usize, usize, bool)>,
    dead: BTreeSet<usize>,
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn record(author: u8, key: &str, version: u64) -> Record {
    let pair = pair(author);
    let author = PublicKey::from_bytes(pair.public_key().as_ref().try_into().unwrap());
    let sign = |bytes: &[u8]| pair.sign(bytes).as_ref().try_into().unwrap();
    Record::new(author, key, format!("{key} {version}").as_bytes(), version, sign).unwrap()
}

impl Group {
    /// Nodes and whom each asks; numbers from 0.
    fn new(neighbours: &[Vec<usize>], settings: &Settings) -> Self {
        let keys: Vec<PublicKey> =
            (0..neighbours.len()).map(|place| PublicKey::from_bytes([place as u8; 32])).collect();
        let nodes = neighbours.iter().zip(&keys).enumerate().map(|(place, (all, key))| {
            let mut node = Kv::new(*key, &place.to_string(), (place as u64) << 32, settings.clone());
            all.iter().for_each(|peer| node.add_peer(keys[*peer]));
            node
        });
        let (nodes, wire, ledger) = (nodes.collect(), VecDeque::new(), Vec::new());
        Self { now: Instant::now(), nodes, keys, wire, ledger, dead: BTreeSet::new() }
    }

    fn line(length: usize, settings: &Settings) -> Self {
        let next = |place| if place + 1 < length { vec![place + 1] } else { Vec::new() };
        Self::new(&(0..length).map(next).collect::<Vec<_>>(), settings)
    }

    /// Runs until the node has an answer; tells how long it took.
    fn find(&mut self, at: usize, query: &Query) -> (Duration, Vec<Record>) {
        let (begin, end) = (self.now, self.now + Duration::from_secs(10));
        let id = self.nodes[at].find(self.now, query);
        loop {
            self.collect();
            if let Some(answer) = self.nodes[at].poll_answer() {
                assert_eq!(answer.query, id);
                return (self.now - begin, answer.records);
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
        let nodes = self.nodes.iter().filter_map(Kv::poll_timeout).min();
        [nodes, self.wire.front().map(|(at, ..)| *at)].into_iter().flatten().min()
    }

    fn step(&mut self) {
        self.now = self.next().unwrap().max(self.now);
        while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, from, to, message) = self.wire.pop_front().unwrap();
            if !self.dead.contains(&to) {
                self.nodes[to].handle_message(self.now, self.keys[from], message);
            }
        }
        for node in &mut self.nodes {
            node.handle_timeout(self.now);
        }
    }

    fn collect(&mut self) {
        for from in 0..self.nodes.len() {
            while let Some(Transmit { to, contact, message }) = self.nodes[from].poll_transmit() {
                let to = self.keys.iter().position(|key| *key == to).unwrap();
                assert!(contact.is_none_or(|contact| contact == to.to_string()));
                self.ledger.push((from, to, matches!(message, Message::Found { .. })));
                let again = Message::from_bytes(&message.to_bytes()).unwrap();
                assert_eq!(again, message);
                self.wire.push_back((self.now + HOP, from, to, again));
            }
        }
    }

    fn found_sent(&self) -> Vec<(usize, usize)> {
        self.ledger.iter().filter(|(.., found)| *found).map(|(from, to, _)| (*from, *to)).collect()
    }
}

fn query(mode: Mode, hops: u8) -> Query {
    Query { key: "name".to_owned(), mode, hops, fan_out: 5, wanted: 1 }
}

const MODES: [Mode; 4] = [Mode::Proxy, Mode::Asynch, Mode::Mix(1), Mode::Mix(2)];

#[test]
fn a_value_three_hops_away_is_found_in_every_mode() {
    for (mode, ways) in MODES.into_iter().zip([
        vec![(3, 2), (2, 1), (1, 0)],
        vec![(3, 0)],
        vec![(3, 1), (1, 0)],
        vec![(3, 2), (2, 1), (1, 0)],
    ]) {
        let mut group = Group::line(4, &Settings::default());
        group.nodes[3].keep(record(1, "name", 1)).unwrap();
        let (time, found) = group.find(0, &query(mode, 3));
        assert_eq!(found, [record(1, "name", 1)], "{mode:?}");
        assert!(time <= HOP * 6, "{mode:?}: {time:?}");
        assert_eq!(group.found_sent(), ways, "{mode:?}");
        if mode == Mode::Asynch {
            assert!(group.nodes[1..3].iter().all(|node| node.waiting() == 0));
        }
    }
}

#[test]
fn the_hop_limit_is_kept_and_nothing_is_left_behind() {
    for mode in MODES {
        let settings = Settings::default();
        let mut group = Group::line(6, &settings);
        group.nodes[5].keep(record(1, "name", 1)).unwrap();
        assert_eq!(group.find(0, &query(mode, 6)).1.len(), 1, "{mode:?}");
        let mut group = Group::line(6, &settings);
        group.nodes[5].keep(record(1, "name", 1)).unwrap();
        let (time, found) = group.find(0, &query(mode, 3));
        assert!(found.is_empty() && time <= settings.lifetime + HOP * 10, "{mode:?}: {time:?}");
        group.run(settings.lifetime);
        assert!(
            group.nodes.iter().all(|node| node.waiting() == 0 && node.poll_timeout().is_none()),
            "{mode:?}"
        );
    }
}

#[test]
fn nobody_handles_a_query_twice() {
    let ring: Vec<Vec<usize>> = (0..4).map(|place| vec![place, (place + 1) % 4]).collect();
    let clique: Vec<Vec<usize>> =
        (0..8).map(|place| (0..8).filter(|other| *other != place).collect()).collect();
    for neighbours in [ring, clique] {
        for mode in MODES {
            let mut group = Group::new(&neighbours, &Settings::default());
            let last = neighbours.len() - 1;
            group.nodes[last].keep(record(1, "name", 1)).unwrap();
            assert_eq!(group.find(0, &query(mode, 3)).1.len(), 1, "{mode:?}");
            group.run(Duration::from_secs(3));
            let asked: u64 = group.nodes.iter().map(|node| node.counters().asked).sum();
            assert!(asked <= 5 * 5 * 5, "{asked}");
            let handled = |node: &Kv| node.counters().asked - node.counters().asked_again;
            assert!(group.nodes.iter().all(|node| handled(node) <= 1));
        }
    }
}

#[test]
fn as_many_values_come_as_are_wanted_and_no_author_twice() {
    for mode in MODES {
        let hub = vec![vec![1, 2, 3], vec![], vec![], vec![]];
        let mut group = Group::new(&hub, &Settings::default());
        for (node, author) in [(1, 1), (2, 2), (3, 2)] {
            group.nodes[node].keep(record(author, "name", 1)).unwrap();
        }
        let (_, found) = group.find(0, &Query { wanted: 2, ..query(mode, 3) });
        let authors: BTreeSet<PublicKey> = found.iter().map(|record| record.author).collect();
        assert_eq!((found.len(), authors.len()), (2, 2), "{mode:?}");
    }
}

#[test]
fn nodes_on_the_way_keep_a_copy_for_a_while() {
    let settings = Settings { cache_for: Duration::from_secs(30), ..Settings::default() };
    let mut group = Group::line(4, &settings);
    group.nodes[3].keep(record(1, "name", 1)).unwrap();
    group.find(0, &query(Mode::Proxy, 3));
    group.dead.insert(3);
    let sent = group.ledger.len();
    assert_eq!(group.find(1, &query(Mode::Proxy, 1)).1.len(), 1, "it is here");
    assert_eq!(group.ledger.len(), sent, "so nobody is asked");
    group.run(Duration::from_secs(31));
    assert!(group.find(1, &query(Mode::Proxy, 2)).1.is_empty(), "it was here");
}

#[test]
fn whoever_asked_a_dead_node_learns_in_time() {
    let settings = Settings::default();
    let mut group = Group::line(4, &settings);
    group.nodes[3].keep(record(1, "name", 1)).unwrap();
    group.dead.insert(2);
    for mode in MODES {
        let (time, found) = group.find(0, &query(mode, 3));
        assert!(found.is_empty() && time <= settings.lifetime + HOP * 10, "{mode:?} {time:?}");
    }
}

#[test]
fn what_its_author_has_not_signed_is_neither_kept_nor_passed_on() {
    let mut group = Group::line(2, &Settings::default());
    let mut forged = record(1, "name", 1);
    forged.value = b"something else".to_vec();
    assert_eq!(group.nodes[0].keep(forged.clone()), Err(RecordError::Signature));
    assert_eq!(group.nodes[0].put(&forged, 1), Err(RecordError::Signature));
    let (now, liar) = (group.now, group.keys[0]);
    group.nodes[1].handle_message(now, liar, Message::Put(forged.clone()));
    assert_eq!(group.nodes[1].counters().refused_records, 1);
    let id = group.nodes[1].find(now, &query(Mode::Asynch, 1));
    group.nodes[1].poll_answer();
    group.nodes[1].handle_message(now, liar, Message::Found { id, records: vec![forged] });
    assert!(group.nodes[1].local("name", 9).is_empty());

    group.nodes[0].keep(record(1, "name", 2)).unwrap();
    assert_eq!(group.nodes[0].keep(record(1, "name", 1)), Err(RecordError::Old));
    group.nodes[0].keep(record(1, "name", 3)).unwrap();
    assert_eq!(group.nodes[0].local("name", 9), [record(1, "name", 3)]);
}

#[test]
fn sixteen_nodes_find_a_thousand_values() {
    let all: Vec<Vec<usize>> =
        (0..16).map(|place| (0..16).filter(|other| *other != place).collect()).collect();
    let mut group = Group::new(&all, &Settings::default());
    for number in 0..1_000 {
        let at = number % 16;
        group.nodes[at].put(&record(1, &format!("name {number}"), 1), 2).unwrap();
    }
    group.run(Duration::from_secs(1));
    for number in 0..1_000 {
        let mode = MODES[number % 4];
        let wanted = Query { key: format!("name {number}"), fan_out: 2, ..query(mode, 4) };
        let (time, found) = group.find((number * 7) % 16, &wanted);
        assert_eq!(found, [record(1, &format!("name {number}"), 1)]);
        assert!(time <= Duration::from_millis(100), "{time:?}");
    }
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    for text in ["", "{}", r#"{"NotFound":{}}"#, r#"{"Put":{"author":"x"}}"#, r#"{"Ask":{"way":"Turn"}}"#] {
        assert!(Message::from_bytes(text.as_bytes()).is_err(), "{text}");
    }
}
