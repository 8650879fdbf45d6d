//! The two ends, what lies between them, and time.

use std::collections::BTreeMap;

use super::super::*;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const DELAY: Duration = Duration::from_millis(20);
const AWAITED: Awaited = Awaited { is_owed: true, has_stalled: false, round_trip: Duration::from_millis(40) };
pub(super) const DIALER: usize = 0;
pub(super) const ACCEPTOR: usize = 1;

#[derive(Debug, Clone)]
pub(super) enum Payload {
    Quic(usize),
    Check(Vec<u8>),
}

/// A socket of one side, as the other side sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outside {
    pub(super) side: usize,
    pub(super) socket: usize,
    pub(super) addr: SocketAddr,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) sides: [Paths; 2],
    pub(super) outside: Vec<Outside>,
    pub(super) wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Payload)>,
    count: u64,
    /// Addresses from and to which nothing passes.
    pub(super) cut: Vec<SocketAddr>,
    /// QUIC datagrams and their bytes that arrived, by receiver.
    pub(super) arrived: [u64; 2],
    pub(super) moves: [Vec<Move>; 2],
    /// What went to an address that is nobody's.
    pub(super) to_strangers: Vec<(SocketAddr, Payload)>,
    /// Addresses whose holder hears and answers nothing.
    pub(super) strangers: Vec<SocketAddr>,
    /// What passes through these takes so much longer.
    pub(super) slow: Vec<(SocketAddr, Duration)>,
    /// From the first to the second nothing passes, though it does the other way.
    pub(super) one_way: Vec<(SocketAddr, SocketAddr)>,
    /// Where a NAT gives each destination a port: what that side sends to the first comes from the second.
    pub(super) ports: Vec<(usize, SocketAddr, SocketAddr)>,
}

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn way(socket: usize, to: SocketAddr) -> Way {
    Way { source: UdpSource { socket, addr: to }, local: None }
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    pub(super) fn new() -> Self {
        let (dialer, acceptor) = (addr("198.51.100.1:1000"), addr("203.0.113.2:2000"));
        let seed = |number: u64| Seed::from(number);
        let mut sides =
            [Paths::new(way(1, acceptor), false, seed(1)), Paths::new(way(1, dialer), true, seed(2))];
        let exported: [u8; CheckKeys::BYTES] = std::array::from_fn(|index| index as u8);
        sides[DIALER].connected(CheckKeys::new(&exported, true));
        sides[ACCEPTOR].connected(CheckKeys::new(&exported, false));
        let outside = vec![
            Outside { side: DIALER, socket: 1, addr: dialer },
            Outside { side: ACCEPTOR, socket: 1, addr: acceptor },
        ];
        Self {
            now: Instant::now(),
            sides,
            outside,
            wire: BTreeMap::new(),
            count: 0,
            cut: Vec::new(),
            arrived: [0; 2],
            moves: [Vec::new(), Vec::new()],
            to_strangers: Vec::new(),
            strangers: Vec::new(),
            slow: Vec::new(),
            one_way: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Gives a socket of one side another address outside; what goes to the old one is lost.
    pub(super) fn rebind(&mut self, side: usize, socket: usize, to: &str) {
        self.outside.retain(|known| known.side != side || known.socket != socket);
        self.outside.push(Outside { side, socket, addr: addr(to) });
    }

    fn send(&mut self, side: usize, by: Way, payload: Payload) {
        let from = self.outside.iter().find(|known| known.side == side && known.socket == by.source.socket);
        let from = from.expect("the socket exists").addr;
        let port = self.ports.iter().find(|(of, to, _)| *of == side && *to == by.source.addr);
        self.put(port.map_or(from, |(_, _, port)| *port), by.source.addr, payload);
    }

    pub(super) fn put(&mut self, from: SocketAddr, to: SocketAddr, payload: Payload) {
        let slow = self.slow.iter().filter(|(addr, _)| *addr == from || *addr == to).map(|(_, more)| *more);
        self.put_at(self.now + DELAY + slow.sum::<Duration>(), from, to, payload);
    }

    pub(super) fn put_at(&mut self, at: Instant, from: SocketAddr, to: SocketAddr, payload: Payload) {
        self.count += 1;
        self.wire.insert((at, self.count), (from, to, payload));
    }

    /// Another socket of one side.
    pub(super) fn open(&mut self, side: usize, socket: usize, to: &str) {
        self.outside.push(Outside { side, socket, addr: addr(to) });
    }

    /// A hole that one side has found.
    pub(super) fn offer(&mut self, side: usize, socket: usize, to: &str) {
        let now = self.now;
        self.sides[side].offer(now, way(socket, addr(to)));
        self.flush();
    }

    /// Nobody has anything to say for that long.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    fn send_quic(&mut self, side: usize) {
        let active = self.sides[side].active();
        self.sides[side].sent(self.now);
        self.send(side, active, Payload::Quic(1_200));
    }

    /// Both sides send a datagram every `pace`, for that long.
    pub(super) fn talk(&mut self, time: Duration, pace: Duration) {
        let end = self.now + time;
        let mut next = self.now;
        while self.now < end {
            if self.now >= next {
                self.send_quic(DIALER);
                self.send_quic(ACCEPTOR);
                next = self.now + pace;
            }
            self.step(next.min(end));
        }
    }

    /// Goes on to the next thing that happens, at most to `end`.
    pub(super) fn step(&mut self, end: Instant) {
        self.flush();
        let arrival = self.wire.keys().next().map(|(at, _)| *at);
        let timers = self.sides.iter().filter_map(Paths::poll_timeout);
        let next = timers.chain(arrival).min().unwrap_or(end).min(end);
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from, to, payload) = entry.remove();
            self.deliver(from, to, payload);
        }
        let now = self.now;
        self.sides.iter_mut().for_each(|side| side.handle_timeout(now, AWAITED));
        self.flush();
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: Payload) {
        if self.cut.contains(&from) || self.cut.contains(&to) || self.one_way.contains(&(from, to)) {
            return;
        }
        let Some(outside) = self.outside.iter().find(|known| known.addr == to).copied() else {
            if self.strangers.contains(&to) {
                self.to_strangers.push((to, payload));
            }
            return;
        };
        let by = way(outside.socket, from);
        let now = self.now;
        match payload {
            Payload::Quic(bytes) => {
                self.arrived[outside.side] += 1;
                self.sides[outside.side].handle_datagram(now, by, bytes);
            }
            Payload::Check(bytes) => {
                assert_eq!(peek_tag(&bytes), Some(CheckTag([0, 1, 2, 3, 4, 5, 6, 7])));
                self.sides[outside.side].handle_check(now, by, &bytes);
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        for side in [DIALER, ACCEPTOR] {
            while let Some((by, bytes)) = self.sides[side].poll_transmit() {
                self.send(side, by, Payload::Check(bytes));
            }
            while let Some(moved) = self.sides[side].poll_move() {
                self.moves[side].push(moved);
                // QUIC sends at once after a move.
                self.send_quic(side);
            }
        }
    }

    pub(super) fn remote(&self, side: usize) -> SocketAddr {
        self.sides[side].active().source.addr
    }
}

pub(super) fn length(payload: &Payload) -> usize {
    match payload {
        Payload::Quic(bytes) => *bytes,
        Payload::Check(bytes) => bytes.len(),
    }
}
