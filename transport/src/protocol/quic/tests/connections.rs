//! How connections live and end, and where their datagrams go.

use std::time::Duration;

use super::{ended, pattern};
use crate::protocol::quic::{
    ConnectionEnd, QuicConnection,
    pair::{Link, MS, Pair},
};

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
fn two_that_were_cut_off_in_the_midst_of_transfers_go_on_at_once() {
    let mut pair = Pair::new(Link::default());
    let (ours, theirs, stream) = pair.connect();
    let write_all = |pair: &mut Pair| {
        while pair.dialer.connection(ours).write(stream, &[1; 4_096]).is_ok() {}
        while pair.acceptor.connection(theirs).write(stream, &[2; 4_096]).is_ok() {}
    };
    let read_all = |pair: &mut Pair| {
        let mut buffer = [0; 4_096];
        let mut read = |connection: &mut QuicConnection| {
            std::iter::from_fn(|| connection.read(stream, &mut buffer).ok()).sum::<usize>()
        };
        [read(pair.dialer.connection(ours)), read(pair.acceptor.connection(theirs))]
    };
    pair.run(MS * 500, |pair| {
        read_all(pair);
        write_all(pair);
        false
    });
    pair.link.lost_per_mille = 1_000;
    pair.run(Duration::from_secs(5), |pair| {
        read_all(pair);
        write_all(pair);
        false
    });
    pair.link.lost_per_mille = 0;
    let (now, mut got) = (pair.now, [0; 2]);
    pair.dialer.connection(ours).path_changed(now, false);
    pair.acceptor.connection(theirs).path_changed(now, false);
    let goes_on = pair.run(MS * 500, |pair| {
        let new = read_all(pair);
        got = [got[0] + new[0], got[1] + new[1]];
        write_all(pair);
        got.iter().all(|bytes| *bytes > 100_000)
    });
    assert!(goes_on, "{got:?} bytes in half a second");
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
    pair.run(MS * 200, |_| false);
    let mut buffer = [0; 8];
    assert_eq!(pair.dialer.connection(ours).read(stream, &mut buffer), Ok(4));
    let silent_from = pair.now;
    pair.run(MS * 5_000, |_| false);
    let sent = pair.dialer.sent.iter().filter(|(at, _)| *at > silent_from).count();
    assert_eq!(sent, 1, "one probe, and no more until the keep-alive");
}
