//! Any bytes as a message of `kv`, and whatever peers and users say to a whole node: two peers have proved who they are, a third has not.
//!
//! The first byte says which. What is said is lines, whose first byte says by whom.
#![no_main]

use std::time::{Duration, Instant};

use crust::{Identity, PublicKey};
use crust_examples::protocol::{
    kv::{
        Api, ApiInput, Gate, GateInput, GateSettings, Host, Item, Message, NetworkOutput, Onion,
        OnionSettings, RcRef, Record, Reference as _, Router, Rules, Signer, Store,
    },
    mesh::{LinkId, MAX_MESSAGE},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, input)) = input.split_first() else { return };
    if mode & 1 == 0 {
        // Written out in full, the longest messages may lose values.
        reads_the_same(&input[..input.len().min(MAX_MESSAGE / 4)]);
    } else {
        let rules = Rules {
            lifetime: LIFETIME,
            cache_for: Duration::from_millis(if mode & 2 == 0 { 0 } else { 300 }),
            hide_origin: mode & 4 != 0,
            tell_not_found: mode & 8 == 0,
            ..Rules::default()
        };
        let mut world = World::new(rules);
        for line in input.split(|byte| *byte == b'\n').take(48) {
            world.step(line);
        }
        world.forgets();
    }
});

fn reads_the_same(bytes: &[u8]) {
    if let Ok(message) = Message::<RcRef>::from_bytes(bytes) {
        let written = message.to_bytes();
        assert_eq!(Message::from_bytes(&written), Ok(message));
    }
}

struct World {
    now: Instant,
    host: Host<RcRef>,
    /// What the two proved peers have for a gate.
    gates: Vec<Gate<RcRef>>,
    links: u64,
    /// Of each peer, its present stream.
    streams: [u64; 3],
    /// By what name each peer was asked for something last, and for what.
    asked: [Option<u64>; 3],
    micros: u64,
    counted: Vec<(String, u64)>,
}

impl World {
    fn new(rules: Rules) -> Self {
        let now = Instant::now();
        let mut host = Host::default();
        host.add_gate(gate(ME));
        host.add_router(Router::new(peer(ME), [ME as u8; 32], rules));
        host.add_store(Store::new(Vec::new()));
        host.add_api(Api::new(key(ME), signer(ME)));
        let settings = OnionSettings {
            me: key(ME),
            seed: [50; 32],
            micros: 1_000,
            answer_within: LIFETIME,
            hidden: false,
        };
        host.add_onion(Onion::new(now, settings, signer(ME)));
        let gates = (0..2).map(gate).collect();
        let mut world = Self {
            now,
            host,
            gates,
            links: 0,
            streams: [0; 3],
            asked: [None; 3],
            micros: 0,
            counted: Vec::new(),
        };
        (0..3).for_each(|place| world.up(place));
        world
    }

    fn step(&mut self, line: &[u8]) {
        let Some((&what, line)) = line.split_first() else { return };
        let place = usize::from(line.first().copied().unwrap_or_default()) % 3;
        match what {
            b'0'..=b'2' => self.hear(usize::from(what - b'0'), line.to_vec()),
            b'u' => self.command(&String::from_utf8_lossy(line)),
            b'.' => self.pass(Duration::from_millis(line.len() as u64 * 20)),
            b'+' => self.up(place),
            b'-' => {
                let link = LinkId::from(self.streams[place]);
                self.give(Item::Gate(GateInput::Down { peer: key(place), link }));
            }
            // A value that is its author's.
            b'!' => {
                let record = RcRef::new(self.record(place, line));
                self.hear(place, Message::<RcRef>::Put(record).to_bytes());
            }
            // An answer to what was asked.
            b'=' => {
                let record = RcRef::new(self.record(place, line));
                if let Some(id) = self.asked[place] {
                    let found = Message::<RcRef>::Found { id, records: vec![record], share: 1 << 58 };
                    self.hear(place, found.to_bytes());
                }
            }
            _ => {}
        }
    }

    fn record(&mut self, author: usize, line: &[u8]) -> Record {
        self.micros += 1;
        let name: String =
            String::from_utf8_lossy(line.get(1..9.min(line.len())).unwrap_or_default()).into_owned();
        Record::new(key(author), &name, line, self.micros, signer(author)).expect("it is short enough")
    }

    fn command(&mut self, line: &str) {
        self.micros += 1;
        self.give(Item::Api(ApiInput::Line { line: Ok(line.to_owned()), micros: self.micros }));
    }

    fn hear(&mut self, place: usize, bytes: Vec<u8>) {
        let link = LinkId::from(self.streams[place]);
        self.give(Item::Gate(GateInput::Received { peer: key(place), link, bytes }));
    }

    /// A peer comes over a new stream; the first two prove who they are.
    fn up(&mut self, place: usize) {
        self.links += 1;
        self.streams[place] = self.links;
        let (link, binding) = (LinkId::from(self.links), [self.links as u8; 32]);
        if let Some(gate) = self.gates.get_mut(place) {
            let mut out = Vec::new();
            gate.handle(self.now, GateInput::Up { peer: key(ME), link, binding, neighbour: true }, &mut out);
            self.give(Item::Gate(GateInput::Up { peer: key(place), link, binding, neighbour: true }));
            self.carry(place, out);
        } else {
            self.give(Item::Gate(GateInput::Up { peer: key(place), link, binding, neighbour: true }));
        }
    }

    /// What the gate of a peer says.
    fn carry(&mut self, place: usize, out: Vec<Item<RcRef>>) {
        for item in out {
            if let Item::Network(NetworkOutput::Send { bytes, .. }) = item {
                self.hear(place, bytes);
            }
        }
    }

    fn give(&mut self, item: Item<RcRef>) {
        let mut out = Vec::new();
        self.host.handle(self.now, item, &mut out);
        self.check(out);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let mut out = Vec::new();
        self.host.handle_timeout(self.now, &mut out);
        assert!(self.host.poll_timeout().is_none_or(|at| at > self.now), "it would never rest");
        self.check(out);
    }

    fn check(&mut self, out: Vec<Item<RcRef>>) {
        assert!(out.len() <= 64, "one thing said makes it say {}", out.len());
        while let Some(record) = self.host.poll_unwritten() {
            assert_eq!(record.verify(), Ok(()));
        }
        for item in out {
            match item {
                Item::Network(NetworkOutput::Send { to, contact, bytes }) => self.sent(to, contact, bytes),
                Item::Network(NetworkOutput::Online { peer, .. }) => assert_ne!(peer, key(2)),
                Item::Network(NetworkOutput::Count { request }) => {
                    self.give(Item::Api(ApiInput::Counted { request, counts: Vec::new() }));
                }
                Item::User(line) => {
                    if let Some(counts) = line.strip_prefix("counters ") {
                        let pairs = counts.split(' ').filter_map(|pair| pair.split_once('='));
                        self.counted =
                            pairs.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect();
                    }
                }
                Item::Network(_) => {}
                inner => panic!("{inner:?} is for a service that is here"),
            }
        }
    }

    fn sent(&mut self, to: PublicKey, contact: Option<String>, bytes: Vec<u8>) {
        assert!(bytes.len() <= MAX_MESSAGE, "{} bytes do not fit a frame", bytes.len());
        let message = Message::<RcRef>::from_bytes(&bytes).expect("others can read it");
        assert_eq!(message.to_bytes(), bytes);
        let place = (0..3).find(|place| key(*place) == to);
        match (&message, place) {
            (Message::Auth(_), Some(place)) => {
                if let Some(gate) = self.gates.get_mut(place) {
                    let (peer, link) = (key(ME), LinkId::from(self.streams[place]));
                    let mut out = Vec::new();
                    gate.handle(self.now, GateInput::Received { peer, link, bytes }, &mut out);
                    self.carry(place, out);
                }
            }
            (Message::Ask(ask), Some(place)) => self.asked[place] = Some(ask.id()),
            _ => {}
        }
        assert!(
            place != Some(2) || contact.is_some() || matches!(message, Message::Auth(_)),
            "who has not proved who he is is told nothing"
        );
    }

    /// After the lifetimes of everything it remembers nothing of it.
    fn forgets(&mut self) {
        for _ in 0..3 {
            self.pass(LIFETIME * 2);
        }
        self.command("counters");
        for name in ["waiting", "remembered", "unproven", "challenges", "cached"] {
            let count = self.counted.iter().find(|(one, _)| one == name).map(|(_, count)| *count);
            assert_eq!(count, Some(0), "{name}");
        }
    }
}

fn gate(place: usize) -> Gate<RcRef> {
    let settings = GateSettings {
        me: key(place),
        contact: peer(place).contact,
        seed: [place as u8; 32],
        lifetime: LIFETIME,
        allowed: None,
    };
    Gate::new(settings, signer(place))
}

fn signer(place: usize) -> Signer {
    let identity = identity(place);
    Box::new(move |purpose, bytes| identity.sign_for(purpose, bytes))
}

fn peer(place: usize) -> crust_examples::protocol::kv::Peer {
    let contact = format!("tcp://127.0.0.1:{}?pubkey={}", 1_000 + place, key(place));
    crust_examples::protocol::kv::Peer { key: key(place), contact }
}

fn identity(place: usize) -> Identity {
    Identity::from_seed([place as u8 + 1; 32])
}

fn key(place: usize) -> PublicKey {
    static KEYS: std::sync::LazyLock<[PublicKey; 4]> =
        std::sync::LazyLock::new(|| std::array::from_fn(|place| identity(place).public_key()));
    KEYS[place]
}

/// The node that is tried; the peers are 0 to 2.
const ME: usize = 3;
const LIFETIME: Duration = Duration::from_secs(2);
