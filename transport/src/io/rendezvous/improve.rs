//! A connection that is there already gets a better path: the same punch, whose hole is offered instead of dialled.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

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
    path::{Path, PathKinds},
    protocol::{
        offer::{Hole, Offer},
        paths::UdpSource,
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
    let wanted: PathKinds = DIRECT.into_iter().filter(|kind| half.ways.contains(*kind)).collect();
    let takes_others = !wanted.contains(connection.path().kind);
    find(half, theirs, connection, options, (wanted, takes_others))
}

/// For one that is cut off, which takes what there is.
pub(crate) fn rescue(
    half: &Half,
    theirs: &Offer,
    connection: &ConnectionRef,
    options: &ConnectOptions,
) -> Result<Path, RendezvousError> {
    find(half, theirs, connection, options, (half.ways, true))
}

fn find(
    half: &Half,
    theirs: &Offer,
    connection: &ConnectionRef,
    options: &ConnectOptions,
    (wanted, takes_others): (PathKinds, bool),
) -> Result<Path, RendezvousError> {
    let shared = &half.shared;
    let begun = clock::now();
    let deadline = options.deadline_of(begun, shared.config.connect_timeout);
    if theirs.public_key != connection.public_key() {
        return Err(RendezvousError::Offer);
    }
    let slot = shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let ours = half.begin(&slot).ok_or(RendezvousError::Full)?;
    let mut search = Search {
        half,
        connection,
        theirs: theirs.clone(),
        wanted,
        takes_others,
        begun,
        changes: connection.path().changes,
        was_cut_off: connection.is_cut_off(),
        more: true,
        relays: Vec::new(),
        punches: Vec::new(),
        offered: Vec::new(),
        failures: Vec::new(),
    };
    let mut holds = Vec::new();
    for (open, info) in ours.holes {
        let PunchSocket::Udp(hold) = open.socket else { continue };
        if let Some(told) = &theirs.holes[open.hole as usize] {
            let how = (open.is_direct, ours.second && !theirs.second);
            let puncher = begin_punch(begun, info, told, how, &options.punch)?;
            search.punches.push((open.hole, SharedMachine::new(shared, &slot, hold.socket(), puncher)));
        }
        holds.push(hold);
    }
    connection.watch_path(&slot);
    let result = search.run(&slot, deadline, options, &mut holds);
    connection.unwatch_path(&slot);
    result
}

struct Search<'s> {
    half: &'s Half,
    connection: &'s ConnectionRef,
    theirs: Offer,
    wanted: PathKinds,
    /// What another attempt finds meanwhile will do.
    takes_others: bool,
    begun: Instant,
    /// Of the connection's path, before this.
    changes: u64,
    was_cut_off: bool,
    more: bool,
    /// Ours, in the order of their numbers.
    relays: Vec<Hold>,
    punches: Vec<(Hole, SharedMachine<UdpPuncher>)>,
    /// What was found and may be taken.
    offered: Vec<UdpSource>,
    failures: Vec<RendezvousFailure>,
}

/// A path over a relay is what the connection has.
const DIRECT: [PathKind; 3] = [PathKind::Lan, PathKind::Direct, PathKind::Punched];

impl Search<'_> {
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
            if let Some(path) = self.found() {
                return Ok(path);
            }
            if let Some(error) = self.connection.end_error() {
                return Err(RendezvousError::Stream(error));
            }
            if options.is_interrupted() {
                return Err(RendezvousError::Interrupted);
            }
            if now >= deadline || !self.more && self.punches.is_empty() && self.offered.is_empty() {
                return Err(self.failed(now));
            }
            let due = self.punches.iter().filter_map(|(_, machine)| machine.timeout());
            if let Waited::Closed = self.connection.shared().crank.wait(slot, due.chain([deadline]).min()) {
                return Err(RendezvousError::Stream(StreamError::Closed));
            }
        }
    }

    /// The path of the connection if there is nothing to look for any more: what was offered, or what another attempt has found, or the
    /// old one works again.
    fn found(&self) -> Option<Path> {
        let path = self.connection.path();
        let is_offered = self.offered.contains(&self.connection.way());
        let has_moved = self.takes_others && path.changes != self.changes && self.wanted.contains(path.kind);
        let is_well = !self.connection.is_cut_off();
        (is_well && (is_offered || has_moved || self.was_cut_off)).then_some(path)
    }

    fn take_news(&mut self, now: Instant) {
        let Some(News { ours, theirs, relays, vouched, more }) = self.half.news() else { return };
        if self.wanted.contains(PathKind::Relayed) {
            self.relays.extend(relays);
        }
        if let Some(theirs) = theirs.filter(|theirs| self.theirs.is_continued_by(theirs)) {
            self.theirs = theirs;
        }
        self.more = more || self.theirs.more;
        for (hole, machine) in &mut self.punches {
            let theirs = self.theirs.endpoints(*hole);
            let ours = ours.iter().find(|(of, _)| of == hole).map_or(&[][..], |(_, all)| all);
            if *hole == Hole::UdpV4 {
                add_relays(machine, now, &self.relays, (ours, theirs), self.begun + RELAYS_AFTER);
            }
            let theirs = reachable(theirs, self.wanted);
            machine.machine_mut().learn(now, ours, &theirs, self.more);
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
                    socket.note_punched(peer, self.theirs.is_relayed(peer));
                    holds.push(Hold::new(self.connection.shared(), socket.clone()));
                    self.connection.offer_path(&socket, peer);
                    self.offered.push(UdpSource { socket: socket.number(), addr: peer });
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
            peer: self.theirs.public_key,
            waited: now.saturating_duration_since(self.begun),
            failures: std::mem::take(&mut self.failures),
        }
    }
}

/// What is direct gets so much time before a relay is tried.
const RELAYS_AFTER: Duration = Duration::from_millis(300);
