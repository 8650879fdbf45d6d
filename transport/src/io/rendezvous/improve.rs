//! A connection that is there already gets a better path: the same punch, whose hole is offered instead of dialled.

use std::{fmt::Display, sync::Arc, time::Instant};

use nat_traversal::protocol::{PunchEvent, UdpPuncher};

use super::{
    Hold,
    half::{Half, News, PunchSocket},
    punches::{add_relays, begin_punch, reachable},
    road_of,
};
use crate::{
    PathKind, StreamError,
    connect_options::ConnectOptions,
    io::{clock, crank::Waited, quic::ConnectionRef, slot::Slot, udp::SharedMachine},
    path::Path,
    protocol::{
        offer::{Hole, Offer},
        paths::UdpSource,
        punching::RELAYS_AFTER,
        search::{Search, Standing},
    },
    rendezvous::{RendezvousError, RendezvousFailure},
};

/// For a connection over a relay, which is to go without one.
pub(crate) fn improve(
    half: &Half,
    theirs: &Offer,
    connection: &ConnectionRef,
    options: &ConnectOptions,
) -> Result<Path, RendezvousError> {
    find(half, connection, options, Search::improving(half.ways, theirs.clone(), standing(connection)))
}

/// For one that is cut off, which takes what there is.
pub(crate) fn rescue(
    half: &Half,
    theirs: &Offer,
    connection: &ConnectionRef,
    options: &ConnectOptions,
) -> Result<Path, RendezvousError> {
    find(half, connection, options, Search::rescuing(half.ways, theirs.clone(), standing(connection)))
}

fn standing(connection: &ConnectionRef) -> Standing {
    let path = connection.path();
    let (way, is_cut_off) = (connection.way(), connection.is_cut_off());
    Standing { way, kind: path.kind, changes: path.changes, is_cut_off }
}

fn find(
    half: &Half,
    connection: &ConnectionRef,
    options: &ConnectOptions,
    search: Search,
) -> Result<Path, RendezvousError> {
    let shared = &half.shared;
    let begun = clock::now();
    let deadline = options.deadline_of(begun, shared.config.connect_timeout);
    if search.theirs().public_key != connection.public_key() {
        return Err(RendezvousError::Offer);
    }
    let slot = shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let ours = half.begin(&slot).ok_or(RendezvousError::Full)?;
    let (mut holds, mut punches) = (Vec::new(), Vec::new());
    for (open, info) in ours.holes {
        let PunchSocket::Udp(hold) = open.socket else { continue };
        let theirs = search.theirs();
        if let Some(told) = &theirs.holes[open.hole as usize] {
            let how = (open.is_direct, ours.second && !theirs.second);
            let puncher = begin_punch(begun, info, told, how, &options.punch)?;
            punches.push((open.hole, SharedMachine::new(shared, &slot, hold.socket(), puncher)));
        }
        holds.push(hold);
    }
    let mut finding =
        Finding { half, connection, search, begun, relays: Vec::new(), punches, failures: Vec::new() };
    connection.watch_path(&slot);
    let result = finding.run(&slot, deadline, options, &mut holds);
    connection.unwatch_path(&slot);
    result
}

struct Finding<'s> {
    half: &'s Half,
    connection: &'s ConnectionRef,
    search: Search,
    begun: Instant,
    /// Ours, in the order of their numbers.
    relays: Vec<Hold>,
    punches: Vec<(Hole, SharedMachine<UdpPuncher>)>,
    failures: Vec<RendezvousFailure>,
}

impl Finding<'_> {
    fn run(
        &mut self,
        slot: &Arc<Slot>,
        deadline: Instant,
        options: &ConnectOptions,
        holds: &mut Vec<Hold>,
    ) -> Result<Path, RendezvousError> {
        loop {
            let now = clock::now();
            self.take_news(now);
            self.turn_punches(now, holds);
            if self.search.is_over(standing(self.connection)) {
                return Ok(self.connection.path());
            }
            if let Some(error) = self.connection.end_error() {
                return Err(RendezvousError::Stream(error));
            }
            if options.is_interrupted() {
                return Err(RendezvousError::Interrupted);
            }
            if now >= deadline || self.search.is_hopeless(!self.punches.is_empty()) {
                return Err(self.failed(now));
            }
            let due = self.punches.iter().filter_map(|(_, machine)| machine.timeout());
            if let Waited::Closed = self.connection.shared().crank.wait(slot, due.chain([deadline]).min()) {
                return Err(RendezvousError::Stream(StreamError::Closed));
            }
        }
    }

    fn take_news(&mut self, now: Instant) {
        let Some(News { ours, theirs, relays, vouched, more }) = self.half.news() else { return };
        let wanted = self.search.wanted();
        if wanted.contains(PathKind::Relayed) {
            self.relays.extend(relays);
        }
        self.search.learn(theirs, ours, more);
        for (hole, machine) in &mut self.punches {
            let (ours, theirs) = (self.search.ours(*hole), self.search.theirs().endpoints(*hole));
            if *hole == Hole::UdpV4 {
                add_relays(machine, now, &self.relays, (ours, theirs), self.begun + RELAYS_AFTER);
            }
            let theirs = reachable(theirs, wanted);
            machine.machine_mut().learn(now, ours, &theirs, self.search.more());
            vouched.iter().for_each(|ip| machine.machine_mut().vouch(now, *ip));
        }
    }

    fn turn_punches(&mut self, now: Instant, holds: &mut Vec<Hold>) {
        let mut index = 0;
        while index < self.punches.len() {
            let Some(event) = self.punches[index].1.turn(now) else {
                index += 1;
                continue;
            };
            if let PunchEvent::Heard { .. } = event {
                continue;
            }
            let (hole, machine) = self.punches.swap_remove(index);
            match event {
                PunchEvent::Heard { .. } => {}
                PunchEvent::Punched { socket, peer } => {
                    let Some(socket) = machine.socket(socket).cloned() else { continue };
                    tracing::debug!(remote = %peer, "punched a hole for a connection that is there");
                    socket.note_punched(peer, self.search.theirs().is_relayed(peer));
                    holds.push(Hold::new(self.connection.shared(), socket.clone()));
                    self.connection.offer_path(&socket, peer);
                    self.search.offered(UdpSource { socket: socket.number(), addr: peer });
                }
                PunchEvent::Hopeless(obstacle) => self.fail(hole, now, &obstacle),
            }
        }
    }

    fn fail(&mut self, hole: Hole, now: Instant, reason: &dyn Display) {
        self.failures.push(RendezvousFailure::new(road_of(hole), self.begun, now, reason));
    }

    fn failed(&mut self, now: Instant) -> RendezvousError {
        for (hole, machine) in std::mem::take(&mut self.punches) {
            self.fail(hole, now, &machine.machine().obstacle());
        }
        RendezvousError::Failed {
            peer: self.search.theirs().public_key,
            waited: now.saturating_duration_since(self.begun),
            failures: std::mem::take(&mut self.failures),
        }
    }
}
