//! Who gets in, what is told to those who do not, and what strangers cost.

use std::time::Duration;

use super::{ended, initials, opened, opened_stream, pattern, preface_of};
use crate::{
    Identity, Limits, Refusal, StreamError,
    protocol::{
        quic::{
            ConnectionEnd, QuicEvent, QuicHandle, ReadEnd, WriteEnd,
            pair::{Link, MS, Pair, preface},
        },
        verdict::Verdict,
    },
};

#[test]
fn a_confirmed_stream_takes_two_round_trips_and_an_early_one_one() {
    let mut pair = Pair::new(Link::default());
    pair.dial();
    assert!(pair.run(MS * 500, |pair| opened(pair)));
    assert_eq!(pair.elapsed(), MS * 40);
    assert!(pair.run(MS * 500, |pair| pair.verdict().is_some()));
    assert_eq!(pair.elapsed(), MS * 80);
    assert_eq!(pair.verdict().unwrap().1, Verdict::Accepted);
    let peers = [&pair.dialer, &pair.acceptor].map(|side| {
        side.events.iter().find_map(|event| match event {
            QuicEvent::Connected { peer } => Some(*peer),
            _ => None,
        })
    });
    assert_eq!(peers, [Some(pair.acceptor.identity.public_key()), Some(pair.dialer.identity.public_key())]);
}

#[test]
fn a_further_stream_takes_one_round_trip() {
    let mut pair = Pair::new(Link::default());
    let (ours, ..) = pair.connect();
    let before = pair.elapsed();
    pair.dialer.events.clear();
    pair.dialer.connection(ours).open(2, &preface());
    assert!(pair.run(MS * 500, |pair| pair.verdict().is_some()));
    assert_eq!(pair.elapsed() - before, MS * 40);
}

#[test]
fn a_wrong_key_is_told_to_both_sides_within_the_handshake() {
    let mut pair = Pair::new(Link::default());
    pair.dial_expecting(Identity::from_seed([99; 32]).public_key());
    assert!(pair.run(MS * 500, |pair| ended(&pair.dialer.events).is_some()));
    assert_eq!(ended(&pair.dialer.events), Some(ConnectionEnd::WrongPeer));
    assert_eq!(pair.elapsed(), MS * 40);
    assert!(pair.run(MS * 500, |pair| ended(&pair.acceptor.events).is_some()));
    assert!(matches!(ended(&pair.acceptor.events), Some(ConnectionEnd::Broken(_))));
    assert_eq!(pair.elapsed(), MS * 60);
}

#[test]
fn a_refusal_reaches_the_dialer_one_round_trip_after_its_handshake() {
    let mut pair = Pair::new(Link::default());
    pair.acceptor.verdict = Some(Verdict::Refused(Refusal::Token));
    let (ours, _, stream) = pair.connect();
    assert_eq!(pair.verdict().unwrap().1, Verdict::Refused(Refusal::Token));
    assert_eq!(pair.elapsed(), MS * 80);
    let connection = pair.dialer.connection(ours);
    let refused = StreamError::Refused(Refusal::Token);
    assert_eq!(connection.write(stream, b"x"), Err(WriteEnd::Failed(refused.clone())));
    assert_eq!(connection.read(stream, &mut [0]), Err(ReadEnd::Failed(refused)));
}

#[test]
fn an_early_write_waits_for_the_verdict_at_the_other_side() {
    let mut pair = Pair::new(Link::default());
    pair.acceptor.verdict = None;
    let ours = pair.dial();
    pair.run(MS * 500, |pair| opened(pair));
    let stream = opened_stream(&pair).unwrap();
    assert_eq!(pair.dialer.connection(ours).write(stream, b"early"), Ok(5));
    pair.run(MS * 500, |pair| preface_of(pair).is_some());
    let theirs = QuicHandle(0);
    let mut buffer = [0; 8];
    assert_eq!(pair.acceptor.connection(theirs).read(stream, &mut buffer), Err(ReadEnd::Blocked));
    let now = pair.now;
    pair.acceptor.connection(theirs).answer(now, stream, Verdict::Accepted);
    assert_eq!(pair.acceptor.connection(theirs).read(stream, &mut buffer), Ok(5));
}

#[test]
fn a_peer_that_never_asks_for_a_stream_is_closed_at_the_deadline() {
    let mut pair = Pair::new(Link::default());
    let ours = pair.dial();
    let now = pair.now;
    pair.dialer.connection(ours).cancel_open(now, 1);
    pair.run(Duration::from_secs(9), |_| false);
    // The dialer would close after 5 s; this one is kept from it.
    pair.dialer.connections.clear();
    assert!(pair.run(Duration::from_secs(20), |pair| ended(&pair.acceptor.events).is_some()));
}

#[test]
fn spoofed_initials_are_asked_for_a_proof_and_honest_dialers_still_come_in() {
    let limits = Limits::default().pending_handshakes(80);
    let mut pair = Pair::with(Link::default(), |settings| settings.limits = limits.clone());
    let flood = initials(200);
    let to = pair.acceptor.addr;
    for (number, initial) in flood.into_iter().enumerate() {
        let from = format!("198.{}.{}.7:999", number / 100, number % 100).parse().unwrap();
        pair.send(from, to, initial);
    }
    pair.run(MS * 25, |_| false);
    assert_eq!(pair.acceptor.connections.len(), 20, "the others were told to retry, and hold nothing");
    let before = pair.elapsed();
    pair.dial();
    assert!(pair.run(MS * 500, |pair| pair.verdict().is_some()));
    assert_eq!(pair.elapsed() - before, MS * 120, "one more round trip, for the proof");
    pair.run(Duration::from_secs(30), |_| false);
    assert!(pair.acceptor.endpoint.len() <= 1, "those that never answered are gone");
}

#[test]
fn one_network_cannot_take_all_handshakes() {
    let limits = Limits::default().pending_handshakes_per_prefix(4);
    let mut pair = Pair::with(Link::default(), |settings| settings.limits = limits.clone());
    let to = pair.acceptor.addr;
    for (number, initial) in initials(40).into_iter().enumerate() {
        pair.send(format!("198.51.100.{number}:999").parse().unwrap(), to, initial);
    }
    pair.run(MS * 25, |_| false);
    assert_eq!(pair.acceptor.connections.len(), 4);
    let before = pair.elapsed();
    pair.dial();
    assert!(pair.run(MS * 500, |pair| pair.verdict().is_some()));
    assert_eq!(pair.elapsed() - before, MS * 80, "others need no proof");
}

#[test]
fn garbage_is_answered_with_nothing_larger_than_itself() {
    let mut pair = Pair::new(Link::default());
    let (from, to) = ("203.0.113.9:9".parse().unwrap(), pair.acceptor.addr);
    for length in [1_usize, 7, 20, 100, 1_199, 1_200] {
        for first in [0x00, 0x40, 0x7f, 0xc0, 0xff] {
            let mut bytes = pattern(length);
            bytes[0] = first;
            pair.send(from, to, bytes);
        }
    }
    pair.run(MS * 30, |_| false);
    assert_eq!(pair.acceptor.endpoint.len(), 0);
}
