//! TCP streams: deadlines, modes, two threads on one stream, and peers that are none of ours.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use transport::{ConnectError, ConnectOptions, Endpoint, Identity, Scheme, Stream, StreamError};

use crate::{
    proxy::{Cut, Proxy},
    support::{PROMPTLY, listen, pair, soon, transport},
};

#[test]
fn a_read_ends_at_its_deadline_and_the_stream_stays_usable() {
    let (client, server) = (transport(), transport());
    let (mut dialled, mut accepted) = pair(&client, &server, Scheme::Tcp);
    accepted.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let begun = Instant::now();
    assert_eq!(kind(accepted.read(&mut [0; 1])), StreamError::TimedOut);
    let waited = begun.elapsed();
    // The kernel counts such times in ticks of at most 10 ms.
    assert!(
        waited >= Duration::from_millis(90) && waited < Duration::from_millis(100) + PROMPTLY,
        "{waited:?}"
    );
    accepted.set_read_timeout(None).unwrap();
    dialled.write_all(b"late").unwrap();
    accepted.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn a_record_in_pieces_does_not_stretch_the_deadline() {
    let (client, server) = (transport(), transport());
    let (listener, endpoint) = listen(&server, Scheme::Tcp);
    let proxy = Trickle::new(endpoint.addr());
    let through = Endpoint::new(Scheme::Tcp, proxy.addr, server.public_key());
    let mut dialled = Stream::direct_connect(&client, through).unwrap();
    let mut accepted = listener.accept_deadline(soon()).unwrap();
    proxy.slow_down();
    accepted.write_all(&[1; 10_000]).unwrap();
    dialled.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let begun = Instant::now();
    assert_eq!(kind(dialled.read(&mut [0; 1])), StreamError::TimedOut);
    let waited = begun.elapsed();
    assert!(waited < Duration::from_millis(300) + PROMPTLY, "{waited:?}");
}

#[test]
fn a_write_that_times_out_in_the_midst_of_a_record_loses_and_repeats_nothing() {
    let (client, server) = (transport(), transport());
    let (mut dialled, mut accepted) = pair(&client, &server, Scheme::Tcp);
    let sent: Vec<u8> = pattern(0, 6 << 20);
    dialled.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let expected = sent.clone();
    let mut at = 0;
    let mut timeouts = 0;
    while timeouts < 3 {
        match dialled.write(&sent[at..at + 50_000]) {
            Ok(written) => at += written,
            Err(error) => {
                assert_eq!(kind(Err(error)), StreamError::TimedOut);
                timeouts += 1;
            }
        }
    }
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        accepted.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        accepted.read_to_end(&mut received).unwrap();
        assert!(received == expected, "{} of {}", received.len(), expected.len());
    });
    dialled.set_write_timeout(None).unwrap();
    dialled.write_all(&sent[at..]).unwrap();
    drop(dialled);
    reader.join().unwrap();
}

#[test]
fn without_blocking_nothing_waits_and_nothing_is_lost() {
    let (client, server) = (transport(), transport());
    let (mut dialled, mut accepted) = pair(&client, &server, Scheme::Tcp);
    for stream in [&dialled, &accepted] {
        stream.set_nonblocking(true).unwrap();
    }
    assert_eq!(kind(accepted.read(&mut [0; 1])), StreamError::WouldBlock);
    let sent = pattern(0, 4 << 20);
    let (mut at, mut received) = (0, Vec::new());
    let deadline = soon();
    while received.len() < sent.len() {
        assert!(Instant::now() < deadline, "{} of {}", received.len(), sent.len());
        if at < sent.len() {
            match dialled.write(&sent[at..]) {
                Ok(written) => at += written,
                Err(error) => assert_eq!(kind(Err(error)), StreamError::WouldBlock),
            }
        } else {
            let _ = dialled.flush();
        }
        let mut buffer = [0; 10_000];
        match accepted.read(&mut buffer) {
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) => assert_eq!(kind(Err(error)), StreamError::WouldBlock),
        }
    }
    assert!(sent == received);
}

#[test]
fn the_mode_does_not_change_under_a_call() {
    let (client, server) = (transport(), transport());
    let (mut dialled, accepted) = pair(&client, &server, Scheme::Tcp);
    let mut reader = accepted.try_clone().unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(move || reader.read(&mut [0; 1]).unwrap());
        // Until the other thread sits in its call the mode may change.
        while accepted.set_nonblocking(false).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(accepted.set_nonblocking(true), Err(StreamError::Busy));
        dialled.write_all(b"x").unwrap();
        assert_eq!(reading.join().unwrap(), 1);
        accepted.set_nonblocking(true).unwrap();
    });
}

#[test]
fn reader_and_writer_of_one_stream_work_in_two_threads_under_load() {
    const TOTAL_BYTES: usize = 12 << 20;
    let (client, server) = (transport(), transport());
    let (dialled, accepted) = pair(&client, &server, Scheme::Tcp);
    thread::scope(|scope| {
        for (salt, stream) in [(1, dialled), (2, accepted)] {
            let (mut reader, mut writer) = stream.split();
            scope.spawn(move || {
                let (mut at, mut step) = (0, 1);
                while at < TOTAL_BYTES {
                    // From single bytes to several records.
                    step = (step * 7 + 13) % 150_000;
                    let length = step.min(TOTAL_BYTES - at);
                    writer.write_all(&pattern(salt + at, length)).unwrap();
                    at += length;
                }
            });
            scope.spawn(move || {
                let mut buffer = vec![0; 100_000];
                let (mut at, mut step) = (0, 1);
                loop {
                    step = (step * 11 + 5) % buffer.len() + 1;
                    let length = reader.read(&mut buffer[..step]).unwrap();
                    if length == 0 {
                        break;
                    }
                    assert!(buffer[..length] == pattern(3 - salt + at, length), "at {at}");
                    at += length;
                }
                assert_eq!(at, TOTAL_BYTES);
            });
        }
    });
}

#[test]
fn statistics_count_what_the_application_moved() {
    let (client, server) = (transport(), transport());
    let (mut dialled, mut accepted) = pair(&client, &server, Scheme::Tcp);
    dialled.write_all(&[1; 100_000]).unwrap();
    accepted.read_exact(&mut vec![0; 100_000]).unwrap();
    assert_eq!((dialled.stats().sent_bytes, dialled.stats().received_bytes), (100_000, 0));
    assert_eq!((accepted.stats().sent_bytes, accepted.stats().received_bytes), (0, 100_000));
}

#[test]
fn strangers_at_the_door_keep_nobody_out() {
    let (client, server) = (transport(), transport());
    let (listener, endpoint) = listen(&server, Scheme::Tcp);
    let giant = [22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff];
    let strangers: Vec<TcpStream> =
        [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100_000], &giant, &[22, 3, 1, 0xff, 0xff]]
            .into_iter()
            .map(|bytes| {
                let mut stranger = TcpStream::connect(endpoint.addr()).unwrap();
                // It may be cut off in the midst of it.
                let _ = stranger.write_all(bytes);
                stranger
            })
            .collect();
    let mut dialled = Stream::direct_connect(&client, endpoint).unwrap();
    let mut accepted = listener.accept_deadline(soon()).unwrap();
    dialled.write_all(b"hello").unwrap();
    accepted.read_exact(&mut [0; 5]).unwrap();
    // All but the one who has said nothing yet are cut off at once, long before the handshake's deadline.
    for mut stranger in strangers.into_iter().skip(1) {
        stranger.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut rest = Vec::new();
        let end = stranger.read_to_end(&mut rest);
        let waited_out =
            |error: &io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!end.as_ref().is_err_and(waited_out), "{end:?}");
    }
}

#[test]
fn a_dial_to_a_stranger_fails_at_once() {
    let key = Identity::generate().public_key();
    for bytes in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0xff; 100_000], &[22, 3, 3, 0xff, 0xff]] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = Endpoint::new(Scheme::Tcp, listener.local_addr().unwrap(), key);
        let stranger = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 1_000]);
            let _ = socket.write_all(bytes);
            let _ = socket.shutdown(Shutdown::Write);
            let _ = socket.read_to_end(&mut Vec::new());
        });
        let options = ConnectOptions::new().timeout(Duration::from_secs(20));
        let error = Stream::connect_with(&transport(), endpoint, &options).unwrap_err();
        let cut_off = matches!(error, ConnectError::Handshake { .. } | ConnectError::Socket { .. });
        assert!(cut_off, "{error:?}");
        stranger.join().unwrap();
    }
}

#[test]
fn an_early_close_at_any_step_of_the_handshake_ends_the_dial_and_harms_nobody() {
    let server = transport();
    let (listener, endpoint) = listen(&server, Scheme::Tcp);
    // A first flight has some 250 bytes, the second some 300; beyond that the stream is there.
    for limit in (0..600).step_by(50) {
        for cut in [Cut::Fin, Cut::Reset] {
            let proxy = Proxy::with_limit(endpoint.addr(), limit.max(1), cut);
            let through = Endpoint::new(Scheme::Tcp, proxy.addr, server.public_key());
            let options = ConnectOptions::new().timeout(Duration::from_secs(20));
            match Stream::connect_with(&transport(), through, &options) {
                Ok(_) => {}
                Err(ConnectError::Handshake { .. } | ConnectError::Socket { .. }) => {}
                Err(error) => panic!("{limit} {cut:?}: {error:?}"),
            }
        }
    }
    // Some got through with their last byte and were cut only then.
    while listener.accept_deadline(Instant::now() + Duration::from_millis(50)).is_ok() {}
    Stream::direct_connect(&transport(), endpoint).unwrap();
    listener.accept_deadline(soon()).unwrap();
}

/// A wire that can be made so slow that a record comes in pieces.
struct Trickle {
    addr: std::net::SocketAddr,
    slow: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Trickle {
    fn new(target: std::net::SocketAddr) -> Self {
        use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering::SeqCst};
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let slow = Arc::new(AtomicBool::new(false));
        let flag = slow.clone();
        thread::spawn(move || {
            let (near, _) = listener.accept().unwrap();
            let far = TcpStream::connect(target).unwrap();
            let (mut up, mut to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut up, &mut to_far));
            let (mut down, mut to_near) = (far, near);
            let mut buffer = [0; 1_000];
            while let Ok(length @ 1..) = down.read(&mut buffer) {
                for piece in buffer[..length].chunks(if flag.load(SeqCst) { 10 } else { length }) {
                    if flag.load(SeqCst) {
                        thread::sleep(Duration::from_millis(20));
                    }
                    if to_near.write_all(piece).is_err() {
                        return;
                    }
                }
            }
        });
        Self { addr, slow }
    }

    fn slow_down(&self) {
        self.slow.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

fn kind(result: io::Result<usize>) -> StreamError {
    let error = result.unwrap_err();
    StreamError::of(&error).unwrap_or_else(|| panic!("{error:?}")).clone()
}

/// Bytes that tell their place.
fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|index| (index % 251) as u8 ^ (index >> 12) as u8).collect()
}
