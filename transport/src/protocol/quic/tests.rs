mod batches;
mod connections;
mod handshake;
mod rest;
mod streams;

use super::{
    ConnectionEnd, QuicEvent, QuicStreamId,
    pair::{Link, Pair},
};

/// First packets of as many dialers that will never be heard of again.
fn initials(number: usize) -> Vec<Vec<u8>> {
    let mut pair = Pair::new(Link::default());
    (0..number)
        .map(|_| {
            pair.dial();
            pair.take_last()
        })
        .collect()
}

fn opened(pair: &Pair) -> bool {
    opened_stream(pair).is_some()
}

fn opened_stream(pair: &Pair) -> Option<QuicStreamId> {
    pair.dialer.events.iter().find_map(|event| match event {
        QuicEvent::Opened { stream, .. } => Some(*stream),
        _ => None,
    })
}

fn preface_of(pair: &Pair) -> Option<QuicStreamId> {
    pair.acceptor.events.iter().find_map(|event| match event {
        QuicEvent::Preface { stream, .. } => Some(*stream),
        _ => None,
    })
}

fn ended(events: &[QuicEvent]) -> Option<ConnectionEnd> {
    events.iter().find_map(|event| match event {
        QuicEvent::Ended(end) => Some(end.clone()),
        _ => None,
    })
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|number| u8::try_from(number * 31 % 251).unwrap()).collect()
}
