//! How streams end: cleanly, halfway, early, or cut off.

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use transport::{
    Admission, ConnectOptions, Driver, Endpoint, Identity, Refusal, Scheme, Stream, StreamError,
    TransportConfig,
};

use crate::{
    proxy::{Cut, Proxy},
    support::{PROMPTLY, SCHEMES, interrupted, listen, pair, soon, transport, with_config},
};

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, mut accepted) = pair(&client, &server, scheme);
        dialled.write_all(b"question").unwrap();
        dialled.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut accepted), b"question");
        accepted.write_all(b"answer").unwrap();
        drop(accepted);
        assert_eq!(read_all(&mut dialled), b"answer");
        assert_eq!(dialled.read(&mut [0; 9]).unwrap(), 0, "the end stays the end");
        assert_eq!(kind(dialled.write(b"late")), StreamError::Closed);
    }
}

#[test]
fn dropping_the_writing_half_ends_its_direction_only() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (dialled, mut accepted) = pair(&client, &server, scheme);
        let (mut reader, mut writer) = dialled.split();
        writer.write_all(b"question").unwrap();
        drop(writer);
        assert_eq!(read_all(&mut accepted), b"question");
        accepted.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        reader.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    }
}

#[test]
fn a_writing_half_dropped_with_its_pipe_full_still_ends() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (dialled, mut accepted) = pair(&client, &server, scheme);
        let (mut reader, mut writer) = dialled.split();
        writer.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut sent = 0;
        while let Ok(written) = writer.write(&[7; 60_000]) {
            sent += written;
        }
        let begun = Instant::now();
        drop(writer);
        assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
        let received = read_all(&mut accepted);
        assert!(
            received.len() == sent && received.iter().all(|byte| *byte == 7),
            "{} of {sent}",
            received.len()
        );
        accepted.write_all(b"got it").unwrap();
        let mut answer = [0; 6];
        reader.read_exact(&mut answer).unwrap();
    }
}

#[test]
fn dropping_the_reading_half_leaves_the_other() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (dialled, mut accepted) = pair(&client, &server, scheme);
        let (reader, mut writer) = dialled.split();
        drop(reader);
        writer.write_all(b"still here").unwrap();
        drop(writer);
        assert_eq!(read_all(&mut accepted), b"still here");
    }
}

/// A peer that writes to somebody who dropped the reading half must not stall, and the writer with it.
#[test]
fn what_comes_after_the_reading_half_was_dropped_stalls_nobody() {
    let (client, server) = (transport(), transport());
    let (dialled, accepted) = pair(&client, &server, Scheme::Tcp);
    let (reader, mut writer) = dialled.split();
    let (mut asking, mut answering) = accepted.split();
    answering.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    asking.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let much = vec![3; 40_000_000];
    let received = thread::scope(|scope| {
        // Nothing is read at the other end until all of the answer has gone.
        let peer = scope.spawn(|| {
            answering.write_all(&much).unwrap();
            let mut received = Vec::new();
            asking.read_to_end(&mut received).unwrap();
            received.len()
        });
        let writing = scope.spawn(|| {
            writer.write_all(&much).unwrap();
            drop(writer);
        });
        drop(reader);
        writing.join().unwrap();
        peer.join().unwrap()
    });
    assert_eq!(received, much.len());
}

#[test]
fn a_stream_ends_with_its_last_handle() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (dialled, mut accepted) = pair(&client, &server, scheme);
        let mut clone = dialled.try_clone().unwrap();
        drop(dialled);
        clone.write_all(b"through the clone").unwrap();
        drop(clone);
        assert_eq!(read_all(&mut accepted), b"through the clone");
    }
}

#[test]
fn input_that_nobody_read_does_not_destroy_what_was_sent() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, mut accepted) = pair(&client, &server, scheme);
        dialled.write_all(&[1; 100_000]).unwrap();
        accepted.write_all(&[2; 300_000]).unwrap();
        let begun = Instant::now();
        drop(accepted);
        assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
        assert_eq!(read_all(&mut dialled).len(), 300_000, "{scheme}");
    }
}

#[test]
fn close_waits_until_the_peer_has_everything() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, mut accepted) = pair(&client, &server, scheme);
        dialled.write_all(&[5; 500_000]).unwrap();
        let reader = thread::spawn(move || read_all(&mut accepted).len());
        dialled.close(soon()).unwrap();
        assert_eq!(reader.join().unwrap(), 500_000);
    }
}

/// Over TCP only Linux tells what is acknowledged; elsewhere the peer's own end says so.
#[cfg(target_os = "linux")]
#[test]
fn close_returns_once_all_is_acknowledged_though_the_peer_goes_on() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, mut accepted) = pair(&client, &server, scheme);
        dialled.write_all(&[5; 500_000]).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| read_all(&mut accepted).len());
            dialled.close(soon()).unwrap();
            assert_eq!(reader.join().unwrap(), 500_000, "{scheme}");
        });
        // Its own direction was open all the time.
        drop(accepted);
    }
}

/// By then the system may have forgotten the connection, whose listener is still there.
#[test]
fn close_is_at_once_done_where_both_have_ended() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (listener, endpoint) = listen(&server, scheme);
        let mut dialled = Stream::direct_connect(&client, endpoint).unwrap();
        let mut accepted = listener.accept_deadline(soon()).unwrap();
        dialled.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut accepted), b"");
        accepted.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut dialled), b"");
        dialled.close(soon()).unwrap();
        accepted.close(soon()).unwrap();
    }
}

/// Over QUIC whatever a write takes fits the peer's window, so that it is acknowledged whoever reads.
#[cfg(target_os = "linux")]
#[test]
fn close_waits_for_the_last_byte_though_the_peer_has_ended_before() {
    let (client, server) = (transport(), transport());
    let (mut dialled, mut accepted) = pair(&client, &server, Scheme::Tcp);
    accepted.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut dialled), b"");
    dialled.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut sent = 0;
    while let Ok(written) = dialled.write(&[7; 60_000]) {
        sent += written;
    }
    let deadline = Instant::now() + Duration::from_millis(200);
    assert_eq!(dialled.close(deadline), Err(StreamError::TimedOut), "nobody reads");
    assert_eq!(read_all(&mut accepted).len(), sent, "what was written is still delivered");
}

#[test]
fn close_gives_up_at_its_deadline() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), with_config(TransportConfig::default().driver(Driver::Caller)));
        let (listener, endpoint) = listen(&server, scheme);
        let (mut dialled, _stalled) = thread::scope(|scope| {
            let accepted = scope.spawn(|| listener.accept_deadline(soon()).unwrap());
            (Stream::direct_connect(&client, endpoint).unwrap(), accepted.join().unwrap())
        });
        // Nobody turns for the server any more, so over QUIC nothing is acknowledged either.
        dialled.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        while dialled.write(&[5; 60_000]).is_ok() {}
        let begun = Instant::now();
        assert_eq!(dialled.close(begun + Duration::from_millis(200)), Err(StreamError::TimedOut));
        let waited = begun.elapsed();
        assert!(
            waited >= Duration::from_millis(200) && waited < Duration::from_millis(200) + PROMPTLY,
            "{waited:?}"
        );
    }
}

#[test]
fn a_reset_is_an_error_for_the_peer() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (dialled, mut accepted) = pair(&client, &server, scheme);
        dialled.reset(42);
        accepted.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let error = accepted.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error:?}");
        assert!(accepted.write(b"x").is_err());
    }
}

#[test]
fn a_connection_that_is_cut_is_never_a_clean_end() {
    for cut in [Cut::Fin, Cut::Reset] {
        let (client, server) = (transport(), transport());
        let (listener, endpoint) = listen(&server, Scheme::Tcp);
        let proxy = Proxy::new(endpoint.addr());
        let through = Endpoint::new(Scheme::Tcp, proxy.addr, server.public_key());
        let mut dialled = Stream::direct_connect(&client, through).unwrap();
        let mut accepted = listener.accept_deadline(soon()).unwrap();
        accepted.write_all(b"half of it").unwrap();
        dialled.read_exact(&mut [0; 10]).unwrap();
        proxy.cut(cut);
        for stream in [&mut dialled, &mut accepted] {
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let first = kind(stream.read(&mut [0; 1]));
            let reset = StreamError::Io { kind: ErrorKind::ConnectionReset };
            assert!(first == StreamError::UnexpectedEof || first == reset, "{cut:?}: {first:?}");
            assert_eq!(kind(stream.read(&mut [0; 1])), first, "an error stays");
        }
    }
}

/// A transport that closes under its streams has not ended them: the peer must not take what it has for the whole.
#[test]
fn a_stream_whose_transport_closed_is_never_a_clean_end() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (mut dialled, mut accepted) = pair(&client, &server, scheme);
        dialled.write_all(b"half of it").unwrap();
        accepted.read_exact(&mut [0; 10]).unwrap();
        client.close();
        drop(dialled);
        accepted.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let end = accepted.read(&mut [0; 1]);
        assert!(end.is_err(), "{scheme}: {end:?}");
        let end = kind(end);
        assert!(matches!(end, StreamError::UnexpectedEof | StreamError::Reset { .. }), "{scheme}: {end:?}");
        drop(client);
    }
}

#[test]
fn a_single_altered_bit_ends_the_stream() {
    let (client, server) = (transport(), transport());
    let (listener, endpoint) = listen(&server, Scheme::Tcp);
    let proxy = Proxy::new(endpoint.addr());
    let through = Endpoint::new(Scheme::Tcp, proxy.addr, server.public_key());
    let mut dialled = Stream::direct_connect(&client, through).unwrap();
    let mut accepted = listener.accept_deadline(soon()).unwrap();
    proxy.tamper();
    accepted.write_all(b"an offer").unwrap();
    let error = kind(dialled.read(&mut [0; 8]));
    assert!(matches!(error, StreamError::Protocol { .. }), "{error:?}");
    assert_eq!(kind(dialled.write(b"x")), error);
}

#[test]
fn shutting_down_ends_calls_of_other_threads() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (dialled, _stalled) = pair(&client, &server, scheme);
        let mut reader = dialled.try_clone().unwrap();
        let (result, waited) = interrupted(
            move || reader.read(&mut [0; 1]).unwrap(),
            || dialled.shutdown(Shutdown::Read).unwrap(),
        );
        assert_eq!(result, 0);
        assert!(waited < PROMPTLY, "{waited:?}");

        let (dialled, _stalled) = pair(&client, &server, scheme);
        let mut writer = dialled.try_clone().unwrap();
        let write = move || loop {
            if let Err(error) = writer.write(&[0; 60_000]) {
                break kind(Err(error));
            }
        };
        let (error, waited) = interrupted(write, || dialled.shutdown(Shutdown::Write).unwrap());
        assert_eq!(error, StreamError::Closed);
        assert!(waited < PROMPTLY, "{waited:?}");
    }
}

#[test]
fn an_early_stream_carries_bytes_before_the_verdict() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (listener, endpoint) = listen(&server, scheme);
        let mut dialled = Stream::connect_early(&client, endpoint, &ConnectOptions::new()).unwrap();
        dialled.write_all(b"at once").unwrap();
        let mut accepted = listener.accept_deadline(soon()).unwrap();
        let mut text = [0; 7];
        accepted.read_exact(&mut text).unwrap();
        accepted.write_all(&text).unwrap();
        dialled.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"at once");
    }
}

#[test]
fn the_refusal_of_an_early_stream_is_the_error_of_every_call_from_the_first_read_on() {
    for scheme in SCHEMES {
        let friend = Identity::from_seed([7; 32]).public_key();
        let server = with_config(TransportConfig::default().admission(Admission::default().allow([friend])));
        let (_listener, endpoint) = listen(&server, scheme);
        let client = transport();
        let mut dialled = Stream::connect_early(&client, endpoint, &ConnectOptions::new()).unwrap();
        // Some may be taken before the refusal is known, however much is written.
        for _ in 0..20 {
            let _ = dialled.write(&[0; 60_000]);
        }
        dialled.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for _ in 0..2 {
            assert_eq!(kind(dialled.read(&mut [0; 1])), StreamError::Refused(Refusal::Key), "{scheme}");
            assert_eq!(kind(dialled.write(b"x")), StreamError::Refused(Refusal::Key), "{scheme}");
        }
    }
}

fn read_all(stream: &mut Stream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn kind(result: std::io::Result<usize>) -> StreamError {
    let error = result.unwrap_err();
    StreamError::of(&error).unwrap_or_else(|| panic!("{error:?}")).clone()
}
