//! What a connection at rest says, and how long it waits for its peer.

use std::time::Duration;

use super::ended;
use crate::protocol::quic::{
    ConnectionEnd, QuicHandle, QuicStreamId, Rest,
    pair::{Link, MS, Pair, preface},
};

const PATIENT: Rest = Rest { keep_alive: Duration::from_secs(60), dead_after: Some(Duration::from_secs(80)) };
/// The other side, so that the two do not speak at a time.
const MORE_PATIENT: Rest =
    Rest { keep_alive: Duration::from_secs(70), dead_after: Some(Duration::from_secs(90)) };

#[test]
fn at_rest_each_side_sends_a_packet_each_fifteen_seconds() {
    let (mut pair, ..) = at_rest();
    assert_eq!(packets(&mut pair, Duration::from_secs(600)), [40, 40]);
}

#[test]
fn at_rest_a_patient_stream_costs_a_packet_a_minute() {
    let (mut pair, ours, theirs, stream) = at_rest();
    set_patient(&mut pair, ours, theirs, stream);
    let [dialer, acceptor] = packets(&mut pair, Duration::from_secs(600));
    assert!((9..=11).contains(&dialer) && (9..=11).contains(&acceptor), "{dialer}, {acceptor}");
    assert_eq!(ended(&pair.dialer.events), None);
    pair.link.lost_per_mille = 1_000;
    pair.run(Duration::from_secs(200), |pair| ended(&pair.dialer.events).is_some());
    let Some(ConnectionEnd::Silent(silent_for)) = ended(&pair.dialer.events) else { panic!("it is lost") };
    assert!(silent_for >= Duration::from_secs(80) && silent_for < MS * 80_100, "{silent_for:?}");
}

#[test]
fn what_comes_on_a_patient_stream_costs_its_acknowledgement_and_no_more() {
    let (mut pair, ours, theirs, stream) = at_rest();
    set_patient(&mut pair, ours, theirs, stream);
    pair.run(Duration::from_secs(1), |_| false);
    pair.acceptor.connection(theirs).write(stream, b"still").unwrap();
    assert_eq!(packets(&mut pair, Duration::from_secs(50)), [1, 1]);
    assert_eq!(pair.dialer.connection(ours).read(stream, &mut [0; 8]), Ok(5));
}

#[test]
fn one_patient_side_does_not_keep_the_other_from_speaking() {
    let (mut pair, ours, _, stream) = at_rest();
    let now = pair.now;
    pair.dialer.connection(ours).set_rest(now, stream, PATIENT);
    // The acceptor speaks a little later than the dialer would.
    assert_eq!(packets(&mut pair, Duration::from_secs(600)), [30, 30]);
}

#[test]
fn a_stream_beside_it_brings_back_what_is_usual_and_its_end_the_patience() {
    let (mut pair, ours, theirs, stream) = at_rest();
    set_patient(&mut pair, ours, theirs, stream);
    pair.run(Duration::from_secs(55), |_| false);
    // Nothing was heard for longer than is usually allowed; that is not held against the peer now.
    pair.dialer.connection(ours).open(2, &preface());
    pair.run(Duration::from_secs(60), |_| false);
    assert_eq!((ended(&pair.dialer.events), ended(&pair.acceptor.events)), (None, None));
    assert_eq!(packets(&mut pair, Duration::from_secs(300)), [20, 20]);
    let beside = QuicStreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Bi, 1);
    let now = pair.now;
    pair.dialer.connection(ours).release(now, beside);
    pair.acceptor.connection(theirs).release(now, beside);
    pair.run(Duration::from_secs(10), |_| false);
    let [dialer, acceptor] = packets(&mut pair, Duration::from_secs(600));
    assert!((9..=11).contains(&dialer) && (9..=11).contains(&acceptor), "{dialer}, {acceptor}");

    // And again beside it, with a peer that is gone: it is lost as soon as that is usual.
    pair.dialer.connection(ours).open(3, &preface());
    pair.run(Duration::from_secs(1), |_| false);
    pair.link.lost_per_mille = 1_000;
    let cut = pair.elapsed();
    pair.run(Duration::from_secs(200), |pair| ended(&pair.dialer.events).is_some());
    let took = pair.elapsed() - cut;
    assert!(took >= Duration::from_secs(28) && took < Duration::from_secs(31), "{took:?}");
}

#[test]
fn what_is_wished_for_a_stream_that_is_gone_counts_for_nothing() {
    let (mut pair, ours, _, stream) = at_rest();
    let now = pair.now;
    pair.dialer.connection(ours).reset(now, stream, 1);
    pair.dialer.connection(ours).release(now, stream);
    pair.run(MS * 100, |_| false);
    let now = pair.now;
    pair.dialer.connection(ours).set_rest(now, stream, PATIENT);
    assert_eq!(pair.dialer.connection(ours).dead_after(), Some(Duration::from_secs(30)));
}

/// A stream on which nothing has gone on for a while: the search for larger datagrams is over.
fn at_rest() -> (Pair, QuicHandle, QuicHandle, QuicStreamId) {
    let mut pair = Pair::new(Link::default());
    let (ours, theirs, stream) = pair.connect();
    pair.run(Duration::from_secs(100), |_| false);
    (pair, ours, theirs, stream)
}

fn set_patient(pair: &mut Pair, ours: QuicHandle, theirs: QuicHandle, stream: QuicStreamId) {
    let now = pair.now;
    pair.dialer.connection(ours).set_rest(now, stream, PATIENT);
    pair.acceptor.connection(theirs).set_rest(now, stream, MORE_PATIENT);
}

/// How many datagrams the two send in that time.
fn packets(pair: &mut Pair, time: Duration) -> [usize; 2] {
    let before = [pair.dialer.sent.len(), pair.acceptor.sent.len()];
    pair.run(time, |_| false);
    [pair.dialer.sent.len() - before[0], pair.acceptor.sent.len() - before[1]]
}
