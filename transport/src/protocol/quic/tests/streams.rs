//! What arrives, how streams end, and how one that stalls leaves room for others.

use std::time::Duration;

use super::pattern;
use crate::{
    Limits, StreamError,
    protocol::{
        quic::{
            QuicEvent, ReadEnd, WriteEnd,
            pair::{Link, MS, Pair, preface},
        },
        verdict::Verdict,
    },
};

#[test]
fn every_byte_arrives_in_order_whatever_the_wire_does() {
    for seed in 0..8 {
        let link = Link { lost_per_mille: 50, jitter: MS * 15, seed, ..Link::default() };
        let sent = pattern(300_000);
        assert!(Pair::new(link).transfer(&sent, 10_000) == sent, "seed {seed}");
    }
}

#[test]
fn a_reset_is_told_with_its_code() {
    let mut pair = Pair::new(Link::default());
    let (ours, theirs, stream) = pair.connect();
    let now = pair.now;
    pair.dialer.connection(ours).write(stream, b"thrown away").unwrap();
    pair.dialer.connection(ours).reset(now, stream, 77);
    pair.run(MS * 200, |_| false);
    let reset = StreamError::Reset { code: 77 };
    let connection = pair.acceptor.connection(theirs);
    assert_eq!(connection.read(stream, &mut [0; 4]), Err(ReadEnd::Failed(reset.clone())));
    assert_eq!(connection.write(stream, b"x"), Err(WriteEnd::Failed(reset)));
}

#[test]
fn an_end_without_the_end_of_the_stream_is_an_error_after_the_last_byte() {
    let mut pair = Pair::new(Link::default());
    let (ours, theirs, stream) = pair.connect();
    pair.dialer.connection(ours).write(stream, b"abc").unwrap();
    pair.run(MS * 30, |_| false);
    let now = pair.now;
    pair.dialer.connection(ours).close(now);
    pair.run(MS * 50, |_| false);
    let connection = pair.acceptor.connection(theirs);
    let mut buffer = [0; 8];
    assert_eq!(connection.read(stream, &mut buffer), Ok(3));
    assert_eq!(connection.read(stream, &mut buffer), Err(ReadEnd::Failed(StreamError::UnexpectedEof)));
}

#[test]
fn a_released_stream_delivers_everything_and_is_then_forgotten() {
    let mut pair = Pair::new(Link { lost_per_mille: 50, ..Link::default() });
    let (ours, theirs, stream) = pair.connect();
    let now = pair.now;
    assert_eq!(pair.dialer.connection(ours).write(stream, &pattern(100_000)), Ok(100_000));
    pair.dialer.connection(ours).release(now, stream);
    assert!(pair.dialer.connection(ours).is_sending());
    let (mut got, mut buffer) = (0, vec![0; 65_536]);
    pair.run(Duration::from_secs(60), |pair| {
        match pair.acceptor.connection(theirs).read(stream, &mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                got += count;
                false
            }
            Err(error) => {
                assert_eq!(error, ReadEnd::Blocked);
                false
            }
        }
    });
    assert_eq!(got, 100_000);
    assert!(pair.run(Duration::from_secs(5), |pair| !pair.dialer.connection(ours).is_sending()));
}

#[test]
fn a_stalled_reader_stops_its_writer_at_the_window_and_nobody_else() {
    let mut pair = Pair::new(Link::default());
    let (ours, theirs, stalled) = pair.connect();
    let lump = vec![7; 64 << 10];
    let mut taken = 0;
    pair.run(Duration::from_secs(20), |pair| {
        taken += pair.dialer.connection(ours).write(stalled, &lump).unwrap_or(0);
        false
    });
    let window = usize::try_from(Limits::default().connection_receive_bytes).unwrap();
    let figures = pair.acceptor.connection(theirs).figures();
    let sent: usize = pair.dialer.sent.iter().map(|(_, bytes)| bytes).sum();
    assert!(sent < window * 11 / 10, "{sent} bytes sent into a window of {window}; {figures:?}");
    assert!(taken >= window, "the writer could hand over {taken}");
    // Another peer of the same acceptor is not held up.
    pair.dialer.events.clear();
    let before = pair.elapsed();
    pair.dial();
    assert!(pair.run(MS * 500, |pair| pair.verdict().is_some()));
    assert_eq!(pair.elapsed() - before, MS * 80);
}

#[test]
fn a_stalled_stream_holds_up_its_own_writer_and_not_its_neighbour() {
    let limits = Limits::default().stream_receive_bytes(2_000_000);
    let mut pair = Pair::with(Link::default(), |settings| settings.limits = limits.clone());
    let (ours, theirs, stalled) = pair.connect();
    pair.dialer.events.clear();
    pair.dialer.connection(ours).open(2, &preface());
    pair.run(MS * 500, |pair| pair.verdict().is_some());
    let (lively, _) = pair.verdict().unwrap();
    let lump = vec![7; 64 << 10];
    let (mut arrived, mut taken) = (0, 0);
    let mut buffer = vec![0; 64 << 10];
    pair.run(Duration::from_secs(20), |pair| {
        taken += pair.dialer.connection(ours).write(stalled, &lump).unwrap_or(0);
        // The neighbour begins when the stalled one has used everything up.
        if pair.elapsed() > Duration::from_secs(5) {
            let _ = pair.dialer.connection(ours).write(lively, &lump);
        }
        while let Ok(bytes) = pair.acceptor.connection(theirs).read(lively, &mut buffer) {
            arrived += bytes;
        }
        arrived > 5_000_000
    });
    assert!(arrived > 5_000_000, "{arrived}");
    assert!(taken < 5_000_000, "{taken}");
}

#[test]
fn a_reader_that_keeps_up_gets_a_larger_window() {
    // 20 MB at 40 ms: with 512 KiB a round trip it would take 1.6 s or more.
    let mut pair = Pair::new(Link::default());
    let sent = vec![1; 20_000_000];
    assert!(pair.transfer(&sent, 1 << 16) == sent);
    assert!(pair.elapsed() < MS * 1_200, "{:?}", pair.elapsed());
}

#[test]
fn a_hundred_streams_open_side_by_side_beyond_the_first_allowance() {
    let mut pair = Pair::new(Link::default());
    let (ours, ..) = pair.connect();
    for ticket in 2..=100 {
        pair.dialer.connection(ours).open(ticket, &preface());
    }
    let accepted = |pair: &mut Pair| {
        let verdicts = pair.dialer.events.iter();
        verdicts
            .filter(|event| matches!(event, QuicEvent::Verdict { verdict: Verdict::Accepted, .. }))
            .count()
    };
    pair.run(Duration::from_secs(5), |pair| accepted(pair) == 100);
    assert_eq!(accepted(&mut pair), 100);
    // Sixteen more a round trip at the least; in fact the allowance doubles.
    assert!(pair.elapsed() < MS * 400, "{:?}", pair.elapsed());
}
