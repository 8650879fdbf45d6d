//! Any sequence of operations on both ends of a connection, over a wire that loses, delays, repeats and forges as it is told.

use std::collections::BTreeMap;

use super::{
    QuicEvent, QuicHandle, QuicStreamId,
    pair::{Link, MS, Pair, preface},
};

/// Does what the bytes say. No input makes an end panic, and what is read is what the other end wrote, as far as it came.
/// Tells how many bytes that were.
pub(crate) fn operations(bytes: &[u8]) -> usize {
    let [loss, jitter, rest @ ..] = bytes else { return 0 };
    let link = Link {
        lost_per_mille: u64::from(*loss),
        jitter: MS * u32::from(*jitter),
        seed: u64::from(*loss),
        ..Link::default()
    };
    let mut pair = Pair::new(link);
    let dialled = pair.dial();
    let mut carried: BTreeMap<(bool, QuicStreamId), Carried> = BTreeMap::new();
    let mut tickets = 1;
    for operation in rest.chunks_exact(2).take(MOST) {
        let [verb, argument] = *operation else { break };
        let dials = verb & 1 == 0;
        match verb >> 1 & 7 {
            0 => drop(pair.run(MS * 4 * u32::from(argument), |_| false)),
            1 => pair.repeat(None),
            2 => pair.repeat(Some(argument)),
            3 => {
                // What a stranger may send: bytes of the input, in the name of either.
                let length = usize::from(argument) * 5;
                let forged = rest.iter().copied().cycle().skip(usize::from(verb)).take(length).collect();
                let (from, to) = (pair.dialer.addr, pair.acceptor.addr);
                let (from, to) = if dials { (from, to) } else { (to, from) };
                pair.send(from, to, forged);
            }
            4 if dials => {
                tickets += 1;
                if let Some(connection) = pair.dialer.connections.get_mut(&dialled.0) {
                    connection.open(tickets, &preface());
                }
            }
            _ => on_stream(&mut pair, dialled, &mut carried, verb, argument),
        }
        pair.flush();
    }
    carried.values().map(|carried| carried.read).sum()
}

/// What one end has written to a stream, and how much of it the other has read.
#[derive(Default)]
struct Carried {
    written: Vec<u8>,
    read: usize,
}

fn on_stream(
    pair: &mut Pair,
    dialled: QuicHandle,
    carried: &mut BTreeMap<(bool, QuicStreamId), Carried>,
    verb: u8,
    argument: u8,
) {
    let dials = verb & 1 == 0;
    let (now, side) = (pair.now, if dials { &mut pair.dialer } else { &mut pair.acceptor });
    let streams: Vec<QuicStreamId> = side
        .events
        .iter()
        .filter_map(|event| match event {
            QuicEvent::Verdict { stream, .. } | QuicEvent::Preface { stream, .. } => Some(*stream),
            _ => None,
        })
        .collect();
    let Some(stream) = streams.get(usize::from(argument) % streams.len().max(1)).copied() else { return };
    let handle = if dials { Some(dialled.0) } else { side.connections.keys().last().copied() };
    let Some(connection) = handle.and_then(|handle| side.connections.get_mut(&handle)) else { return };
    match verb >> 4 & 7 {
        0..3 => {
            let data: Vec<u8> =
                (0..u32::from(argument) * 32).map(|place| (place % 251) as u8 ^ argument).collect();
            if let Ok(count) = connection.write(stream, &data) {
                carried.entry((dials, stream)).or_default().written.extend_from_slice(&data[..count]);
            }
        }
        3..6 => {
            let mut buffer = vec![0; usize::from(argument) * 32 + 1];
            if let Ok(count) = connection.read(stream, &mut buffer) {
                let sent = carried.entry((!dials, stream)).or_default();
                let wanted = sent.written.get(sent.read..sent.read + count);
                assert_eq!(wanted, Some(&buffer[..count]), "read what nobody wrote");
                sent.read += count;
            }
        }
        6 => connection.finish(stream),
        _ if argument & 1 == 0 => connection.reset(now, stream, 7),
        _ => connection.stop(now, stream),
    }
}

/// Operations of one input: more find nothing that fewer do not.
const MOST: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sequence_of_operations_breaks_an_end() {
        let mut read = 0;
        for seed in 0..40_u64 {
            let mut state = seed;
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            // Half of them over a good wire, where more comes about.
            let head = if seed % 2 == 0 { [0, 0] } else { [byte(), byte()] };
            let bytes: Vec<u8> = head.into_iter().chain((0..600).map(|_| byte())).collect();
            read += operations(&bytes);
        }
        assert!(read > 10_000, "they do not come to much: {read} bytes");
    }
}
