//! The part of a call that punches holes for UDP, which is all of it where the caller brings the socket.

use std::{
    net::{self, IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Instant,
};

use nat_traversal::{
    PrivRendezvousInfo, PubRendezvousInfo,
    protocol::{PunchEvent, Seed, SocketIndex, UdpPuncher},
};

use super::{Attempt, Call, Punch};
use crate::{
    PathKind, Scheme, Stream,
    connect_options::ConnectOptions,
    identity::PublicKey,
    io::{
        clock, entropy,
        rendezvous::{
            Hold,
            further::IntroductionNumber,
            half::News,
            punches::{add_relays, begin_punch, reachable},
            road_of,
            traces::{Expected, TcpFinds},
        },
        udp::{SharedMachine, UdpSocket},
    },
    protocol::{
        doors::new_doors,
        offer::Hole,
        precedence::{ANSWER, Told, blind_targets},
    },
    rendezvous::{RendezvousError, RendezvousRoad},
    transport::Shared,
};

/// Meets the peer from one socket alone, which then goes with its last connection.
pub(crate) fn connect_from(
    shared: &Arc<Shared>,
    socket: net::UdpSocket,
    ours: PrivRendezvousInfo,
    peer: PublicKey,
    theirs: &PubRendezvousInfo,
    options: &ConnectOptions,
) -> Result<Stream, RendezvousError> {
    if shared.is_closed() {
        return Err(RendezvousError::Closed);
    }
    let begun = clock::now();
    let deadline = options.deadline_of(begun, shared.config.connect_timeout);
    let endpoints = ours.endpoints().to_vec();
    let keys = ours.agree(theirs).map_err(|_| RendezvousError::Offer)?;
    if peer == shared.public_key {
        return Err(RendezvousError::Offer);
    }
    let slot = shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let expected = Expected::begin(shared, &keys, keys.leads(), peer, options, deadline)?;
    let hold = Hold::new(shared, shared.quic.adopt(shared, socket)?);
    let hole = if hold.socket().local().is_ipv4() { Hole::UdpV4 } else { Hole::UdpV6 };
    let mut call = Call::new(shared, &slot, &expected, Vec::new(), begun, deadline, options);
    let seed = Seed::from_bytes(entropy::bytes());
    let puncher = UdpPuncher::new(begun, &endpoints, theirs.endpoints(), keys, seed);
    let puncher = puncher.options(&options.punch);
    call.punch((None, hole), &hold, puncher, false);
    call.holds.push(hold);
    call.run(&TcpFinds { slot: slot.clone(), found: Mutex::default() }, None)
}

impl Call<'_> {
    pub(super) fn begin_udp(
        &mut self,
        (introduced, hole): (IntroductionNumber, Hole),
        info: PrivRendezvousInfo,
        told: &PubRendezvousInfo,
        hold: Hold,
        how: (bool, bool),
    ) -> Result<(), RendezvousError> {
        let puncher = begin_punch(clock::now(), info, told, how, &self.options.punch)?;
        let (is_direct, peer_has_begun) = how;
        let blindly = self.leads && is_direct && peer_has_begun;
        self.punch((Some(introduced), hole), &hold, puncher, blindly);
        self.holds.push(hold);
        Ok(())
    }

    /// Takes in what either side has learned since.
    pub(super) fn take_news(&mut self, now: Instant) {
        for index in 0..self.introductions.len() {
            self.take_news_of(now, index);
        }
    }

    fn take_news_of(&mut self, now: Instant, index: usize) {
        let introduced = &mut self.introductions[index];
        let Some(News { ours, theirs, relays, vouched, more }) = introduced.half.news() else { return };
        let ways = introduced.half.ways;
        if let Some(theirs) = theirs {
            if introduced.theirs.is_continued_by(&theirs) {
                let doors = new_doors(now, &introduced.theirs, &theirs).into_iter();
                self.doors.extend(doors.filter(|door| ways.contains(PathKind::of(door.remote, false))));
                introduced.theirs = theirs;
            } else {
                tracing::debug!("what the peer said later does not belong to what it said first");
            }
        }
        introduced.more = more || introduced.theirs.more;
        introduced.relays.extend(relays);
        introduced.ours = ours;
        let introduced = &self.introductions[index];
        let its = self.punches.iter_mut().filter(|punch| punch.introduced == Some(introduced.number));
        for Punch { hole, machine, .. } in its {
            let Told { ours, theirs } = introduced.told(*hole);
            if *hole == Hole::UdpV4 {
                add_relays(machine, now, &introduced.relays, (ours, theirs), introduced.relays_from());
            }
            machine.machine_mut().learn(now, ours, &reachable(theirs, ways), introduced.more);
            vouched.iter().for_each(|ip| machine.machine_mut().vouch(now, *ip));
        }
        for (hole, late) in &introduced.late {
            let Told { ours, theirs } = introduced.told(*hole);
            late.tell(ours, theirs, introduced.more);
        }
        self.begin_blindly(now, index, &vouched);
    }

    /// Begins QUIC where the peer's NAT is open to us without doubt, so that the first packet of the handshake need not wait for one of
    /// the peer's.
    fn begin_blindly(&mut self, now: Instant, index: usize, vouched: &[IpAddr]) {
        let introduced = &self.introductions[index];
        let number = introduced.number;
        let mut ways = Vec::new();
        let blindly = self.punches.iter().filter(|punch| punch.blindly && punch.introduced == Some(number));
        for Punch { hole, machine, .. } in blindly {
            let Some(socket) = machine.socket(SocketIndex::MAIN) else { continue };
            let Told { ours, theirs } = introduced.told(*hole);
            let theirs = reachable(theirs, introduced.half.ways);
            let targets = blind_targets(ours, &theirs, vouched, introduced.relay_at_once()).into_iter();
            ways.extend(targets.map(|remote| (socket.clone(), remote)));
        }
        for (socket, remote) in ways {
            let was_begun = self.attempts.iter().any(|attempt| attempt.is_by(&socket, remote));
            let blind = self.attempts.iter().filter(|attempt| attempt.is_blind).count();
            if !was_begun && blind < MAX_BLIND && !self.hold_back(now, Some(number), &socket, remote) {
                self.begin_on(socket, remote);
                self.attempts.iter_mut().next_back().expect("it was begun").is_blind = true;
            }
        }
    }

    /// Begins anew where QUIC was begun blindly, the peer was heard since, and does not answer.
    pub(super) fn begin_again(&mut self, now: Instant) {
        for index in 0..self.attempts.len() {
            let attempt = &mut self.attempts[index];
            if attempt.again.is_none_or(|again| now < again) {
                continue;
            }
            (attempt.again, attempt.is_blind) = (None, false);
            if attempt.dial.as_ref().is_some_and(|dial| !dial.is_answered()) {
                let (road, via) = (attempt.road, attempt.via);
                let socket = self.holds.iter().map(Hold::socket).find(|socket| Some(socket.number()) == via);
                if let Some(socket) = socket.cloned() {
                    self.dial(road, None, Some(socket), None);
                }
            }
        }
    }

    /// When that may be.
    pub(super) fn due_again(&self) -> Option<Instant> {
        self.attempts.iter().filter_map(|attempt| attempt.again).min()
    }

    /// Takes in what came for the punches, and what they found.
    pub(super) fn turn_punches(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.punches.len() {
            let punch = &mut self.punches[index];
            let introduced = punch.introduced;
            let Some(event) = punch.machine.turn(now) else {
                index += 1;
                continue;
            };
            match event {
                PunchEvent::Heard { socket, peer } => {
                    if let Some(socket) = punch.machine.socket(socket).cloned() {
                        self.way_found(now, introduced, socket, peer, false);
                    }
                }
                PunchEvent::Punched { socket, peer } => {
                    let Punch { machine, .. } = self.punches.swap_remove(index);
                    // The leader asks; it comes to the follower, on this very socket.
                    self.may_be_asked |= !self.leads;
                    if let Some(socket) = machine.socket(socket).cloned() {
                        self.way_found(now, introduced, socket, peer, true);
                    }
                }
                PunchEvent::Hopeless(obstacle) => {
                    let Punch { hole, .. } = self.punches.swap_remove(index);
                    self.fail(road_of(hole), self.begun, &obstacle);
                }
            }
        }
    }

    /// There is a hole, if it is proved; else all but certainly one.
    pub(super) fn way_found(
        &mut self,
        now: Instant,
        introduced: Option<IntroductionNumber>,
        socket: Arc<UdpSocket>,
        remote: SocketAddr,
        is_proved: bool,
    ) {
        let begun = |attempt: &&mut Attempt| attempt.dial.is_some() && attempt.is_by(&socket, remote);
        if let Some(attempt) = self.attempts.iter_mut().find(begun) {
            if attempt.is_blind {
                let again = if is_proved { now } else { now + ANSWER };
                attempt.again = Some(attempt.again.map_or(again, |known| known.min(again)));
            }
            return;
        }
        if !(self.leads && self.hold_back(now, introduced, &socket, remote)) {
            self.begin_on(socket, remote);
        }
    }

    /// The leader dials; the other is dialled.
    fn begin_on(&mut self, socket: Arc<UdpSocket>, remote: SocketAddr) {
        tracing::debug!(%remote, local = %socket.local(), leads = self.leads, "a hole for QUIC");
        let road = RendezvousRoad::Punched { scheme: Scheme::Quic, remote: Some(remote) };
        socket.note_punched(remote, self.is_relayed(remote));
        self.holds.push(Hold::new(self.shared, socket.clone()));
        if self.leads {
            self.dial(road, None, Some(socket), None);
        }
    }

    fn punch(
        &mut self,
        (introduced, hole): (Option<IntroductionNumber>, Hole),
        hold: &Hold,
        puncher: UdpPuncher,
        blindly: bool,
    ) {
        let puncher = if self.leads { puncher.tell_heard() } else { puncher };
        let machine = SharedMachine::new(self.shared, self.slot, hold.socket(), puncher);
        self.punches.push(Punch { introduced, hole, machine, blindly });
    }
}

impl Attempt {
    /// Whether it goes through that hole.
    fn is_by(&self, socket: &UdpSocket, remote: SocketAddr) -> bool {
        let road = RendezvousRoad::Punched { scheme: Scheme::Quic, remote: Some(remote) };
        self.road == road && self.via == Some(socket.number())
    }
}

/// Ways on which QUIC begins before the peer is heard, however many the peer names in time.
const MAX_BLIND: usize = 4;
