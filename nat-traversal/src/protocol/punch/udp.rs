use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::check::{self, Check};
use super::plan::plan;
use super::spray::Shot;
use super::{Obstacle, PunchKeys};
use crate::protocol::stun::TransactionId;
use crate::protocol::{Datagram, Due, Machine, MappedSocketAddr, Random, Retry, Seed, SocketIndex, Transmit};

mod late;
mod path;
mod spraying;

use late::Late;
use path::Path;
use spraying::Spraying;

/// Punches a hole for UDP.
///
/// Both peers run one, at about the same time, with keys that fit. It first opens its own NAT with packets that do not
/// get as far as the peer's, then sends checks to all addresses that are worth it. When a check is answered by the peer,
/// the way works both ways; the peer that [leads](PunchKeys::leads) then chooses it, and both give
/// [`PunchEvent::Punched`].
///
/// ```text
///            check answered                        answered, or asked often enough
/// Checking ─────────────────► Nominating (leader) ─────────────────────────────────► Done
///     │      chosen by the peer                        answered thrice
///     └──────────────────────► Accepting (follower) ───────────────────────────────► Done
/// ```
#[derive(Debug)]
pub struct UdpPuncher {
    keys: PunchKeys,
    random: Random,
    openers: VecDeque<SocketAddr>,
    opener_hops: u8,
    paths: Vec<Path>,
    spraying: Spraying,
    obstacle: Option<Obstacle>,
    same_nat: bool,
    /// Requests of the peer and where they came from: one that comes again from elsewhere is a replay.
    requests: VecDeque<(TransactionId, SocketAddr)>,
    /// When the next packet may go out that is no answer.
    free: Instant,
    state: State,
    transmits: VecDeque<Transmit>,
    events: VecDeque<PunchEvent>,
    late: Late,
}

/// What a [`UdpPuncher`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PunchEvent {
    /// There is a hole: packets between this socket and this address of the peer pass both ways.
    Punched {
        /// The socket.
        socket: SocketIndex,
        /// The peer's address.
        peer: SocketAddr,
    },
    /// A packet of the peer came by this way, so that packets to there will likely arrive: what this machine does not
    /// wait for may be tried at once. The punch goes on. Only told if [asked for](UdpPuncher::tell_heard), of the first few ways.
    Heard {
        /// The socket.
        socket: SocketIndex,
        /// The peer's address.
        peer: SocketAddr,
    },
    /// It cannot work, and waiting does not help.
    Hopeless(Obstacle),
}

#[derive(Debug)]
enum State {
    Checking,
    Nominating { path: usize, retry: Retry, asked: Vec<TransactionId> },
    Accepting { socket: SocketIndex, peer: SocketAddr, transaction: TransactionId, copies: Retry },
    Done,
}

impl UdpPuncher {
    /// Begins at `now`, with the addresses that each side has told the other.
    #[must_use]
    pub fn new(
        now: Instant,
        ours: &[MappedSocketAddr],
        theirs: &[MappedSocketAddr],
        keys: PunchKeys,
        seed: Seed,
    ) -> Self {
        let plan = plan(ours, theirs);
        let first = now + OPENING;
        let paths = plan.targets.iter().map(|to| Path::to_candidate(SocketIndex::MAIN, *to, first)).collect();
        let mut puncher = Self {
            keys,
            random: Random::new(seed),
            openers: plan.targets.into(),
            opener_hops: OPENER_HOPS,
            paths,
            spraying: Spraying::new(),
            obstacle: plan.obstacle,
            same_nat: plan.same_nat,
            requests: VecDeque::new(),
            free: now,
            state: State::Checking,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            late: Late::default(),
        };
        puncher.spraying.learn(now, &plan.sprays);
        if let Some(obstacle) = plan.obstacle {
            puncher.events.push_back(PunchEvent::Hopeless(obstacle));
            puncher.state = State::Done;
        }
        puncher
    }

    /// Lets the packets that open our own NATs pass so many routers: one more than the outermost NAT is away, as
    /// [`NatProfile::nat_distance`](crate::NatProfile::nat_distance) tells. Unless told, plain openers pass the nearest router
    /// and those of a spray some more. Call it before anything else.
    #[must_use]
    pub fn opener_hops(mut self, hops: u8) -> Self {
        self.opener_hops = hops.max(OPENER_HOPS);
        self.spraying.set_hops(self.opener_hops);
        self
    }

    /// What stands in the way as far as can be seen now.
    #[must_use]
    pub fn obstacle(&self) -> Obstacle {
        let heard = self.paths.iter().any(|path| path.heard);
        match self.obstacle {
            Some(obstacle) => obstacle,
            None if heard => Obstacle::NotAnswered,
            None if self.same_nat => Obstacle::SameNat,
            None if self.spraying.is_held_back() => Obstacle::NotVouched,
            None => Obstacle::NothingHeard,
        }
    }

    fn handle_request(&mut self, now: Instant, datagram: &Datagram<'_>, id: TransactionId, nominates: bool) {
        let elsewhere =
            |(known, source): &(TransactionId, SocketAddr)| *known == id && *source != datagram.source;
        if self.requests.iter().any(elsewhere) {
            return tracing::debug!(source = %datagram.source, "a replayed check");
        }
        if self.requests.len() >= REMEMBERED {
            self.requests.pop_front();
        }
        self.requests.push_back((id, datagram.source));
        let Some(index) = self.path_for(datagram.socket, datagram.source) else { return };
        self.send_answer(datagram.socket, datagram.source, id);
        if matches!(self.state, State::Checking) {
            if self.paths[index].hear(now) {
                self.tell_way(index);
            }
            if nominates && !self.keys.leads {
                tracing::debug!(peer = %datagram.source, "the peer has chosen");
                let copies = Retry::with(now + COPY_GAP, COPY_GAP, COPIES, Duration::ZERO);
                self.state = State::Accepting {
                    socket: datagram.socket,
                    peer: datagram.source,
                    transaction: id,
                    copies,
                };
            } else if self.paths[index].is_due(now) {
                // Not paced: the peer has shown that it wants it.
                let id = TransactionId::draw(&mut self.random);
                self.send_check(now, index, id, false);
            }
        }
    }

    fn handle_answer(&mut self, now: Instant, datagram: &Datagram<'_>, id: TransactionId) {
        let way = |path: &Path| path.socket == datagram.socket && path.remote == datagram.source;
        let Some(index) = self.paths.iter().position(way) else { return };
        let was_heard = self.paths[index].heard;
        if !self.paths[index].answer(now, id) {
            return;
        }
        // The peer's own checks may come later, or not at all by this way.
        if matches!(self.state, State::Checking) && !was_heard {
            self.tell_way(index);
        }
        match &self.state {
            State::Checking if self.keys.leads => {
                let round_trip = self.paths[index].round_trip.unwrap_or(NOMINATION_WAIT);
                let wait = (round_trip * 3 / 2).clamp(NOMINATION_WAIT, NOMINATION_WAIT * 8);
                tracing::debug!(peer = %datagram.source, ?round_trip, "choosing a way");
                let retry = Retry::with(now, wait, NOMINATIONS, wait);
                self.state = State::Nominating { path: index, retry, asked: Vec::new() };
                self.spraying.end();
                self.go_on(now);
            }
            // Not by a late answer to an earlier check: the peer must know which way was chosen.
            State::Nominating { path, asked, .. } if *path == index && asked.contains(&id) => {
                self.finish(index)
            }
            _ => {}
        }
    }

    /// The way that a packet of the peer came by, made known if there is room.
    fn path_for(&mut self, socket: SocketIndex, remote: SocketAddr) -> Option<usize> {
        let way = |path: &Path| path.socket == socket && path.remote == remote;
        if let Some(index) = self.paths.iter().position(way) {
            return Some(index);
        }
        if self.paths.len() >= MAX_PATHS {
            return None;
        }
        self.paths.push(Path::unknown(socket, remote));
        Some(self.paths.len() - 1)
    }

    /// Sends what the state asks for and is due.
    fn go_on(&mut self, now: Instant) {
        match &mut self.state {
            State::Checking => self.send_due_checks(now),
            State::Nominating { path, retry, asked } => {
                let index = *path;
                match retry.poll(now) {
                    Due::Send => {
                        let id = TransactionId::draw(&mut self.random);
                        asked.push(id);
                        self.send_check(now, index, id, true);
                    }
                    // The way works both ways, so it is all but certain that only answers got lost, and the peer
                    // uses it already.
                    Due::GiveUp => self.finish(index),
                    Due::Nothing => {}
                }
            }
            State::Accepting { socket, peer, transaction, copies } => {
                let (socket, peer, transaction) = (*socket, *peer, *transaction);
                match copies.poll(now) {
                    Due::Send => self.send_answer(socket, peer, transaction),
                    Due::GiveUp => self.punched(socket, peer),
                    Due::Nothing => {}
                }
            }
            State::Done => {}
        }
    }

    fn send_due_checks(&mut self, now: Instant) {
        if now < self.free {
            return;
        }
        if let Some(target) = self.openers.pop_front() {
            let id = TransactionId::draw(&mut self.random);
            let bytes = check::request(&self.keys, id, false);
            let hops = Some(self.opener_hops);
            self.transmits.push_back(Transmit {
                socket: SocketIndex::MAIN,
                destination: target,
                bytes,
                hops,
            });
            self.free = now + PACE;
        } else if let Some(index) = (0..self.paths.len()).find(|index| self.paths[*index].is_due(now)) {
            let id = TransactionId::draw(&mut self.random);
            self.send_check(now, index, id, false);
            self.free = now + PACE;
        } else if let Some(Shot { from, to, hops }) = self.next_of_spray(now) {
            let id = TransactionId::draw(&mut self.random);
            let bytes = check::request(&self.keys, id, false);
            self.transmits.push_back(Transmit { socket: from, destination: to, bytes, hops });
        }
    }

    fn next_of_spray(&mut self, now: Instant) -> Option<Shot> {
        if self.paths.iter().any(|path| path.heard) {
            return None;
        }
        self.spraying.next(now, &mut self.random)
    }

    fn send_check(&mut self, now: Instant, index: usize, id: TransactionId, nominates: bool) {
        let path = &mut self.paths[index];
        path.ask(now, id);
        let bytes = check::request(&self.keys, id, nominates);
        self.transmits.push_back(Transmit {
            socket: path.socket,
            destination: path.remote,
            bytes,
            hops: None,
        });
    }

    fn send_answer(&mut self, socket: SocketIndex, destination: SocketAddr, id: TransactionId) {
        let bytes = check::answer(&self.keys, id, destination);
        self.transmits.push_back(Transmit { socket, destination, bytes, hops: None });
    }

    fn finish(&mut self, index: usize) {
        let path = &self.paths[index];
        let (socket, peer) = (path.socket, path.remote);
        self.punched(socket, peer);
    }

    fn punched(&mut self, socket: SocketIndex, peer: SocketAddr) {
        self.state = State::Done;
        self.events.push_back(PunchEvent::Punched { socket, peer });
    }
}

impl Machine for UdpPuncher {
    type Event = PunchEvent;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        match check::decode(&self.keys, datagram.bytes) {
            Some((id, Check::Request { nominates })) => self.handle_request(now, &datagram, id, nominates),
            Some((id, Check::Answer)) => self.handle_answer(now, &datagram, id),
            None => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.go_on(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Checking => {
                let opener = (!self.openers.is_empty()).then_some(self.free);
                let check = self.paths.iter().filter_map(Path::timeout).min();
                let quiet = !self.paths.iter().any(|path| path.heard);
                let spray = self.spraying.timeout().filter(|_| quiet);
                let next = [opener, check, spray].into_iter().flatten().min()?;
                Some(next.max(self.free))
            }
            State::Nominating { retry, .. } => Some(retry.timeout()),
            State::Accepting { copies, .. } => Some(copies.timeout()),
            State::Done => None,
        }
    }

    fn poll_event(&mut self) -> Option<PunchEvent> {
        self.events.pop_front()
    }
}

/// How long the openers have before the first packet that reaches the peer's NAT. A router that takes a stranger's
/// packet for its own then keeps that stranger out, so both sides must have opened their NATs first: they may begin that
/// far apart, and the time a packet takes.
const OPENING: Duration = Duration::from_millis(40);

/// An opener passes our own router and dies at the next one, far from the peer's.
const OPENER_HOPS: u8 = 2;

/// Between two packets of ours; the least that RFC 8445, section 14.2 allows.
const PACE: Duration = Duration::from_millis(5);

/// Nominations sent, and the shortest wait after the first.
const NOMINATIONS: u32 = 5;
const NOMINATION_WAIT: Duration = Duration::from_millis(50);

/// The answer to a nomination is sent again that often and after such gaps, because we are gone afterwards and could not
/// answer if it got lost.
const COPIES: u32 = 2;
const COPY_GAP: Duration = Duration::from_millis(10);

/// Ways known: those to candidates and predicted ports, and those that the peer shows us.
const MAX_PATHS: usize = 256;

/// Requests of the peer remembered; it sends fewer within the life of a punch, but for a spray of which one counts.
const REMEMBERED: usize = 512;
