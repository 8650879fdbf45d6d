//! One thread that serves many streams.

use std::{
    io::{self, ErrorKind, Read, Write},
    thread,
    time::{Duration, Instant},
};

use transport::{
    Driver, Readiness, Scheme, Stream, StreamError, StreamKey, StreamSet, Transport, TransportConfig,
};

use crate::support::{PROMPTLY, SCHEMES, interrupted, listen, pair, soon, transport, with_config};

#[test]
fn what_came_is_read_to_the_last_byte_and_the_next_is_told_of_again() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, accepted) = pair(&client, &server, scheme);
        let mut set = StreamSet::new(&server).unwrap();
        let key = set.add(accepted).unwrap();
        for length in [1, 100, 5_000, 300_000] {
            let sent = pattern(length);
            let expected = sent.clone();
            thread::scope(|scope| {
                scope.spawn(|| dialled.write_all(&sent).unwrap());
                let mut received = Vec::new();
                while received.len() < expected.len() {
                    wait_readable(&mut set, key);
                    assert!(!drain(set.get(key).unwrap(), &mut received));
                }
                assert!(received == expected, "{length}");
            });
        }
    }
}

#[test]
fn an_end_that_comes_with_the_last_bytes_is_seen() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let mut set = StreamSet::new(&server).unwrap();
        let (listener, endpoint) = listen(&server, scheme);
        for _ in 0..20 {
            let mut dialled = Stream::direct_connect(&client, endpoint).unwrap();
            let key = set.add(listener.accept_deadline(soon()).unwrap()).unwrap();
            dialled.write_all(b"last words").unwrap();
            drop(dialled);
            let mut received = Vec::new();
            loop {
                wait_readable(&mut set, key);
                if drain(set.get(key).unwrap(), &mut received) {
                    break;
                }
            }
            assert_eq!(received, b"last words");
            set.remove(key).unwrap();
        }
    }
}

#[test]
fn one_thread_serves_many_streams() {
    for scheme in SCHEMES {
        const STREAMS: usize = 100;
        let (client, server) = (transport(), transport());
        let (listener, endpoint) = listen(&server, scheme);
        let mut set = StreamSet::new(&server).unwrap();
        let mut clients = Vec::new();
        for _ in 0..STREAMS {
            clients.push(Stream::direct_connect(&client, endpoint).unwrap());
            set.add(listener.accept_deadline(soon()).unwrap()).unwrap();
        }
        assert_eq!(set.len(), STREAMS);
        thread::scope(|scope| {
            scope.spawn(|| serve_echo(&mut set));
            for stream in &mut clients {
                scope.spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                    for round in 0..20usize {
                        let sent = pattern(1 + round * 1_000);
                        stream.write_all(&sent).unwrap();
                        let mut received = vec![0; sent.len()];
                        stream.read_exact(&mut received).unwrap();
                        assert!(sent == received);
                    }
                    stream.shutdown(std::net::Shutdown::Both).unwrap();
                });
            }
        });
    }
}

#[test]
fn a_writer_that_would_block_goes_on_when_the_stream_is_writable() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, accepted) = pair(&client, &server, scheme);
        let mut set = StreamSet::new(&server).unwrap();
        let key = set.add(accepted).unwrap();
        let sent = pattern(8 << 20);
        let mut at = 0;
        let blocked = loop {
            match set.get(key).unwrap().write(&sent[at..]) {
                Ok(written) => at += written,
                Err(error) => break error,
            }
        };
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
        assert!(at < sent.len(), "the kernel never holds so much");
        thread::scope(|scope| {
            let expected = &sent;
            scope.spawn(move || {
                let mut received = vec![0; expected.len()];
                dialled.read_exact(&mut received).unwrap();
                assert!(received == *expected);
            });
            let mut ready = Vec::new();
            while at < sent.len() || !flushed(set.get(key).unwrap()) {
                set.wait(&mut ready, Some(soon())).unwrap();
                assert!(ready.iter().any(|one| one.writable));
                while let Ok(written) = set.get(key).unwrap().write(&sent[at..]) {
                    at += written;
                    if at == sent.len() {
                        break;
                    }
                }
            }
        });
    }
}

#[test]
fn what_a_stream_brings_along_is_announced() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, mut accepted) = pair(&client, &server, scheme);
        dialled.write_all(b"two bytes").unwrap();
        accepted.read_exact(&mut [0; 1]).unwrap();
        let mut set = StreamSet::new(&server).unwrap();
        let key = set.add(accepted).unwrap();
        wait_readable(&mut set, key);
        let mut rest = Vec::new();
        drain(set.get(key).unwrap(), &mut rest);
        assert_eq!(rest, b"wo bytes");
    }
}

#[test]
fn a_stream_that_leaves_blocks_again_and_its_key_names_nothing() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, accepted) = pair(&client, &server, scheme);
        let mut set = StreamSet::new(&server).unwrap();
        let key = set.add(accepted).unwrap();
        let mut accepted = set.remove(key).unwrap();
        assert!(set.is_empty() && set.get(key).is_none() && set.remove(key).is_none());
        let (mut other, second) = pair(&client, &server, scheme);
        let second = set.add(second).unwrap();
        assert!(second != key && set.get(key).is_none());
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut text = [0; 4];
                accepted.read_exact(&mut text).unwrap();
                assert_eq!(&text, b"late");
            });
            thread::sleep(Duration::from_millis(50));
            dialled.write_all(b"late").unwrap();
        });
        other.write_all(b"x").unwrap();
        wait_readable(&mut set, second);
    }
}

#[test]
fn a_stream_in_use_by_another_thread_is_given_back() {
    let (client, server) = (transport(), transport());
    let (mut dialled, accepted) = pair(&client, &server, Scheme::Tcp);
    let mut reader = accepted.try_clone().unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(move || reader.read(&mut [0; 1]).unwrap());
        let mut set = StreamSet::new(&server).unwrap();
        let mut stream = accepted;
        // Until the other thread sits in its call the stream may be added.
        let error = loop {
            match set.add(stream) {
                Ok(key) => stream = set.remove(key).unwrap(),
                Err(error) => break error,
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(error.error, StreamError::Busy);
        dialled.write_all(b"x").unwrap();
        assert_eq!(reading.join().unwrap(), 1);
        set.add(*error.stream).unwrap();
    });
}

#[test]
fn a_waker_ends_a_wait_from_another_thread_or_before_it_began() {
    let server = transport();
    let mut set = StreamSet::new(&server).unwrap();
    let waker = set.waker();
    waker.wake();
    let mut ready = Vec::new();
    set.wait(&mut ready, Some(soon())).unwrap();
    assert!(ready.is_empty());
    let (result, waited) = interrupted(move || set.wait(&mut Vec::new(), None), || waker.wake());
    assert_eq!(result, Ok(()));
    assert!(waited < PROMPTLY, "{waited:?}");
}

#[test]
fn a_wait_ends_at_its_deadline() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (_dialled, accepted) = pair(&client, &server, scheme);
        let mut set = StreamSet::new(&server).unwrap();
        set.add(accepted).unwrap();
        let mut ready = Vec::new();
        // The first wait may tell that the stream can be written.
        let _ = set.wait(&mut ready, Some(Instant::now() + Duration::from_millis(50)));
        let begun = Instant::now();
        let result = set.wait(&mut ready, Some(begun + Duration::from_millis(100)));
        assert_eq!((result, ready), (Err(StreamError::TimedOut), vec![]));
        let waited = begun.elapsed();
        assert!(
            waited >= Duration::from_millis(100) && waited < Duration::from_millis(100) + PROMPTLY,
            "{waited:?}"
        );
    }
}

#[test]
fn dropping_the_transport_ends_a_wait() {
    let (client, server) = (transport(), transport());
    let (_dialled, accepted) = pair(&client, &server, Scheme::Tcp);
    let mut set = StreamSet::new(&server).unwrap();
    set.add(accepted).unwrap();
    let wait = move || {
        let mut ready = Vec::new();
        loop {
            if let Err(error) = set.wait(&mut ready, None) {
                break (error, ready.is_empty());
            }
        }
    };
    let (result, waited) = interrupted(wait, || drop(server));
    assert_eq!(result, (StreamError::Closed, true));
    assert!(waited < PROMPTLY, "{waited:?}");
    let empty: Transport = transport();
    let mut set = StreamSet::new(&empty).unwrap();
    let (result, waited) = interrupted(move || set.wait(&mut Vec::new(), None), || drop(empty));
    assert_eq!(result, Err(StreamError::Closed));
    assert!(waited < PROMPTLY, "{waited:?}");
}

/// Echoes until every stream has ended.
fn serve_echo(set: &mut StreamSet) {
    let mut ready = Vec::new();
    let mut unsent: Vec<(StreamKey, Vec<u8>)> = Vec::new();
    while !set.is_empty() {
        set.wait(&mut ready, Some(soon())).unwrap();
        for Readiness { key, .. } in ready.drain(..) {
            let stream = set.get(key).unwrap();
            let mut bytes = Vec::new();
            let ended = drain(stream, &mut bytes);
            let mut queue = match unsent.iter().position(|(one, _)| *one == key) {
                Some(index) => unsent.swap_remove(index).1,
                None => Vec::new(),
            };
            queue.extend(bytes);
            let done = send(stream, &mut queue);
            if ended {
                set.remove(key).unwrap();
            } else if !done {
                unsent.push((key, queue));
            }
        }
    }
}

/// Tells whether everything is with the kernel.
fn send(mut stream: &Stream, queue: &mut Vec<u8>) -> bool {
    while !queue.is_empty() {
        match stream.write(queue) {
            Ok(written) => drop(queue.drain(..written)),
            Err(_) => return false,
        }
    }
    flushed(stream)
}

fn flushed(mut stream: &Stream) -> bool {
    stream.flush().is_ok()
}

/// Waits until this stream is readable.
fn wait_readable(set: &mut StreamSet, key: StreamKey) {
    let mut ready = Vec::new();
    loop {
        set.wait(&mut ready, Some(soon())).unwrap();
        if ready.iter().any(|one| one.key == key && one.readable) {
            return;
        }
    }
}

/// Reads until the stream would block; tells whether it has ended.
fn drain(mut stream: &Stream, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 10_000];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(length) => into.extend_from_slice(&buffer[..length]),
            Err(error) if is_would_block(&error) => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[test]
fn without_a_background_thread_a_set_of_both_schemes_serves_itself() {
    let (client, server) = (transport(), with_config(TransportConfig::default().driver(Driver::Caller)));
    let mut set = StreamSet::new(&server).unwrap();
    let mut dialled = Vec::new();
    for scheme in [Scheme::Tcp, Scheme::Quic] {
        let (listener, endpoint) = listen(&server, scheme);
        thread::scope(|scope| {
            let dial = scope.spawn(|| Stream::direct_connect(&client, endpoint).unwrap());
            set.add(listener.accept_deadline(soon()).unwrap()).unwrap();
            dialled.push(dial.join().unwrap());
        });
    }
    thread::scope(|scope| {
        scope.spawn(|| serve_echo(&mut set));
        for mut stream in dialled {
            scope.spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                for _ in 0..5 {
                    stream.write_all(b"ping").unwrap();
                    stream.read_exact(&mut [0; 4]).unwrap();
                }
                stream.shutdown(std::net::Shutdown::Both).unwrap();
            });
        }
    });
}
