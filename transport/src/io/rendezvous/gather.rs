//! How our sockets are seen from outside: servers are asked, all at once, and whoever answers is told of at once.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use nat_traversal::{
    MapError, MappedSocketAddr, MappedTcpSocket, MappingContext,
    protocol::{Mapper, Mapping},
};

use super::{
    Hold,
    half::{Half, PunchSocket},
    traces::EndPunches,
};
use crate::{
    Interrupter,
    io::{clock, crank::Waited, lock::Lock as _, slot::Slot, udp::SharedMachine},
    protocol::offer::Hole,
    rendezvous::RendezvousError,
};

/// Blocks until all have answered or had their time. `tell` is called whenever something was learned, from any thread.
pub(crate) fn gather(
    half: &Half,
    context: &MappingContext,
    interrupter: Option<&Interrupter>,
    tell: &(dyn Fn() + Sync),
) -> Result<(), RendezvousError> {
    let slot = half.shared.crank.slot();
    let _watch = interrupter.map(|interrupter| interrupter.watch(&slot));
    // So that what waits for TCP can be interrupted by itself.
    let part = context.part();
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for (hole, socket) in half.sockets() {
        match socket {
            PunchSocket::Udp(hold) => udp.push((hole, hold)),
            PunchSocket::Tcp(socket) => tcp.push((hole, socket)),
        }
    }
    let open = Open { count: Mutex::new(tcp.len()), slot: &slot };
    thread::scope(|scope| {
        let _ending = EndPunches(part.interrupter());
        for (hole, socket) in tcp {
            let (part, open) = (&part, &open);
            let map = move || {
                let _closing = Closing(open);
                map_tcp(half, hole, socket, part, tell);
            };
            if let Err(error) = thread::Builder::new().name("transport-map".into()).spawn_scoped(scope, map) {
                tracing::debug!(%error, "no thread to ask for the address of a TCP port");
                drop(Closing(open));
            }
        }
        let mut asking = Asking::begin(half, udp, context, &slot);
        loop {
            let over_udp = asking.turn(half, tell);
            if over_udp.is_break() && *open.count.hold() == 0 {
                return Ok(());
            }
            if interrupter.is_some_and(Interrupter::is_interrupted) {
                return Err(RendezvousError::Interrupted);
            }
            // A mapper always has a deadline of its own, and whoever asks over TCP wakes us.
            if let Waited::Closed = half.shared.crank.wait(&slot, asking.timeout()) {
                return Err(RendezvousError::Closed);
            }
        }
    })
}

/// Questions over TCP, each on a thread.
struct Open<'s> {
    count: Mutex<usize>,
    slot: &'s Slot,
}

/// One of them is over, however it ended.
struct Closing<'o>(&'o Open<'o>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        *self.0.count.hold() -= 1;
        self.0.slot.wake();
    }
}

/// Questions over UDP.
struct Asking {
    questions: Vec<Question>,
}

struct Question {
    hole: Hole,
    _hold: Hold,
    /// `None` once it is answered.
    machine: Option<SharedMachine<Mapper>>,
    told: Vec<MappedSocketAddr>,
}

impl Question {
    /// Takes in what came; what is new of it.
    fn turn(&mut self, now: Instant, half: &Half) -> Option<Vec<MappedSocketAddr>> {
        let machine = self.machine.as_mut()?;
        let seen = match machine.turn(now) {
            Some(Mapping { addresses, failures, .. }) => {
                self.machine = None;
                if !addresses.is_empty() || !failures.is_empty() {
                    half.udp_asked(!addresses.is_empty());
                }
                half.not_mapped(failures);
                addresses
            }
            // Servers that do not answer must not keep the peer waiting for what others say.
            None => machine.machine().so_far()?,
        };
        // Where no server has answered, what is known from before stays.
        if seen.is_empty() || seen == self.told {
            return None;
        }
        self.told.clone_from(&seen);
        Some(seen)
    }
}

impl Asking {
    fn begin(half: &Half, sockets: Vec<(Hole, Hold)>, context: &MappingContext, slot: &Arc<Slot>) -> Self {
        let questions = sockets.into_iter().map(|(hole, hold)| {
            let mapper = context.mapper(hold.socket().local());
            let machine = SharedMachine::new(&half.shared, slot, hold.socket(), mapper);
            Question { hole, _hold: hold, machine: Some(machine), told: Vec::new() }
        });
        Self { questions: questions.collect() }
    }

    /// Takes in what came; whether nothing is awaited any more.
    fn turn(&mut self, half: &Half, tell: &(dyn Fn() + Sync)) -> ControlFlow<()> {
        let now = clock::now();
        let mut learned = false;
        for question in &mut self.questions {
            if let Some(seen) = question.turn(now, half) {
                half.mapped(question.hole, seen, None);
                learned = true;
            }
        }
        if learned {
            tell();
        }
        let waiting = self.questions.iter().any(|question| question.machine.is_some());
        if waiting { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn timeout(&self) -> Option<Instant> {
        self.questions.iter().filter_map(|question| question.machine.as_ref()?.timeout()).min()
    }
}

fn map_tcp(
    half: &Half,
    hole: Hole,
    socket: socket2::Socket,
    context: &MappingContext,
    tell: &(dyn Fn() + Sync),
) {
    match MappedTcpSocket::map(socket, context) {
        Ok(MappedTcpSocket { endpoints, failures, lease, .. }) => {
            half.not_mapped(failures);
            half.mapped(hole, endpoints, lease);
            tell();
        }
        Err(MapError::Interrupted) => {}
        Err(error) => tracing::debug!(%error, ?hole, "a TCP port is not mapped"),
    }
}
