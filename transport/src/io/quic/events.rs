//! What a connection reports, and what follows from it. Called under the connection's lock.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    Link,
    link::{Core, Kind, Turn},
};
use crate::{
    PublicKey,
    admission::Refusal,
    io::{
        accept_queue::Place,
        dial::{DialError, DialOrder},
        lock::Lock as _,
    },
    protocol::{
        paths::CheckKeys,
        preface::{Preface, Purpose},
        quic::{ConnectionEnd, QuicEvent, QuicStreamId},
        reunion::Ruling,
        rounds::{Ended, Round},
        verdict::Verdict,
    },
};

/// Tells whether a reader was told who waited for it.
pub(super) fn handle_event(link: &Arc<Link>, core: &mut Core, event: QuicEvent, turn: &mut Turn<'_>) -> bool {
    match event {
        QuicEvent::Readable(stream) => {
            let Some(handle) = core.streams.get(&stream) else { return false };
            turn.wakes.push(&handle.reader);
            return handle.reader.is_waiting();
        }
        QuicEvent::Writable(stream) | QuicEvent::Acknowledged(stream) => {
            if let Some(handle) = core.streams.get(&stream) {
                turn.wakes.push(&handle.writer);
            }
        }
        QuicEvent::Connected { .. } => {
            let keys = core.connection.check_keys();
            turn.left.connected = Some(keys.as_ref().map(CheckKeys::tag));
            core.ways.connected(keys);
            ask_for_rendezvous(core, turn);
            if let Kind::Shared { expected } = link.kind()
                && core.opening.values().any(DialOrder::may_move)
            {
                turn.shared.quic.reunion.hold().asked(expected, link.number());
            }
        }
        QuicEvent::WindowWanted(bytes) => turn.left.window_wanted += bytes,
        QuicEvent::Preface { stream, preface } => {
            judge(link, core, stream, *preface, turn);
        }
        QuicEvent::Opened { ticket, stream } => opened(link, core, ticket, stream, turn),
        QuicEvent::Verdict { stream, verdict } => {
            judged(link, core, stream, verdict, turn);
        }
        QuicEvent::Ended(end) => ended(link, core, &end, turn),
    }
    false
}

/// A rendezvous asks for its stream on one connection only; the others have served.
fn ask_for_rendezvous(core: &mut Core, turn: &mut Turn<'_>) {
    let held = core.opening.iter().filter(|(_, order)| order.is_held());
    for ticket in held.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
        let Some(order) = core.opening.get(&ticket) else { continue };
        if order.may_ask(turn.shared) {
            core.connection.open(ticket, &order.preface);
        } else if let Some(order) = core.opening.remove(&ticket) {
            turn.left.outcomes.push((ticket, order, Err(DialError::NotChosen)));
            core.connection.close(turn.now);
        }
    }
}

fn judge(link: &Arc<Link>, core: &mut Core, stream: QuicStreamId, preface: Preface, turn: &mut Turn<'_>) {
    let verdict = match core.connection.peer() {
        Some(peer) => place(link, core, peer, &preface, turn).map(|place| (peer, place)),
        None => Err(Refusal::Full),
    };
    match verdict {
        Ok((peer, place)) => {
            core.is_meeting |= matches!(preface.purpose, Purpose::Rendezvous(_));
            core.connection.answer(turn.now, stream, Verdict::Accepted);
            let handle = core.hold_stream(turn.shared, stream);
            turn.left.admitted = true;
            turn.left.delivered.push((place, link.stream(turn.shared, stream, handle, peer, preface.label)));
        }
        Err(reason) => core.connection.answer(turn.now, stream, Verdict::Refused(reason)),
    }
}

/// Where a stream that came in goes, or why not.
fn place(
    link: &Arc<Link>,
    core: &Core,
    peer: PublicKey,
    preface: &Preface,
    turn: &mut Turn<'_>,
) -> Result<Place, Refusal> {
    let shared = turn.shared;
    let begun = match link.kind() {
        Kind::Incoming { begun } if !core.is_meeting => Some(begun),
        _ => None,
    };
    let Some(begun) = begun else {
        // The peer does not know which listener of ours it would have dialled; so it must not matter.
        let queue = shared.only_queue();
        return match preface.purpose {
            Purpose::Direct if queue.is_none() => Err(Refusal::Elsewhere),
            _ => shared.judge(&peer, preface, queue.as_ref()),
        };
    };
    if preface.purpose == Purpose::Direct && !preface.stays {
        let may_send = shared.only_queue().is_some();
        match shared.quic.reunion.hold().arrived(peer, link.number(), begun, may_send) {
            Ruling::Stays => {}
            Ruling::Welcome => turn.left.welcome = true,
            Ruling::Elsewhere => return Err(Refusal::Elsewhere),
        }
    }
    shared.judge(&peer, preface, core.ways.socket().queue().as_ref())
}

fn opened(link: &Arc<Link>, core: &mut Core, ticket: u64, stream: QuicStreamId, turn: &mut Turn<'_>) {
    let order = core.opening.remove(&ticket);
    free_if_empty(&mut core.opening);
    let Some(order) = order else {
        core.connection.reset(turn.now, stream, CANCELLED);
        core.connection.release(turn.now, stream);
        return;
    };
    if order.early {
        let handle = core.hold_stream(turn.shared, stream);
        let label = order.preface.label.clone();
        let stream = link.stream(turn.shared, stream, handle, order.expected, label);
        turn.left.outcomes.push((ticket, order, Ok(stream)));
    } else {
        core.judging.insert(stream, (ticket, order));
    }
}

fn judged(link: &Arc<Link>, core: &mut Core, stream: QuicStreamId, verdict: Verdict, turn: &mut Turn<'_>) {
    let judged = core.judging.remove(&stream);
    free_if_empty(&mut core.judging);
    let Some((ticket, order)) = judged else {
        if let Some(handle) = core.streams.get(&stream) {
            turn.wakes.push(&handle.reader);
            turn.wakes.push(&handle.writer);
        }
        return;
    };
    if let (Kind::Shared { expected }, true) = (link.kind(), order.may_move()) {
        turn.shared.quic.reunion.hold().confirmed(turn.now, expected, link.number());
    }
    let outcome = match verdict {
        Verdict::Accepted => {
            if order.is_held() {
                // What took an introduction and a hole is worth a few seconds without a stream.
                core.is_meeting = true;
                core.connection.keep();
            }
            let handle = core.hold_stream(turn.shared, stream);
            let label = order.preface.label.clone();
            Ok(link.stream(turn.shared, stream, handle, order.expected, label))
        }
        Verdict::Refused(Refusal::Elsewhere) if order.may_move() => {
            core.connection.release(turn.now, stream);
            return elsewhere(link, ticket, order, turn);
        }
        Verdict::Refused(reason) => {
            core.connection.release(turn.now, stream);
            Err(DialError::Refused(reason))
        }
    };
    turn.left.outcomes.push((ticket, order, outcome));
}

/// A map keeps room for eleven once it had one, which is kilobytes for each idle connection.
fn free_if_empty<K, V>(map: &mut BTreeMap<K, V>) {
    if map.is_empty() {
        *map = BTreeMap::new();
    }
}

/// The peer wants the stream on another connection.
fn elsewhere(link: &Arc<Link>, ticket: u64, order: DialOrder, turn: &mut Turn<'_>) {
    if let Kind::Shared { .. } = link.kind() {
        turn.left.elsewhere.push((ticket, order));
        return;
    }
    // A connection that the peer made, and where it has no place for us.
    turn.shared.quic.reunion.hold().one_way(order.expected, link.number());
    if order.over_guest {
        turn.left.outcomes.push((ticket, order, Err(DialError::NotChosen)));
    } else {
        turn.left.again.push((ticket, order.once_more(Round::Last)));
    }
}

fn ended(link: &Arc<Link>, core: &mut Core, end: &ConnectionEnd, turn: &mut Turn<'_>) {
    for handle in core.streams.values() {
        turn.wakes.push(&handle.reader);
        turn.wakes.push(&handle.writer);
    }
    turn.left.ended = true;
    core.ways.wake_watchers(turn);
    let opening = std::mem::take(&mut core.opening).into_iter();
    let judging = std::mem::take(&mut core.judging).into_values();
    let ended = Ended {
        end,
        was_up: core.connection.peer().is_some(),
        is_shared: matches!(link.kind(), Kind::Shared { .. }) && !turn.shared.is_closed(),
    };
    for (ticket, order) in opening.chain(judging) {
        match order.round.after(ended).filter(|_| !order.over_guest) {
            Some(round) => turn.left.again.push((ticket, order.once_more(round))),
            None => turn.left.outcomes.push((ticket, order, Err(dial_error(end)))),
        }
    }
}

/// The system took no datagram for a peer that is not known yet.
pub(super) fn fail_dials(core: &mut Core, error: &io::Error, turn: &mut Turn<'_>) {
    for (ticket, order) in std::mem::take(&mut core.opening) {
        let error = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        turn.left.outcomes.push((ticket, order, Err(DialError::Socket(error))));
    }
}

fn dial_error(end: &ConnectionEnd) -> DialError {
    match end {
        ConnectionEnd::WrongPeer => DialError::WrongPeer,
        ConnectionEnd::Silent(_) => DialError::TimedOut,
        ConnectionEnd::Unreachable(reason) => DialError::Socket((*reason).into()),
        ConnectionEnd::Closed => DialError::Handshake("given up".to_owned()),
        ConnectionEnd::ClosedByPeer => DialError::Handshake("the peer closed the connection".to_owned()),
        ConnectionEnd::Broken(reason) => DialError::Handshake(reason.clone()),
    }
}

/// The code of streams whose dial was given up.
const CANCELLED: u32 = 0;
