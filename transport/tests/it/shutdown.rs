//! Dropping and closing end every wait, and leave nothing behind.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use transport::{
    AcceptError, ConnectError, Driver, Endpoint, Identity, Listener, Scheme, Stream, StreamError,
    TransportConfig,
};

use crate::support::{PROMPTLY, SCHEMES, interrupted, listen, pair, soon, transport, with_config};

#[test]
fn dropping_the_transport_ends_accept() {
    for scheme in SCHEMES {
        let server = transport();
        let (listener, _) = listen(&server, scheme);
        let (result, waited) = interrupted(move || listener.accept().unwrap_err(), || drop(server));
        assert_eq!(result, AcceptError::Closed);
        assert!(waited < PROMPTLY, "{waited:?}");
    }
}

#[test]
fn dropping_the_transport_ends_connect() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint =
        Endpoint::new(Scheme::Tcp, silent.local_addr().unwrap(), Identity::generate().public_key());
    let client = transport();
    let clone = client.clone();
    // The clone is dropped with the closure, so what ends the call is `close`.
    let wait = move || Stream::direct_connect(&clone, endpoint).unwrap_err();
    let (error, waited) = interrupted(wait, || client.close());
    assert!(matches!(error, ConnectError::Closed), "{error:?}");
    assert!(waited < PROMPTLY, "{waited:?}");
}

#[test]
fn dropping_the_transport_ends_read() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut stream, _far) = pair(&client, &server, scheme);
        let (error, waited) = interrupted(move || stream.read(&mut [0; 1]).unwrap_err(), || drop(client));
        assert_eq!(StreamError::of(&error), Some(&StreamError::Closed), "{scheme} {error:?}");
        assert!(waited < PROMPTLY, "{waited:?}");
    }
}

#[test]
fn a_reset_ends_a_read_and_a_write_in_other_threads() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut stream, mut far) = pair(&client, &server, scheme);
        let handle = stream.try_clone().unwrap();
        let (_, waited) = interrupted(move || stream.read(&mut [0; 1]).unwrap_err(), || handle.reset(1));
        assert!(waited < PROMPTLY, "{scheme} {waited:?}");
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let error = far.read(&mut [0; 1]).unwrap_err();
        assert!(!matches!(StreamError::of(&error), Some(StreamError::TimedOut)), "{scheme} {error:?}");

        let (mut stream, _stalled) = pair(&client, &server, scheme);
        let handle = stream.try_clone().unwrap();
        let write = move || while stream.write(&[0; 1 << 16]).is_ok() {};
        let ((), waited) = interrupted(write, || handle.reset(1));
        assert!(waited < PROMPTLY, "{scheme} {waited:?}");
    }
}

#[test]
fn dropping_the_transport_ends_write() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut stream, _stalled) = pair(&client, &server, scheme);
        let write = move || loop {
            if let Err(error) = stream.write(&[0; 1 << 16]) {
                break error;
            }
        };
        let (error, waited) = interrupted(write, || drop(client));
        assert_eq!(StreamError::of(&error), Some(&StreamError::Closed), "{scheme} {error:?}");
        assert!(waited < PROMPTLY, "{waited:?}");
    }
}

#[test]
fn a_closed_transport_opens_nothing() {
    let server = transport();
    server.close();
    assert!(Listener::bind(&server, "tcp://127.0.0.1:0").is_err());
    let endpoint =
        Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse().unwrap(), Identity::generate().public_key());
    assert!(matches!(Stream::direct_connect(&server, endpoint), Err(ConnectError::Closed)));
}

#[test]
fn dropping_an_idle_transport_is_quick() {
    for scheme in SCHEMES {
        let server = transport();
        let (_listener, _) = listen(&server, scheme);
        let begun = Instant::now();
        drop(server);
        assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
    }
}

#[test]
fn what_was_written_arrives_though_stream_and_transport_are_dropped() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, mut accepted) = pair(&client, &server, scheme);
        let sent: Vec<u8> =
            (0..1 << 20).map(|index: u32| index.to_le_bytes()[0] ^ index.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            dialled.write_all(&sent).unwrap();
            drop(dialled);
            drop(client);
        });
        let mut received = Vec::new();
        accepted.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        accepted.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert!(received == expected, "{scheme}: {} bytes", received.len());
    }
}

#[test]
fn two_transports_without_threads_talk() {
    for scheme in SCHEMES {
        let caller = || with_config(TransportConfig::default().driver(Driver::Caller));
        let (client, server) = (caller(), caller());
        let (listener, endpoint) = listen(&server, scheme);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = listener.accept_deadline(soon()).unwrap();
                let mut text = [0; 4];
                stream.read_exact(&mut text).unwrap();
                stream.write_all(&text).unwrap();
                // The other side ends first; reading to its end turns the crank for ours.
                assert_eq!(stream.read(&mut text).unwrap(), 0);
            });
            let mut stream = Stream::direct_connect(&client, endpoint).unwrap();
            stream.write_all(b"ping").unwrap();
            let mut text = [0; 4];
            stream.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"ping");
            stream.close(soon()).unwrap();
        });
    }
}
