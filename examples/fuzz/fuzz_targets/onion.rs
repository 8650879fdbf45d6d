//! Any bytes as a packet, any layer and body under the right keys, and packets among three nodes that are sent again, changed and given to the
//! wrong one.
//!
//! The first byte says which.
#![no_main]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crust::{Identity, PublicKey};
use crust_examples::{
    fuzzing::sealed,
    protocol::kv::{
        ApiInput, Item, Message, NetworkOutput, Onion, OnionInput, OnionOutcome, OnionSettings, Over, RcRef,
        onion::{MAX_TEXT, OnionKey, PACKET_BYTES, Packet},
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, input)) = input.split_first() else { return };
    match mode % 4 {
        0 => any_bytes(input),
        1 => any_layer(input),
        _ => Net::new().run(input),
    }
});

/// Nobody can make a packet without its receiver's key.
fn any_bytes(input: &[u8]) {
    let mut bytes = input.to_vec();
    if let Some(packet) = Packet::from_bytes(&bytes) {
        assert_eq!(packet.to_bytes(), bytes);
    }
    bytes.resize(PACKET_BYTES, 0);
    bytes[0] = 0;
    let packet = Packet::from_bytes(&bytes).expect("it has the length and the version");
    assert_eq!(packet.to_bytes(), bytes);
    let (now, mut node) = alone();
    assert!(give(&mut node, now, OnionInput::Packet { from: key(1), packet }).is_empty());
}

/// Whoever has it can say in it what he likes.
fn any_layer(input: &[u8]) {
    let (now, mut node) = alone();
    let onion_key = announced(&mut node, now);
    let (layers, body) = input.split_at(input.len().min(776));
    let Some(packet) = sealed(&onion_key, [5; 32], layers, body) else { panic!("it is a key") };
    let from = key(1);
    match &give(&mut node, now, OnionInput::Packet { from, packet: packet.clone() })[..] {
        [] => {}
        [Item::Network(NetworkOutput::Send { to, contact: None, bytes })] => {
            assert!(*to == key(1) && bytes.len() == PACKET_BYTES && Packet::from_bytes(bytes).is_some());
        }
        [Item::Api(ApiInput::Heard { number, text })] => {
            assert!(text.len() <= MAX_TEXT);
            if let Some(number) = *number {
                let answer = OnionInput::Answer { request: 1, number, text: text.clone() };
                assert!(give(&mut node, now, answer).len() <= 2);
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(give(&mut node, now, OnionInput::Packet { from, packet }).is_empty(), "a packet is read once");
}

/// A node with one neighbour.
fn alone() -> (Instant, Onion<RcRef>) {
    let now = Instant::now();
    let mut node = node(now, 0);
    assert!(give(&mut node, now, OnionInput::Online(key(1))).is_empty());
    (now, node)
}

/// What it has its neighbours write packets for it with.
fn announced(node: &mut Onion<RcRef>, now: Instant) -> OnionKey {
    let mut out = Vec::new();
    node.handle_timeout(now + Duration::from_secs(1), &mut out);
    let told = out.iter().find_map(|item| match item {
        Item::Network(NetworkOutput::Send { bytes, .. }) => announcement(bytes),
        _ => None,
    });
    told.expect("it tells its neighbour of itself")
}

fn announcement(bytes: &[u8]) -> Option<OnionKey> {
    match Message::<RcRef>::from_bytes(bytes) {
        Ok(Message::Announcement(told)) => Some(told.key),
        _ => None,
    }
}

fn give(node: &mut Onion<RcRef>, now: Instant, input: OnionInput) -> Vec<Item<RcRef>> {
    let mut out = Vec::new();
    node.handle(now, input, &mut out);
    out
}

/// Three nodes, each next to each other one.
struct Net {
    now: Instant,
    nodes: Vec<Onion<RcRef>>,
    /// Everything that was under way, to be given to somebody at any time.
    wire: Vec<Sent>,
    /// Where each text that was sent goes to, and whether it was heard.
    messages: BTreeMap<Vec<u8>, (usize, bool)>,
    /// Texts that can be answered, by who has heard them and as what.
    heard: BTreeMap<(usize, u64), Vec<u8>>,
    /// What is right as an answer to each text.
    answers: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Which text each request of each node was about.
    asked: BTreeMap<(usize, u64), Vec<u8>>,
    next: u64,
}

#[derive(Clone)]
struct Sent {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
    is_answer: bool,
}

impl Net {
    fn new() -> Self {
        let now = Instant::now();
        let nodes = (0..NODES).map(|place| node(now, place)).collect();
        let mut net = Self {
            now,
            nodes,
            wire: Vec::new(),
            messages: BTreeMap::new(),
            heard: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: 0,
        };
        for (one, other) in [(0, 1), (1, 2), (0, 2), (1, 0), (2, 1), (2, 0)] {
            net.give(one, OnionInput::Online(key(other)), false);
        }
        net.pass(Duration::from_secs(2));
        net
    }

    /// Four bytes a step.
    fn run(&mut self, input: &[u8]) {
        for step in input.chunks_exact(4).take(64) {
            let [what, one, other, number] = [step[0], step[1], step[2], step[3]];
            let (at, to) = (usize::from(one) % NODES, usize::from(other) % NODES);
            let place = usize::from(one) % self.wire.len().max(1);
            match what % 6 {
                0 => self.send(at, to, number),
                1 => self.answer(at, usize::from(number)),
                2 => self.deliver(place, None, 0, 0),
                3 => {
                    self.deliver(place, None, usize::from(other) * 16 + usize::from(number >> 4), number | 1)
                }
                4 => self.deliver(place, Some(to), 0, 0),
                _ => self.pass(Duration::from_millis(u64::from(number) * 500)),
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, options: u8) {
        let (request, text) = (self.number(), self.number().to_be_bytes().to_vec());
        let over = Over::Drawn(options % 3);
        let answered = options & 4 != 0;
        self.messages.insert(text.clone(), (to, false));
        self.asked.insert((from, request), text.clone());
        self.give(from, OnionInput::Send { request, to: key(to), over, text, answered }, false);
    }

    fn answer(&mut self, at: usize, place: usize) {
        let mut mine = self.heard.keys().filter(|(who, _)| *who == at);
        let Some(&(_, number)) = mine.nth(place % 4) else { return };
        let request = self.number();
        let text = self.number().to_be_bytes().to_vec();
        let about = self.heard[&(at, number)].clone();
        // An answer that cannot be sent now may be sent later; the last one counts.
        self.answers.insert(about, text.clone());
        if !self.give(at, OnionInput::Answer { request, number, text }, true).is_empty() {
            self.heard.remove(&(at, number));
        }
    }

    /// Gives something that was sent to its receiver, or to another, with a byte changed or as it is.
    fn deliver(&mut self, place: usize, to: Option<usize>, at: usize, change: u8) {
        let Some(Sent { from, to: meant, mut bytes, is_answer }) = self.wire.get(place).cloned() else {
            return;
        };
        let to = to.unwrap_or(meant);
        bytes[at] ^= change;
        let Some(packet) = Packet::from_bytes(&bytes) else { return assert!(at == 0 && change != 0) };
        let from = if to == from { meant } else { from };
        let out = self.give(to, OnionInput::Packet { from: key(from), packet }, is_answer);
        if to != meant || (change != 0 && (!is_answer || at < BODY)) {
            assert!(out.is_empty(), "it was not for that node, or a byte was changed");
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for _ in 0..4 {
            for at in 0..NODES {
                let mut out = Vec::new();
                self.nodes[at].handle_timeout(self.now, &mut out);
                self.take(at, out, false);
                let next = self.nodes[at].poll_timeout();
                assert!(next.is_none_or(|next| next > self.now), "it would never rest");
            }
            self.now += Duration::from_millis(100);
        }
    }

    /// Gives packets that come of it, which are on the wire then, and what the user is told.
    fn give(&mut self, at: usize, input: OnionInput, is_answer: bool) -> Vec<Vec<u8>> {
        let out = give(&mut self.nodes[at], self.now, input);
        self.take(at, out, is_answer)
    }

    fn take(&mut self, at: usize, out: Vec<Item<RcRef>>, is_answer: bool) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for item in out {
            match item {
                Item::Network(NetworkOutput::Send { to, bytes, .. }) => {
                    let to = (0..NODES).find(|place| key(*place) == to).expect("it is one of them");
                    if let Ok(Message::<RcRef>::Announcement(announcement)) = Message::from_bytes(&bytes) {
                        let from = key(at);
                        self.give(to, OnionInput::Announced { from, announcement }, false);
                    } else {
                        assert_eq!(bytes.len(), PACKET_BYTES);
                        all.push(bytes.clone());
                        self.wire.push(Sent { from: at, to, bytes, is_answer });
                    }
                }
                Item::Api(ApiInput::Heard { number, text }) => {
                    let (to, heard) = self.messages.get_mut(&text).expect("somebody has said it");
                    assert!(*to == at && !*heard, "it is heard once, by whom it is for");
                    *heard = true;
                    self.heard.extend(number.map(|number| ((at, number), text.clone())));
                    all.push(text);
                }
                Item::Api(ApiInput::OnionDone { request, result: Ok(OnionOutcome::Answered { text }) }) => {
                    let about = self.asked.remove(&(at, request)).expect("it is answered once");
                    assert_eq!(self.answers[&about], text);
                    all.push(text);
                }
                _ => {}
            }
        }
        all
    }

    const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn node(now: Instant, place: usize) -> Onion<RcRef> {
    let settings = OnionSettings {
        me: key(place),
        seed: [place as u8 + 50; 32],
        micros: 1_000,
        answer_within: Duration::from_secs(20),
        hidden: false,
    };
    let identity = identity(place);
    Onion::new(now, settings, Box::new(move |purpose, bytes| identity.sign_for(purpose, bytes)))
}

fn identity(place: usize) -> Identity {
    Identity::from_seed([place as u8; 32])
}

fn key(place: usize) -> PublicKey {
    static KEYS: std::sync::LazyLock<[PublicKey; NODES]> =
        std::sync::LazyLock::new(|| std::array::from_fn(|place| identity(place).public_key()));
    KEYS[place]
}

const NODES: usize = 3;
/// Where the body of a packet begins.
const BODY: usize = 825;
