//! Two nodes, with real QUIC, and somebody on the way between them who keeps what passes and sends it again from elsewhere; in virtual time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nat_traversal::protocol::{Datagram, Seed, SocketIndex};

use super::{Node, NodeConfig, NodeEvent, StreamId};
use crate::{Identity, ProtocolLabel};

const MS: Duration = Duration::from_millis(1);
const DELAY: Duration = Duration::from_millis(20);
const DIALER: usize = 0;
const ACCEPTOR: usize = 1;

/// What the one on the way does with each datagram for that side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    Keeps,
    /// Sends a copy at once, which overtakes the original.
    Overtakes(usize),
    /// Sends a copy so long after the original.
    Repeats(usize, Duration),
}

struct Way {
    now: Instant,
    nodes: [Node; 2],
    /// Where each is reached.
    places: [SocketAddr; 2],
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    count: u64,
    attack: Attack,
    /// All that has passed, by whom it was for.
    captured: [Vec<Vec<u8>>; 2],
    attacker: SocketAddr,
    sent: usize,
    drawn: usize,
    /// Who hears nothing more.
    is_gone: [bool; 2],
}

impl Way {
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let places = ["198.51.100.1:1000", "203.0.113.2:2000"].map(|place| place.parse().unwrap());
        let nodes = [0_u8, 1].map(|side| {
            let config = NodeConfig {
                local: places[usize::from(side)],
                listens: true,
                dead_after: Duration::from_secs(30),
                servers: Vec::new(),
                rank: side,
            };
            let seed = Seed::from(seed * 2 + u64::from(side));
            Node::new(now, Identity::from_seed([side + 1; 32]), config, &seed)
        });
        Self {
            now,
            nodes,
            places,
            wire: BTreeMap::new(),
            count: 0,
            attack: Attack::Keeps,
            captured: [Vec::new(), Vec::new()],
            attacker: "192.0.2.66:666".parse().unwrap(),
            sent: 0,
            drawn: 0,
            is_gone: [false; 2],
        }
    }

    /// Dials, and gives both ends of the stream.
    fn meet(&mut self) -> [StreamId; 2] {
        let (now, peer) = (self.now, self.nodes[ACCEPTOR].public_key());
        self.nodes[DIALER].dial(now, self.places[ACCEPTOR], peer, &ProtocolLabel::default());
        let mut ends = [None; 2];
        for _ in 0..1_000 {
            self.pass(MS);
            while let Some(event) = self.nodes[DIALER].poll_event() {
                if let NodeEvent::Dialled(_, outcome) = event {
                    ends[DIALER] = Some(outcome.unwrap());
                }
            }
            while let Some(event) = self.nodes[ACCEPTOR].poll_event() {
                if let NodeEvent::Accepted(stream) = event {
                    ends[ACCEPTOR] = Some(stream);
                }
            }
            if let [Some(ours), Some(theirs)] = ends {
                return [ours, theirs];
            }
        }
        panic!("they did not meet");
    }

    fn put(&mut self, at: Instant, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.count += 1;
        self.wire.insert((at, self.count), (from, to, bytes));
    }

    fn replay(&mut self, side: usize, bytes: Vec<u8>) {
        self.put(self.now, self.attacker, self.places[side], bytes);
    }

    fn flush(&mut self) {
        for side in [DIALER, ACCEPTOR] {
            while let Some(transmit) = self.nodes[side].poll_transmit() {
                let (from, to, bytes) = (self.places[side], transmit.destination, transmit.bytes);
                let now = self.now;
                if to == self.places[1 - side] {
                    self.captured[1 - side].push(bytes.clone());
                    match self.attack {
                        Attack::Overtakes(whom) if whom == 1 - side => {
                            self.put(now + DELAY / 2, self.attacker, to, bytes.clone());
                        }
                        Attack::Repeats(whom, later) if whom == 1 - side => {
                            self.put(now + DELAY + later, self.attacker, to, bytes.clone());
                        }
                        _ => {}
                    }
                }
                self.put(now + DELAY, from, to, bytes);
            }
        }
    }

    /// Lets time pass. At every moment the attacker has drawn no more than it may.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.flush();
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let timers = self.nodes.iter().filter_map(Node::poll_timeout);
            self.now = timers.chain(arrival).min().unwrap_or(end).clamp(self.now, end);
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, bytes) = entry.remove();
                self.deliver(from, to, &bytes);
                self.flush();
            }
            let now = self.now;
            self.nodes.iter_mut().for_each(|node| node.handle_timeout(now));
        }
        self.flush();
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if from == self.attacker {
            self.sent += bytes.len();
        }
        if to == self.attacker {
            self.drawn += bytes.len();
            assert!(self.drawn <= 3 * self.sent, "{} bytes drawn by {}", self.drawn, self.sent);
        }
        if let Some(side) = (0..2).find(|side| self.places[*side] == to && !self.is_gone[*side]) {
            let datagram = Datagram { socket: SocketIndex::MAIN, source: from, bytes };
            self.nodes[side].handle_datagram(self.now, datagram);
        }
    }

    /// Sends a block each way every ten milliseconds, and compares what comes.
    fn talk(&mut self, ends: [StreamId; 2], blocks: usize) {
        let (mut sent, mut got) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for number in 0..blocks + 50 {
            for side in [DIALER, ACCEPTOR] {
                if number < blocks {
                    let block = format!("block {number} of side {side};").repeat(20).into_bytes();
                    self.nodes[side].write(self.now, ends[side], &block);
                    sent[side].extend(block);
                }
            }
            self.pass(MS * 10);
            for side in [DIALER, ACCEPTOR] {
                got[side].extend(self.nodes[side].read(ends[side]));
                let (_, remote) = self.nodes[side].path(ends[side]).unwrap();
                assert_eq!(remote, self.places[1 - side], "nothing has moved");
            }
        }
        assert!(got[DIALER] == sent[ACCEPTOR] && got[ACCEPTOR] == sent[DIALER], "nothing is lost");
    }
}

#[test]
fn what_was_captured_and_is_sent_again_from_elsewhere_moves_nothing_and_draws_three_times_its_bytes_at_most()
{
    for seed in 0..4 {
        let mut way = Way::new(seed);
        let ends = way.meet();
        way.talk(ends, 30);
        // The handshake and all that followed, in order and then backwards, while they talk and while they do not.
        for side in [ACCEPTOR, DIALER] {
            let captured = way.captured[side].clone();
            assert!(captured.len() > 30, "{}", captured.len());
            for bytes in captured.iter().chain(captured.iter().rev()).cycle().take(captured.len() * 4) {
                way.replay(side, bytes.clone());
                way.pass(MS * 2);
            }
            way.talk(ends, 20);
            for bytes in captured {
                way.replay(side, bytes);
            }
            way.talk(ends, 20);
        }
        assert!(way.sent > 100_000 && way.drawn > 0, "{} bytes drawn by {}", way.drawn, way.sent);
    }
}

/// RFC 9000 §9.3.3: the copy is new when it comes, and the original an old one.
#[test]
fn a_copy_that_overtakes_its_original_moves_nothing_either() {
    for attack in [
        Attack::Overtakes(ACCEPTOR),
        Attack::Overtakes(DIALER),
        Attack::Repeats(ACCEPTOR, MS * 3),
        Attack::Repeats(DIALER, MS * 300),
    ] {
        let mut way = Way::new(7);
        let ends = way.meet();
        way.talk(ends, 10);
        way.attack = attack;
        way.talk(ends, 200);
        // The last copies come when nobody speaks.
        way.pass(MS * 3_000);
        way.attack = Attack::Keeps;
        way.talk(ends, 20);
        assert!(way.sent > 10_000, "{attack:?}: {} bytes", way.sent);
    }
}

/// Who only receives owes nothing and waits for nothing, and yet looks at once when what came steadily has stopped.
#[test]
fn who_only_receives_misses_a_peer_that_is_gone_within_a_second() {
    let mut way = Way::new(3);
    let ends = way.meet();
    for _ in 0..100 {
        way.nodes[ACCEPTOR].write(way.now, ends[ACCEPTOR], &[7; 1_000]);
        way.pass(MS * 5);
    }
    way.is_gone = [true; 2];
    let gone = way.now;
    while !(0..2).all(|side| way.nodes[side].is_cut_off(ends[side])) {
        way.pass(MS);
        assert!(way.now < gone + MS * 1_000, "not missed after {:?}", way.now - gone);
    }
}
