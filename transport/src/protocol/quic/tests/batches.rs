//! What waits a moment so that fewer datagrams go.

use std::time::Duration;

use crate::protocol::quic::{
    QuicEvent, ReadEnd,
    pair::{Link, MS, Pair, preface},
};

#[test]
fn the_rest_of_a_long_write_waits_a_millisecond_at_most_and_a_short_write_not_at_all() {
    let mut pair = Pair::new(Link { delay: MS, ..Link::default() });
    let (ours, theirs, stream) = pair.connect();
    // The congestion window begins with less than a batch of the test's wire, which is 10 datagrams.
    let mut buffer = vec![0; 100_000];
    let mut left = buffer.len();
    assert_eq!(pair.dialer.connection(ours).write(stream, &buffer), Ok(left));
    pair.run(Duration::from_secs(2), |pair| {
        left -= pair.acceptor.connection(theirs).read(stream, &mut buffer).unwrap_or(0);
        false
    });
    assert_eq!(left, 0);

    let sent_by_writing = |pair: &mut Pair, bytes: usize| {
        let before = pair.dialer.sent.len();
        assert_eq!(pair.dialer.connection(ours).write(stream, &vec![1; bytes]), Ok(bytes));
        pair.flush();
        pair.dialer.sent.len() - before
    };
    let payload = usize::from(pair.dialer.connection(ours).mtu()) - 40;
    assert_eq!(sent_by_writing(&mut pair, payload), 1);
    assert_eq!(sent_by_writing(&mut pair, 10 * payload + 1_000), 10);
    let (written, sent) = (pair.now, pair.dialer.sent.len());
    assert!(pair.run(MS * 10, |pair| pair.dialer.sent.len() > sent));
    assert_eq!((pair.now - written, pair.dialer.sent.len() - sent), (MS, 1));
}

#[test]
fn answers_on_many_streams_go_in_one_datagram_and_wait_a_millisecond_at_most_for_a_late_one() {
    const STREAMS: usize = 8;
    let mut pair = Pair::new(Link { delay: MS, ..Link::default() });
    let (ours, theirs, _) = pair.connect();
    for ticket in 2..=STREAMS as u64 {
        pair.dialer.connection(ours).open(ticket, &preface());
    }
    let verdicts = |pair: &Pair| -> Vec<_> {
        let events = pair.dialer.events.iter();
        events
            .filter_map(
                |event| if let QuicEvent::Verdict { stream, .. } = event { Some(*stream) } else { None },
            )
            .collect()
    };
    assert!(pair.run(MS * 500, |pair| verdicts(pair).len() == STREAMS));
    let streams = verdicts(&pair);
    pair.run(MS * 500, |_| false);
    for stream in &streams {
        assert_eq!(pair.acceptor.connection(theirs).read(*stream, &mut [0; 9]), Err(ReadEnd::Blocked));
    }

    let ask = |pair: &mut Pair| {
        pair.acceptor.events.clear();
        streams
            .iter()
            .for_each(|stream| assert_eq!(pair.dialer.connection(ours).write(*stream, b"ask"), Ok(3)));
        let readable = |event: &&QuicEvent| matches!(event, QuicEvent::Readable(_));
        assert!(pair.run(MS * 9, |pair| pair.acceptor.events.iter().filter(readable).count() == STREAMS));
        pair.acceptor.sent.len()
    };
    let answer = |pair: &mut Pair, stream| {
        let connection = pair.acceptor.connection(theirs);
        assert_eq!(connection.read(stream, &mut [0; 9]), Ok(3));
        assert_eq!(connection.write(stream, b"answer"), Ok(6));
        pair.flush();
        pair.acceptor.sent.len()
    };
    let (last, others) = streams.split_last().unwrap();

    let sent = ask(&mut pair);
    others.iter().for_each(|stream| assert_eq!(answer(&mut pair, *stream), sent));
    assert_eq!(answer(&mut pair, *last), sent + 1);

    let (sent, asked) = (ask(&mut pair), pair.now);
    others.iter().for_each(|stream| assert_eq!(answer(&mut pair, *stream), sent));
    assert!(pair.run(MS * 9, |pair| pair.acceptor.sent.len() > sent));
    assert_eq!((pair.now - asked, pair.acceptor.sent.len() - sent), (MS, 1));
    assert_eq!(answer(&mut pair, *last), sent + 2, "whoever is late sends at once");
}
