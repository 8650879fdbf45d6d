use std::time::Duration;

use super::{
    ConnectionEnd, QuicEvent, QuicHandle, ReadEnd, WriteEnd,
    pair::{Link, MS, Pair, preface},
};
use crate::{Identity, Limits, Refusal, StreamError, protocol::verdict::Verdict};

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
fn the_same_seeds_give_the_same_run() {
    let run = || {
        let mut pair = Pair::new(Link { lost_per_mille: 50, jitter: MS * 9, ..Link::default() });
        pair.transfer(&pattern(100_000), 4_096);
        (
            pair.elapsed(),
            pair.dialer.sent.iter().map(|(at, bytes)| (*at - pair.start, *bytes)).collect::<Vec<_>>(),
        )
    };
    let (first, second) = (run(), run());
    assert_eq!(first.0, second.0);
    assert_eq!(first.1, second.1);
}

#[test]
fn every_byte_arrives_in_order_whatever_the_wire_does() {
    for seed in 0..8 {
        let link = Link { lost_per_mille: 50, jitter: MS * 15, seed, ..Link::default() };
        let sent = pattern(300_000);
        assert!(Pair::new(link).transfer(&sent, 10_000) == sent, "seed {seed}");
    }
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

#[test]
fn a_silent_peer_is_lost_after_dead_after_whether_or_not_somebody_writes() {
    for writing in [false, true] {
        let mut pair =
            Pair::with(Link::default(), |settings| settings.dead_after = Some(Duration::from_secs(3)));
        let (ours, _, stream) = pair.connect();
        pair.run(Duration::from_secs(20), |_| false);
        assert_eq!(ended(&pair.dialer.events), None, "keep-alives keep it");
        pair.link.lost_per_mille = 1_000;
        let cut = pair.elapsed();
        pair.run(Duration::from_secs(20), |pair| {
            if writing {
                let _ = pair.dialer.connection(ours).write(stream, b"anybody?");
            }
            ended(&pair.dialer.events).is_some()
        });
        let Some(ConnectionEnd::Silent(silent_for)) = ended(&pair.dialer.events) else { panic!("{writing}") };
        let took = pair.elapsed() - cut;
        assert!(silent_for >= Duration::from_secs(3) && silent_for < MS * 3_100, "{silent_for:?}");
        assert!(took >= MS * 1_900 && took <= MS * 3_100, "{took:?}");
    }
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
fn nothing_is_left_of_a_closed_connection() {
    let mut pair = Pair::new(Link::default());
    for _ in 0..20 {
        let (ours, ..) = pair.connect();
        let now = pair.now;
        pair.dialer.connection(ours).close(now);
        pair.run(Duration::from_secs(3), |_| false);
        pair.dialer.events.clear();
    }
    assert_eq!((pair.dialer.endpoint.len(), pair.acceptor.endpoint.len()), (0, 0));
}

#[test]
fn an_unused_connection_is_closed_by_the_dialer() {
    let mut pair = Pair::new(Link::default());
    let (ours, theirs, stream) = pair.connect();
    let now = pair.now;
    pair.dialer.connection(ours).release(now, stream);
    pair.acceptor.connection(theirs).release(now, stream);
    pair.run(Duration::from_secs(4), |_| false);
    assert_eq!(ended(&pair.dialer.events), None);
    pair.run(Duration::from_secs(4), |_| false);
    assert_eq!(ended(&pair.dialer.events), Some(ConnectionEnd::Closed));
    assert_eq!(ended(&pair.acceptor.events), Some(ConnectionEnd::ClosedByPeer));
}

#[test]
fn the_path_mtu_is_found_below_what_the_wire_carries() {
    let mut pair = Pair::with(Link { mtu: 1_400, ..Link::default() }, |settings| settings.max_mtu = 1_800);
    let sent = vec![1; 5_000_000];
    assert!(pair.transfer(&sent, 1 << 16) == sent);
    let largest = pair.dialer.connections.values().map(|connection| connection.mtu()).max().unwrap();
    assert!((1_300..=1_400).contains(&largest), "{largest}");
}

#[test]
fn a_datagram_from_elsewhere_still_belongs_to_its_connection() {
    let mut pair = Pair::new(Link::default());
    let (ours, theirs, stream) = pair.connect();
    pair.run(MS * 100, |_| false);
    // A NAT has given the dialer another port: what it sends comes from there.
    pair.dialer.addr = "192.0.2.1:55555".parse().unwrap();
    pair.dialer.connection(ours).write(stream, b"moved").unwrap();
    pair.run(MS * 30, |_| false);
    let mut buffer = [0; 8];
    assert_eq!(pair.acceptor.connection(theirs).read(stream, &mut buffer), Ok(5));
}

#[test]
fn whose_data_stopped_coming_shows_once_where_it_is() {
    let mut pair = Pair::new(Link::default());
    let (ours, theirs, stream) = pair.connect();
    pair.acceptor.connection(theirs).write(stream, b"some").unwrap();
    pair.run(MS * 500, |_| false);
    let mut buffer = [0; 8];
    assert_eq!(pair.dialer.connection(ours).read(stream, &mut buffer), Ok(4));
    let silent_from = pair.now;
    pair.run(MS * 5_000, |_| false);
    let sent = pair.dialer.sent.iter().filter(|(at, _)| *at > silent_from).count();
    assert_eq!(sent, 1, "one probe, and no more until the keep-alive");
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

fn opened_stream(pair: &Pair) -> Option<super::QuicStreamId> {
    pair.dialer.events.iter().find_map(|event| match event {
        QuicEvent::Opened { stream, .. } => Some(*stream),
        _ => None,
    })
}

fn preface_of(pair: &Pair) -> Option<super::QuicStreamId> {
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
