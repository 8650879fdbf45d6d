use std::{collections::VecDeque, time::Duration};

use super::*;
use crate::protocol::kv::{RcRef, onion::announcement::MAX_TOLD, onion::directory::MAX_KNOWN};

/// Nodes whose streams take 10 ms.
struct Net {
    now: Instant,
    nodes: Vec<Onion<RcRef>>,
    links: BTreeSet<(usize, usize)>,
    wire: VecDeque<Wired>,
    /// Every packet that was sent.
    ledger: Vec<Wired>,
    /// What each user was told.
    told: Vec<VecDeque<ApiInput<RcRef>>>,
    /// Who changes a byte of the body of what he passes on.
    marks: Option<usize>,
}

#[derive(Clone)]
struct Wired {
    at: Instant,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

const HOP: Duration = Duration::from_millis(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

fn node(now: Instant, place: usize, hidden: bool) -> Onion<RcRef> {
    let identity = identity(place);
    let settings = OnionSettings {
        me: key(place),
        seed: [place as u8 + 50; 32],
        micros: 1_000,
        answer_within: ANSWER_WITHIN,
        hidden,
    };
    Onion::new(now, settings, Box::new(move |purpose, bytes| identity.sign_for(purpose, bytes)))
}

fn announcement(place: usize, neighbours: &[usize], version: u64) -> Announcement {
    let identity = identity(place);
    let told = Announcement {
        node: key(place),
        key: OnionSecret::from_seed([place as u8; 32]).public(),
        neighbours: neighbours.iter().map(|place| key(*place)).collect(),
        version,
        signature: [0; 64],
    };
    told.sign(|purpose, bytes| identity.sign_for(purpose, bytes))
}

impl Net {
    fn new(count: usize, links: impl IntoIterator<Item = (usize, usize)>) -> Self {
        Self::with_hidden(count, links, &[])
    }

    fn with_hidden(count: usize, links: impl IntoIterator<Item = (usize, usize)>, hidden: &[usize]) -> Self {
        let now = Instant::now();
        let nodes = (0..count).map(|place| node(now, place, hidden.contains(&place))).collect();
        let told = (0..count).map(|_| VecDeque::new()).collect();
        let (wire, ledger) = (VecDeque::new(), Vec::new());
        let mut net = Self { now, nodes, links: BTreeSet::new(), wire, ledger, told, marks: None };
        links.into_iter().for_each(|(one, other)| net.join(one, other));
        net.run(Duration::from_secs(5));
        net.ledger.clear();
        net
    }

    fn line(count: usize) -> Self {
        Self::new(count, (1..count).map(|place| (place - 1, place)))
    }

    fn join(&mut self, one: usize, other: usize) {
        self.links.insert((one.min(other), one.max(other)));
        self.give(one, OnionInput::Online(key(other)));
        self.give(other, OnionInput::Online(key(one)));
    }

    fn part(&mut self, one: usize, other: usize) {
        self.links.remove(&(one.min(other), one.max(other)));
        self.give(one, OnionInput::Offline(key(other)));
        self.give(other, OnionInput::Offline(key(one)));
    }

    fn give(&mut self, at: usize, input: OnionInput) {
        let mut out = Vec::new();
        self.nodes[at].handle(self.now, input, &mut out);
        self.act(at, out);
    }

    fn act(&mut self, at: usize, out: Vec<Item<RcRef>>) {
        for item in out {
            match item {
                Item::Api(input) => self.told[at].push_back(input),
                Item::Network(NetworkOutput::Send { to, contact: None, mut bytes }) => {
                    let to = (0..self.nodes.len()).find(|place| key(*place) == to).unwrap();
                    assert!(self.links.contains(&(at.min(to), at.max(to))), "{at} has no stream to {to}");
                    let is_packet = Packet::from_bytes(&bytes).is_some();
                    if is_packet && self.marks == Some(at) {
                        *bytes.last_mut().unwrap() ^= 1;
                    }
                    let wired = Wired { at: self.now + HOP, from: at, to, bytes };
                    if is_packet {
                        self.ledger.push(wired.clone());
                    }
                    self.wire.push_back(wired);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timers = self.nodes.iter().filter_map(Onion::poll_timeout).min();
            let next = [timers, self.wire.front().map(|wired| wired.at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            while self.wire.front().is_some_and(|wired| wired.at <= self.now) {
                let Wired { from, to, bytes, .. } = self.wire.pop_front().unwrap();
                self.receive(from, to, &bytes);
            }
            for at in 0..self.nodes.len() {
                let mut out = Vec::new();
                self.nodes[at].handle_timeout(self.now, &mut out);
                self.act(at, out);
            }
        }
        self.now = end;
    }

    fn receive(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let from = key(from);
        match Message::<RcRef>::from_bytes(bytes).unwrap() {
            Message::Onion(packet) => self.give(to, OnionInput::Packet { from, packet }),
            Message::Announcement(announcement) => {
                self.give(to, OnionInput::Announced { from, announcement });
            }
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, at: usize, to: usize, over: Over) {
        let text = b"a question".to_vec();
        self.give(at, OnionInput::Send { request: 1, to: key(to), over, text, answered: true });
    }

    fn heard(&mut self, at: usize) -> Option<(Option<u64>, Vec<u8>)> {
        match self.told[at].pop_front()? {
            ApiInput::Heard { number, text } => Some((number, text)),
            other => panic!("{other:?}"),
        }
    }

    fn outcome(&mut self, at: usize) -> Option<Result<OnionOutcome, OnionError>> {
        match self.told[at].pop_front()? {
            ApiInput::OnionDone { result, .. } => Some(result),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, at: usize, number: u64) -> Result<OnionOutcome, OnionError> {
        self.give(at, OnionInput::Answer { request: 2, number, text: b"an answer".to_vec() });
        self.outcome(at).unwrap()
    }

    /// A question and its answer.
    fn exchange(&mut self, at: usize, to: usize, over: Over) {
        self.send(at, to, over);
        self.run(HOP * 8);
        let (number, text) = self.heard(to).expect("it has come");
        assert_eq!(text, b"a question");
        assert_eq!(self.answer(to, number.expect("it can be answered")), Ok(OnionOutcome::AnswerSent));
        self.run(HOP * 8);
        assert_eq!(self.outcome(at), answered());
    }

    fn count(&mut self, at: usize, name: &str) -> u64 {
        let counts = self.nodes[at].counts();
        counts.into_iter().find(|(one, _)| *one == name).unwrap().1
    }

    /// From whom to whom packets went.
    fn passed(&self) -> Vec<(usize, usize)> {
        self.ledger.iter().map(|wired| (wired.from, wired.to)).collect()
    }
}

fn answered() -> Option<Result<OnionOutcome, OnionError>> {
    Some(Ok(OnionOutcome::Answered { text: b"an answer".to_vec() }))
}

fn clique(count: usize) -> Vec<(usize, usize)> {
    (0..count).flat_map(|one| (0..one).map(move |other| (other, one))).collect()
}

#[test]
fn a_message_goes_over_four_nodes_and_the_answer_comes_back() {
    let mut net = Net::line(6);
    for place in 0..6 {
        assert_eq!(net.count(place, "onion_nodes"), 5, "all hear of all");
    }
    net.exchange(0, 5, Over::Drawn(4));
    let there: Vec<(usize, usize)> = (0..5).map(|place| (place, place + 1)).collect();
    let back = there.iter().rev().map(|(one, other)| (*other, *one));
    assert_eq!(net.passed(), there.iter().copied().chain(back).collect::<Vec<_>>());
    for wired in &net.ledger {
        assert_eq!(wired.bytes.len(), PACKET_BYTES);
    }
    for place in 1..5 {
        assert_eq!(net.count(place, "onion_passed"), 2);
        assert_eq!([net.count(place, "onion_waiting"), net.count(place, "onion_inbox")], [0, 0]);
    }
    // And named, each way another.
    let mut net = Net::new(6, clique(6));
    let named = |places: &[usize]| places.iter().map(|place| key(*place)).collect::<Vec<_>>();
    net.exchange(0, 5, Over::Named { there: named(&[3, 1]), back: Some(named(&[4])) });
    assert_eq!(net.passed(), [(0, 3), (3, 1), (1, 5), (5, 4), (4, 0)]);
    net.exchange(0, 5, Over::Named { there: Vec::new(), back: None });
}

#[test]
fn without_an_answer_nothing_is_kept_anywhere() {
    let mut net = Net::line(3);
    let text = b"one way".to_vec();
    net.give(0, OnionInput::Send { request: 1, to: key(2), over: Over::Drawn(1), text, answered: false });
    assert_eq!(net.outcome(0), Some(Ok(OnionOutcome::Sent { relays: 1 })));
    net.run(HOP * 4);
    assert_eq!(net.heard(2), Some((None, b"one way".to_vec())));
    assert_eq!([net.count(0, "onion_waiting"), net.count(2, "onion_inbox")], [0, 0]);
}

#[test]
fn a_packet_is_taken_once_as_long_as_it_can_be_read() {
    let mut net = Net::line(4);
    net.exchange(0, 3, Over::Drawn(2));
    let recorded = net.ledger.clone();
    for wired in &recorded {
        net.receive(wired.from, wired.to, &wired.bytes);
    }
    assert_eq!(net.ledger.len(), recorded.len(), "nothing comes of it");
    let repeated: u64 = (0..4).map(|place| net.count(place, "onion_repeated")).sum();
    assert_eq!(repeated, recorded.len() as u64);

    // After the next key has come it is still known, and when the old key is gone nobody can read it.
    net.run(keyring::LIFE);
    let wired = &recorded[1];
    net.receive(wired.from, wired.to, &wired.bytes);
    assert_eq!(net.count(wired.to, "onion_repeated"), 3);
    net.run(keyring::GRACE);
    net.receive(wired.from, wired.to, &wired.bytes);
    assert_eq!([net.count(wired.to, "onion_repeated"), net.count(wired.to, "onion_unreadable")], [3, 1]);
    assert_eq!(net.count(wired.to, "onion_remembered"), 0);
    assert_eq!(net.ledger.len(), recorded.len());

    // Nor can a node that was started anew.
    net.exchange(0, 3, Over::Drawn(2));
    let wired = net.ledger[recorded.len()].clone();
    let now = net.now;
    let mut again = Onion::<RcRef>::new(
        now,
        OnionSettings { seed: [99; 32], ..net.nodes[wired.to].settings.clone() },
        Box::new(|_, _| [0; 64]),
    );
    let mut out = Vec::new();
    again.handle(now, OnionInput::Online(key(wired.from)), &mut out);
    let packet = Packet::from_bytes(&wired.bytes).unwrap();
    again.handle(now, OnionInput::Packet { from: key(wired.from), packet }, &mut out);
    assert!(out.is_empty() && again.counters.unreadable == 1);
}

#[test]
fn a_message_is_answered_once() {
    let mut net = Net::line(4);
    net.send(0, 3, Over::Drawn(2));
    net.run(HOP * 4);
    let number = net.heard(3).unwrap().0.unwrap();
    // The receiver is malicious and uses the way back twice.
    let block = net.nodes[3].inbox.get(&number).unwrap().clone();
    net.answer(3, number).unwrap();
    let (_, packet) = block.answer(b"another answer").unwrap();
    net.run(HOP * 8);
    net.receive(3, 2, &packet.to_bytes());
    assert_eq!(net.count(2, "onion_repeated"), 1);
    assert_eq!(net.outcome(0), answered());
    assert_eq!(net.outcome(0), None);
    assert_eq!(net.answer(3, number), Err(OnionError::NothingToAnswer { number }));
}

#[test]
fn who_changes_a_message_only_ends_it() {
    let mut net = Net::line(6);
    net.marks = Some(1);
    net.send(0, 5, Over::Drawn(4));
    net.run(HOP * 8);
    assert_eq!(net.passed(), [(0, 1), (1, 2)], "the next one throws it away");
    assert_eq!(net.count(2, "onion_damaged"), 1);
    net.run(ANSWER_WITHIN);
    let error = Err(OnionError::NoAnswer { of: key(5), after: ANSWER_WITHIN });
    assert_eq!(net.outcome(0), Some(error));
}

#[test]
fn an_answer_that_was_changed_is_not_taken_for_one() {
    let mut net = Net::line(4);
    net.send(0, 3, Over::Drawn(2));
    net.run(HOP * 4);
    let number = net.heard(3).unwrap().0.unwrap();
    net.marks = Some(2);
    net.answer(3, number).unwrap();
    net.run(HOP * 4);
    assert_eq!(net.outcome(0), Some(Err(OnionError::Damaged { of: key(3) })));
    assert_eq!(net.count(0, "onion_waiting"), 0);
}

#[test]
fn keys_change_and_messages_go_on() {
    let mut net = Net::line(4);
    let before = net.nodes[1].keys.public();
    // On its way while keys change.
    net.run(keyring::LIFE - Duration::from_secs(6));
    net.send(0, 3, Over::Drawn(2));
    let now = net.now;
    net.nodes[1].keys.replace(now, [77; 32]);
    net.run(HOP * 4);
    assert!(net.heard(3).is_some(), "the key before is still read with");
    net.run(Duration::from_secs(10));
    assert!(net.nodes.iter().all(|node| node.keys.public() != before));
    assert_eq!(net.outcome(0), Some(Err(OnionError::NoAnswer { of: key(3), after: ANSWER_WITHIN })));
    net.exchange(0, 3, Over::Drawn(2));
    // Nodes are not forgotten as long as they are there.
    net.run(Duration::from_secs(3_600));
    net.exchange(0, 3, Over::Drawn(2));
    net.part(2, 3);
    net.run(Duration::from_secs(1_000));
    assert_eq!(net.count(0, "onion_nodes"), 2, "who says nothing any more is forgotten");
}

#[test]
fn who_sends_too_much_is_not_heard_for_a_while() {
    let mut net = Net::line(3);
    let nonsense = message(
        &[1; 32],
        &[Hop { node: key(9), key: OnionSecret::from_seed([9; 32]).public() }],
        &Content { text: Vec::new(), reply: None },
    );
    let nonsense = nonsense.unwrap().to_bytes();
    for _ in 0..1_000 {
        net.receive(0, 1, &nonsense);
    }
    let most = u64::from(PACKETS_AT_ONCE);
    assert_eq!([net.count(1, "onion_unreadable"), net.count(1, "onion_over_quota")], [most, 1_000 - most]);
    net.exchange(2, 1, Over::Drawn(0));
    net.run(Duration::from_secs(1));
    net.exchange(0, 2, Over::Drawn(1));
    // Whoever is no neighbour is not heard at all.
    net.receive(2, 0, &nonsense);
    assert_eq!([net.count(0, "onion_unreadable"), net.count(0, "onion_over_quota")], [0, 1]);
}

#[test]
fn what_a_node_has_not_said_or_said_before_is_not_believed() {
    let mut net = Net::line(2);
    let give = |net: &mut Net, told: Announcement| {
        net.give(1, OnionInput::Announced { from: key(0), announcement: Box::new(told) });
        net.nodes[1].directory.hop(key(7)).map(|hop| hop.key)
    };
    let told = announcement(7, &[0], 5);
    let mut forged = told.clone();
    forged.key = OnionKey::from_bytes([1; 32]);
    assert_eq!(give(&mut net, forged), None);
    let mut crowded = told.clone();
    crowded.neighbours = (0..=MAX_TOLD).map(key).collect();
    crowded.signature = identity(7).sign_for("crust examples: kv announcement", &[]);
    assert_eq!(give(&mut net, crowded), None);
    assert_eq!(give(&mut net, told.clone()), Some(told.key));
    let mut old = announcement(7, &[0], 5);
    old.key = OnionKey::from_bytes([2; 32]);
    assert_eq!(
        give(&mut net, old.sign(|purpose, bytes| identity(7).sign_for(purpose, bytes))),
        Some(told.key)
    );
    let mut new = announcement(7, &[0], 6);
    new.key = OnionKey::from_bytes([3; 32]);
    let new = new.sign(|purpose, bytes| identity(7).sign_for(purpose, bytes));
    assert_eq!(give(&mut net, new.clone()), Some(new.key));
    // Nor does anybody tell a node of itself.
    let own = announcement(1, &[], u64::MAX);
    net.give(1, OnionInput::Announced { from: key(0), announcement: Box::new(own) });
    net.exchange(0, 1, Over::Drawn(0));
}

#[test]
fn no_more_nodes_are_remembered_than_there_is_room_for() {
    let mut directory = Directory::new();
    let now = Instant::now();
    let learnt = (0..MAX_KNOWN + 10).filter(|place| {
        let identity =
            Identity::from_seed([(place % 251) as u8, (place / 251) as u8].repeat(16).try_into().unwrap());
        let told = Announcement { node: identity.public_key(), ..announcement(0, &[], 1) };
        directory.learn(now, &told.sign(|purpose, bytes| identity.sign_for(purpose, bytes)))
    });
    assert_eq!(learnt.count(), MAX_KNOWN);
    assert_eq!(directory.all().count(), MAX_KNOWN);
    directory.expire(now + Duration::from_secs(3_600));
    assert_eq!(directory.all().count(), 0);
}

#[test]
fn who_hides_its_neighbours_sends_and_is_answered_and_nobody_knows_of_it() {
    let mut net = Net::with_hidden(4, [(0, 1), (1, 2), (2, 3)], &[0]);
    assert_eq!([net.count(1, "onion_nodes"), net.count(0, "onion_nodes")], [2, 3]);
    net.exchange(0, 3, Over::Drawn(2));
    net.send(3, 0, Over::Drawn(2));
    assert_eq!(net.outcome(3), Some(Err(OnionError::Unknown { node: key(0) })));
}

#[test]
fn what_cannot_be_sent_is_told() {
    let mut net = Net::line(4);
    let error = |net: &mut Net, to: usize, over: Over| {
        net.send(0, to, over);
        net.outcome(0).unwrap().unwrap_err()
    };
    assert_eq!(error(&mut net, 0, Over::Drawn(1)), OnionError::Itself);
    assert_eq!(error(&mut net, 9, Over::Drawn(1)), OnionError::Unknown { node: key(9) });
    let none = |relays| OnionError::NoWay { from: key(0), to: key(3), relays };
    for relays in [0, 1, 3, 6] {
        assert_eq!(error(&mut net, 3, Over::Drawn(relays)), none(usize::from(relays)));
    }
    let named = |places: &[usize]| {
        let there = places.iter().map(|place| key(*place)).collect();
        Over::Named { there, back: None }
    };
    let strangers = OnionError::NotNeighbours { one: key(0), other: key(2) };
    assert_eq!(error(&mut net, 3, named(&[2])), strangers);
    assert_eq!(error(&mut net, 3, named(&[1, 9])), OnionError::Unknown { node: key(9) });
    let many = named(&[1, 2, 1, 2, 1, 2, 1, 2]);
    assert_eq!(error(&mut net, 3, many), OnionError::Build(BuildError::Way(9)));
    assert_eq!(net.answer(3, 5), Err(OnionError::NothingToAnswer { number: 5 }));
    assert_eq!(net.count(0, "onion_waiting"), 0);
    assert!(net.ledger.is_empty());

    // As many wait as may.
    for _ in 0..MAX_WAITING {
        net.send(0, 3, Over::Drawn(2));
    }
    assert_eq!(error(&mut net, 3, Over::Drawn(2)), OnionError::Full);
    net.run(HOP * 10);
    let answerable = std::iter::from_fn(|| net.heard(3)).map(|(number, _)| number.is_some());
    let (with, without): (Vec<bool>, Vec<bool>) = answerable.partition(|answerable| *answerable);
    assert_eq!((with.len(), without.len()), (MAX_INBOX, MAX_WAITING - MAX_INBOX));
    net.run(ANSWER_WITHIN);
    let late = (0..MAX_WAITING).filter(|_| matches!(net.outcome(0), Some(Err(OnionError::NoAnswer { .. }))));
    assert_eq!(late.count(), MAX_WAITING);
    net.run(ANSWER);
    let left = ["onion_waiting", "onion_inbox"].map(|name| net.count(0, name) + net.count(3, name));
    assert_eq!(left, [0, 0]);
}

#[test]
fn a_node_that_is_gone_loses_what_would_go_over_it() {
    let mut net = Net::line(4);
    net.send(0, 3, Over::Drawn(2));
    net.run(HOP);
    net.part(2, 3);
    net.run(HOP * 4);
    assert_eq!(net.count(2, "onion_lost"), 1);
    net.run(Duration::from_secs(3));
    assert!(matches!(net.outcome(0), Some(Err(OnionError::NoAnswer { .. }))));
    net.send(0, 3, Over::Drawn(2));
    assert!(matches!(net.outcome(0), Some(Err(OnionError::NoWay { .. }))), "they have told that they parted");
    // Whoever wants to answer, and has lost the first one of the way back, learns it.
    net.join(2, 3);
    net.run(Duration::from_secs(3));
    net.send(0, 3, Over::Drawn(2));
    net.run(HOP * 4);
    let number = net.heard(3).unwrap().0.unwrap();
    net.part(2, 3);
    assert_eq!(net.answer(3, number), Err(OnionError::Gone { node: key(2) }));
    net.join(2, 3);
    assert_eq!(net.answer(3, number), Ok(OnionOutcome::AnswerSent));
}

#[test]
fn ways_are_drawn_by_chance_and_go_nowhere_twice() {
    let mut net = Net::new(8, clique(8));
    let ways: BTreeSet<Vec<PublicKey>> =
        (0..60).map(|_| net.nodes[0].draw_way(key(0), key(7), 3).unwrap()).collect();
    // Of 6 x 5 x 4 ways 60 draws hit some 47.
    assert!(ways.len() > 25, "{}", ways.len());
    for way in &ways {
        let different: BTreeSet<PublicKey> = way.iter().copied().chain([key(0), key(7)]).collect();
        assert_eq!((way.len(), different.len()), (3, 5));
    }
    let longest = net.nodes[0].draw_way(key(0), key(7), 6).unwrap();
    assert_eq!(longest.len(), 6);
    assert!(net.nodes[0].draw_way(key(0), key(7), 7).is_err(), "there are no more nodes");
    // Every node has one neighbour, and it is the same.
    let mut star = Net::new(20, (1..20).map(|leaf| (0, leaf)));
    assert_eq!(star.nodes[1].draw_way(key(1), key(2), 1), Ok(vec![key(0)]));
    assert!(star.nodes[1].draw_way(key(1), key(2), 3).is_err());
    // Whoever says alone that he is a neighbour is not believed.
    let mut net = Net::line(3);
    let liar = announcement(9, &[0, 1, 2], 1);
    net.give(0, OnionInput::Announced { from: key(1), announcement: Box::new(liar) });
    net.send(0, 2, Over::Named { there: vec![key(9)], back: None });
    assert_eq!(net.outcome(0), Some(Err(OnionError::NotNeighbours { one: key(0), other: key(9) })));
    for _ in 0..20 {
        assert_eq!(net.nodes[0].draw_way(key(0), key(2), 1), Ok(vec![key(1)]));
    }
}

#[test]
fn a_chain_of_rings_has_ways_of_every_length_that_fits() {
    // Long and thin: most beginnings lead nowhere in time.
    let mut links: Vec<(usize, usize)> = (1..30).map(|place| (place - 1, place)).collect();
    links.extend((3..30).step_by(3).map(|place| (place - 3, place)));
    let mut net = Net::new(30, links);
    for relays in [5, 6, 7] {
        let way = net.nodes[0].draw_way(key(0), key(18), relays);
        assert_eq!(way.map(|way| way.len()).ok(), (relays != 6).then_some(relays), "{relays}");
    }
}
