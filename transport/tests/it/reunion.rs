//! Peers that dial each other at the same time: their streams share one connection, and each call has its own; with `single`,
//! both calls have the two ends of one.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use transport::{
    AcceptError, ConnectError, ConnectOptions, Driver, Endpoint, Identity, Interrupter, Listener, Path,
    ProtocolLabel, Scheme, Stream, Transport, TransportConfig,
};

use crate::support::{SCHEMES, listen, soon, transport};

/// Those of each side in one round, and the rounds: a hundred dials a side.
const DIALS: u8 = 10;
const ROUNDS: usize = 10;

#[test]
fn a_hundred_and_a_hundred_simultaneous_dials_keep_one_connection_a_pair() {
    for round in 0..ROUNDS {
        let peers = [transport(), transport()];
        let listening = [listen(&peers[0], Scheme::Quic), listen(&peers[1], Scheme::Quic)];
        let barrier = Barrier::new(usize::from(DIALS) * 2);
        let paths: Vec<Vec<Path>> = thread::scope(|scope| {
            let (peers, listening, barrier) = (&peers, &listening, &barrier);
            let dials: Vec<_> = (0..DIALS)
                .flat_map(|number| [(0, number), (1, number)])
                .map(|(side, number)| {
                    scope.spawn(move || {
                        barrier.wait();
                        dial(&peers[side], listening[1 - side].1, number)
                    })
                })
                .collect();
            let accepting = [0, 1].map(|side| scope.spawn(move || accept_all(&listening[side].0)));
            // Held until all are there, so that no connection is closed for lack of streams.
            let dialled: Vec<Stream> = dials.into_iter().map(|dial| dial.join().unwrap()).collect();
            let accepted: Vec<_> = accepting.into_iter().map(|accepting| accepting.join().unwrap()).collect();
            let mut paths: Vec<_> = accepted.iter().map(|streams| paths_of(streams)).collect();
            paths.push(paths_of(&dialled));
            paths
        });
        let ports: BTreeSet<_> = paths.iter().flatten().map(ends).collect();
        assert_eq!(ports.len(), 1, "round {round}: one connection, so one pair of ports: {ports:?}");
    }
}

#[test]
fn who_was_dialled_dials_back_over_the_same_connection() {
    let (ours, theirs) = (transport(), transport());
    let (our_listener, our_endpoint) = listen(&ours, Scheme::Quic);
    let (their_listener, their_endpoint) = listen(&theirs, Scheme::Quic);
    let first = dial(&ours, their_endpoint, 1);
    let accepted = accept(&their_listener);
    let back = dial(&theirs, our_endpoint, 2);
    let accepted_back = accept(&our_listener);
    assert_eq!((accepted.1, accepted_back.1), (1, 2));
    assert_eq!(ends(&first.path()), ends(&back.path()));
    // It stays while the stream of either is held.
    drop((first, accepted));
    exchange(&back, &accepted_back.0);
}

#[test]
fn a_peer_with_listeners_of_their_own_is_dialled_at_the_one_that_was_meant() {
    let (ours, theirs) = (transport(), transport());
    let (one, _) = listen(&ours, Scheme::Quic);
    let (other, other_endpoint) = listen(&ours, Scheme::Quic);
    let (their_listener, their_endpoint) = listen(&theirs, Scheme::Quic);
    let held = (dial(&ours, their_endpoint, 1), accept(&their_listener));
    let back = dial(&theirs, other_endpoint, 2);
    let accepted = accept(&other);
    assert_eq!(accepted.1, 2);
    exchange(&back, &accepted.0);
    drop((held, one));
}

#[test]
fn a_stream_with_a_connection_of_its_own_is_left_alone() {
    let (ours, theirs) = (transport(), transport());
    let (our_listener, our_endpoint) = listen(&ours, Scheme::Quic);
    let (their_listener, their_endpoint) = listen(&theirs, Scheme::Quic);
    let own = ConnectOptions::new().own_connection();
    let alone = Stream::connect_with(&ours, their_endpoint, &own).unwrap();
    let accepted = their_listener.accept_deadline(soon()).unwrap();
    let back = dial(&theirs, our_endpoint, 2);
    let accepted_back = accept(&our_listener);
    assert_ne!(ends(&alone.path()), ends(&back.path()));
    exchange(&alone, &accepted);
    exchange(&back, &accepted_back.0);
}

#[test]
fn a_peer_that_went_without_a_word_is_dialled_at_its_address() {
    let ours = transport();
    let (our_listener, our_endpoint) = listen(&ours, Scheme::Quic);
    // Nobody turns its crank, so it says nothing unless it is called: as after a crash, of which nobody tells us.
    let config = TransportConfig::default().driver(Driver::Caller);
    let earlier = Transport::new(Identity::from_seed([7; 32]), config).unwrap();
    let guest = (dial(&earlier, our_endpoint, 1), accept(&our_listener));
    let later = Transport::new(Identity::from_seed([7; 32]), TransportConfig::default()).unwrap();
    let (listener, endpoint) = listen(&later, Scheme::Quic);
    let stream = dial(&ours, endpoint, 3);
    let accepted = accept(&listener);
    assert_eq!(accepted.1, 3);
    exchange(&stream, &accepted.0);
    drop(guest);
}

#[test]
fn a_hundred_pairs_of_simultaneous_calls_have_a_hundred_streams() {
    for scheme in SCHEMES {
        let peers = [transport(), transport()];
        let listening = [listen(&peers[0], scheme), listen(&peers[1], scheme)];
        let barrier = Barrier::new(2 * CALLS);
        thread::scope(|scope| {
            let (peers, listening, barrier) = (&peers, &listening, &barrier);
            let calls: Vec<_> = (0..CALLS)
                .map(|number| {
                    let call = move |side: usize| {
                        barrier.wait();
                        Stream::connect_with(&peers[side], listening[1 - side].1, &single(number)).unwrap()
                    };
                    [0, 1].map(|side| scope.spawn(move || call(side)))
                })
                .collect();
            for [one, other] in calls {
                exchange(&one.join().unwrap(), &other.join().unwrap());
            }
        });
        for (listener, _) in &listening {
            assert_nothing_accepted(listener);
        }
    }
}

#[test]
fn who_calls_first_waits_for_the_other_and_one_listener_is_enough() {
    for scheme in SCHEMES {
        let peers = [transport(), transport()];
        let (listener, endpoint) = listen(&peers[0], scheme);
        // Nobody listens there: a socket that is bound and says nothing.
        let nowhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let nowhere = Endpoint::new(Scheme::Quic, nowhere.local_addr().unwrap(), peers[1].public_key());
        thread::scope(|scope| {
            let first = scope.spawn(|| Stream::connect_with(&peers[1], endpoint, &single(7)).unwrap());
            // It is refused until the other one calls.
            await_unknown(&peers[0]);
            let other = Stream::connect_with(&peers[0], nowhere, &single(7)).unwrap();
            exchange(&first.join().unwrap(), &other);
        });
        // Once more, with the same label.
        thread::scope(|scope| {
            let first = scope.spawn(|| Stream::connect_with(&peers[1], endpoint, &single(7)).unwrap());
            let other = Stream::connect_with(&peers[0], nowhere, &single(7)).unwrap();
            exchange(&first.join().unwrap(), &other);
        });
        assert_nothing_accepted(&listener);
    }
}

#[test]
fn a_single_call_and_a_plain_one_do_not_meet() {
    for scheme in SCHEMES {
        let (ours, theirs) = (transport(), transport());
        let (our_listener, our_endpoint) = listen(&ours, scheme);
        let (their_listener, their_endpoint) = listen(&theirs, scheme);
        let interrupter = Interrupter::default();
        let plain = ConnectOptions::new().timeout(Duration::from_secs(30));
        let options = plain.clone().single().interrupter(&interrupter);
        thread::scope(|scope| {
            let call = scope.spawn(|| Stream::connect_with(&ours, their_endpoint, &options));
            await_unknown(&theirs);
            let dialled = Stream::connect_with(&theirs, our_endpoint, &plain).unwrap();
            let accepted = our_listener.accept_deadline(soon()).unwrap();
            exchange(&dialled, &accepted);
            interrupter.interrupt();
            assert!(matches!(call.join().unwrap(), Err(ConnectError::Interrupted)));
        });
        assert_nothing_accepted(&their_listener);
    }
}

#[test]
fn a_second_single_call_at_once_says_that_one_is_under_way() {
    let (ours, theirs) = (transport(), transport());
    let (_listener, endpoint) = listen(&theirs, Scheme::Quic);
    let interrupter = Interrupter::default();
    let options = single(1).interrupter(&interrupter);
    thread::scope(|scope| {
        let call = scope.spawn(|| Stream::connect_with(&ours, endpoint, &options));
        await_unknown(&theirs);
        let error = Stream::connect_with(&ours, endpoint, &single(1)).unwrap_err();
        assert!(error.to_string().contains("under way"), "{error}");
        interrupter.interrupt();
        assert!(matches!(call.join().unwrap(), Err(ConnectError::Interrupted)));
    });
}

/// Until somebody has called that transport and found no call of its own.
fn await_unknown(transport: &Transport) {
    let deadline = soon();
    while transport.stats().rendezvous_unknown == 0 {
        assert!(Instant::now() < deadline, "nobody calls");
        thread::sleep(Duration::from_millis(5));
    }
}

fn assert_nothing_accepted(listener: &Listener) {
    let accepted = listener.accept_deadline(Instant::now() + Duration::from_millis(20));
    assert!(matches!(accepted, Err(AcceptError::TimedOut)), "{accepted:?}");
}

const CALLS: usize = 50;

/// Calls of one number meet.
fn single(number: usize) -> ConnectOptions {
    let label = ProtocolLabel::new(format!("single/{number}")).unwrap();
    ConnectOptions::new().single().protocol(label).timeout(Duration::from_secs(30))
}

fn dial(from: &Transport, to: Endpoint, number: u8) -> Stream {
    let options = ConnectOptions::new().timeout(Duration::from_secs(30));
    let mut stream = Stream::connect_with(from, to, &options).unwrap();
    stream.write_all(&[number]).unwrap();
    stream
}

fn accept(listener: &Listener) -> (Stream, u8) {
    let mut stream = listener.accept_deadline(soon()).unwrap();
    let mut number = [0];
    stream.read_exact(&mut number).unwrap();
    (stream, number[0])
}

fn accept_all(listener: &Listener) -> Vec<Stream> {
    let (streams, numbers): (Vec<_>, BTreeSet<_>) = (0..DIALS).map(|_| accept(listener)).unzip();
    assert_eq!(numbers, (0..DIALS).collect(), "each dial is accepted once, with what it wrote");
    streams
}

fn exchange(mut one: &Stream, mut other: &Stream) {
    one.write_all(b"there").unwrap();
    other.write_all(b"back!").unwrap();
    let mut got = [[0; 5]; 2];
    other.read_exact(&mut got[0]).unwrap();
    one.read_exact(&mut got[1]).unwrap();
    assert_eq!(got, [*b"there", *b"back!"]);
}

fn paths_of(streams: &[Stream]) -> Vec<Path> {
    streams.iter().map(Stream::path).collect()
}

/// The ports of both ends, whoever asks.
fn ends(path: &Path) -> [u16; 2] {
    let mut ports = [path.local.port(), path.remote.port()];
    ports.sort_unstable();
    ports
}
