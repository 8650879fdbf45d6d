//! The part of a call that punches holes for UDP, which is all of it where the caller brings the socket.

use std::{
    net::{self, SocketAddr},
    sync::{Arc, Mutex},
    time::Instant,
};

use nat_traversal::{
    PrivRendezvousInfo, PubRendezvousInfo,
    protocol::{PunchEvent, Seed, UdpPuncher},
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
            doors::new_doors,
            half::News,
            punches::{add_relays, begin_punch, reachable},
            road_of,
            traces::{Expected, TcpFinds},
        },
        udp::{SharedMachine, UdpSocket},
    },
    path::PathKinds,
    protocol::offer::Hole,
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
    call.punch(hole, &hold, puncher);
    call.holds.push(hold);
    call.run(&TcpFinds { slot: slot.clone(), found: Mutex::default() })
}

impl Call<'_> {
    pub(super) fn begin_udp(
        &mut self,
        hole: Hole,
        info: PrivRendezvousInfo,
        told: &PubRendezvousInfo,
        hold: Hold,
        how: (bool, bool),
        ways: PathKinds,
    ) -> Result<(), RendezvousError> {
        let puncher = begin_punch(self.begun, info, told, how, ways, &self.options.punch)?;
        self.punch(hole, &hold, puncher);
        self.holds.push(hold);
        Ok(())
    }

    /// Takes in what either side has learned since.
    pub(super) fn take_news(&mut self, now: Instant) {
        let (Some(half), Some(told)) = (self.half, &mut self.theirs) else { return };
        let Some(News { ours, theirs, relays, vouched, more }) = half.news() else { return };
        if let Some(theirs) = theirs {
            if told.is_continued_by(&theirs) {
                let doors = new_doors(now, told, &theirs).into_iter();
                self.doors.extend(doors.filter(|door| half.ways.contains(PathKind::of(door.remote, false))));
                *told = theirs;
            } else {
                tracing::debug!("what the peer said later does not belong to what it said first");
            }
        }
        self.more = more || told.more;
        self.relays.extend(relays);
        let known = |of: Hole| ours.iter().find(|(hole, _)| *hole == of).map_or(&[][..], |(_, all)| all);
        for Punch { hole, machine } in &mut self.punches {
            let theirs = told.endpoints(*hole);
            if *hole == Hole::UdpV4 {
                add_relays(machine, now, &self.relays, theirs, self.begun + half.relays_after);
            }
            machine.machine_mut().learn(now, known(*hole), &reachable(theirs, half.ways), self.more);
            vouched.iter().for_each(|ip| machine.machine_mut().vouch(now, *ip));
        }
        for (hole, late) in &self.late {
            late.tell(known(*hole), told.endpoints(*hole), self.more);
        }
    }

    /// Whether the peer has that address at a relay.
    pub(super) fn is_relayed(&self, remote: SocketAddr) -> bool {
        self.theirs.as_ref().is_some_and(|theirs| theirs.is_relayed(remote))
    }

    /// Takes in what came for the punches, and what they found.
    pub(super) fn turn_punches(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.punches.len() {
            let punch = &mut self.punches[index];
            let Some(event) = punch.machine.turn(now) else {
                index += 1;
                continue;
            };
            match event {
                PunchEvent::Heard { socket, peer } => {
                    let socket = punch.machine.socket(socket).cloned();
                    self.udp_found(socket, peer);
                }
                PunchEvent::Punched { socket, peer } => {
                    let Punch { machine, .. } = self.punches.swap_remove(index);
                    // The leader asks; it comes to the follower, on this very socket.
                    self.may_be_asked |= !self.leads;
                    self.udp_found(machine.socket(socket).cloned(), peer);
                }
                PunchEvent::Hopeless(obstacle) => {
                    let Punch { hole, .. } = self.punches.swap_remove(index);
                    self.fail(road_of(hole), self.begun, &obstacle);
                }
            }
        }
    }

    /// There is a hole, or all but certainly one.
    fn udp_found(&mut self, socket: Option<Arc<UdpSocket>>, remote: SocketAddr) {
        let Some(socket) = socket else { return };
        let road = RendezvousRoad::Punched { scheme: Scheme::Quic, remote: Some(remote) };
        let same = |attempt: &Attempt| {
            attempt.road == road && attempt.via == Some(socket.number()) && attempt.dial.is_some()
        };
        if self.attempts.iter().any(same) {
            return;
        }
        tracing::debug!(%remote, local = %socket.local(), leads = self.leads, "punched a hole for QUIC");
        socket.note_punched(remote, self.is_relayed(remote));
        self.holds.push(Hold::new(self.shared, socket.clone()));
        if self.leads {
            self.dial(road, None, Some(socket), None);
        }
    }

    fn punch(&mut self, hole: Hole, hold: &Hold, puncher: UdpPuncher) {
        let puncher = if self.leads { puncher.tell_heard() } else { puncher };
        let machine = SharedMachine::new(self.shared, self.slot, hold.socket(), puncher);
        self.punches.push(Punch { hole, machine });
    }
}
