//! A stream that is there already gets a better path: the same punch, whose hole is offered instead of dialled.

use std::{fmt::Display, sync::Arc, time::Instant};

use nat_traversal::{
    AddrKind,
    protocol::{PunchEvent, Seed, UdpPuncher},
};

use super::{Hold, road_of};
use crate::{
    StreamError,
    connect_options::ConnectOptions,
    io::{clock, crank::Waited, entropy, quic::QuicStream, slot::Slot, udp::SharedMachine},
    path::Path,
    protocol::{
        offer::{Hole, Offer},
        paths::UdpSource,
    },
    rendezvous::{Rendezvous, RendezvousError, RendezvousFailure},
};

pub(crate) fn improve(
    ours: Rendezvous,
    theirs: &Offer,
    stream: &QuicStream,
    options: &ConnectOptions,
) -> Result<Path, RendezvousError> {
    let begun = clock::now();
    let deadline = options.deadline_of(begun, ours.shared.config.connect_timeout);
    if theirs.public_key != stream.public_key() {
        return Err(RendezvousError::Offer);
    }
    let slot = ours.shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let mut search =
        Search { stream, theirs, begun, punches: Vec::new(), offered: Vec::new(), failures: Vec::new() };
    let (mut holds, shared) = (Vec::new(), ours.shared.clone());
    for (hole, info, hold) in ours.udp {
        if let Some(told) = &theirs.holes[hole as usize] {
            let endpoints = info.endpoints().to_vec();
            let keys = info.agree(told).map_err(|_| RendezvousError::Offer)?;
            let seed = Seed::from_bytes(entropy::bytes());
            let direct = told.endpoints().iter().filter(|endpoint| endpoint.kind != AddrKind::Relayed);
            let direct: Vec<_> = direct.copied().collect();
            let puncher = UdpPuncher::new(begun, &endpoints, &direct, keys, seed);
            search.punches.push((hole, SharedMachine::new(&shared, &slot, hold.socket(), puncher)));
        }
        holds.push(hold);
    }
    stream.watch_path(&slot);
    let result = search.run(&slot, deadline, options, &mut holds);
    stream.unwatch_path(&slot);
    result
}

struct Search<'s> {
    stream: &'s QuicStream,
    theirs: &'s Offer,
    begun: Instant,
    punches: Vec<(Hole, SharedMachine<UdpPuncher>)>,
    /// What was found and may be taken.
    offered: Vec<UdpSource>,
    failures: Vec<RendezvousFailure>,
}

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
            self.turn_punches(now, holds);
            if self.offered.contains(&self.stream.way()) {
                return Ok(self.stream.path());
            }
            if let Some(error) = self.stream.end_error() {
                return Err(RendezvousError::Stream(error));
            }
            if options.is_interrupted() {
                return Err(RendezvousError::Interrupted);
            }
            if now >= deadline || self.punches.is_empty() && self.offered.is_empty() {
                return Err(self.failed(now));
            }
            let due = self.punches.iter().filter_map(|(_, machine)| machine.timeout());
            if let Waited::Closed = self.stream.shared().crank.wait(slot, due.chain([deadline]).min()) {
                return Err(RendezvousError::Stream(StreamError::Closed));
            }
        }
    }

    fn turn_punches(&mut self, now: Instant, holds: &mut Vec<Hold>) {
        let mut index = 0;
        while index < self.punches.len() {
            let Some(event) = self.punches[index].1.turn(now) else {
                index += 1;
                continue;
            };
            let (hole, machine) = self.punches.swap_remove(index);
            match event {
                PunchEvent::Punched { socket, peer } => {
                    let Some(socket) = machine.socket(socket).cloned() else { continue };
                    tracing::debug!(remote = %peer, "punched a hole for a stream that is there");
                    socket.note_punched(peer, false);
                    holds.push(Hold::new(self.stream.shared(), socket.clone()));
                    self.stream.offer_path(&socket, peer);
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
