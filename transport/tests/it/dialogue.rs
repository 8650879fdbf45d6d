//! Small messages to and fro over one socket, where a leader waits in the receive: nothing that others do may have to wait for that.

use std::{
    io::{Read, Write},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use transport::{Scheme, Stream, StreamError, Transport};

use crate::support::{PROMPTLY, SCHEMES, listen, pair, soon, transport};

#[test]
fn closing_the_transport_ends_it_at_once() {
    // At another moment each time.
    for _ in 0..20 {
        let (client, server) = (transport(), transport());
        let over = dialogue(&client, &server);
        let begun = Instant::now();
        client.close();
        let error = over.recv_timeout(Duration::from_secs(20)).expect("it ends");
        assert_eq!(error, Some(StreamError::Closed));
        assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
    }
}

#[test]
fn others_are_served_meanwhile() {
    for scheme in SCHEMES {
        let (client, server, third) = (transport(), transport(), transport());
        let over = dialogue(&client, &server);
        for busy in [&client, &server] {
            // Its socket is new to those who lead there.
            let (listener, endpoint) = listen(busy, scheme);
            let begun = Instant::now();
            let mut dialled = Stream::direct_connect(&third, endpoint).unwrap();
            let mut accepted = listener.accept_deadline(soon()).unwrap();
            dialled.write_all(b"hello").unwrap();
            accepted.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            accepted.read_exact(&mut [0; 5]).unwrap();
            assert!(begun.elapsed() < PROMPTLY, "{scheme} {:?}", begun.elapsed());
        }
        assert!(over.try_recv().is_err(), "it goes on");
    }
}

#[test]
fn a_wait_that_follows_it_has_its_own_deadline() {
    let (client, server) = (transport(), transport());
    let (mut asking, mut answering) = pair(&client, &server, Scheme::Quic);
    for limit in [Duration::from_millis(1), Duration::from_millis(15), Duration::from_millis(100)] {
        thread::scope(|scope| {
            scope.spawn(|| (0..MESSAGES).try_for_each(|_| exchange_back(&mut answering)).unwrap());
            asking.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            (0..MESSAGES).try_for_each(|_| exchange(&mut asking)).unwrap();
        });
        asking.set_read_timeout(Some(limit)).unwrap();
        let begun = Instant::now();
        let error = asking.read(&mut [0; 1]).unwrap_err();
        assert_eq!(StreamError::of(&error), Some(&StreamError::TimedOut));
        assert!((limit..limit + PROMPTLY).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}

#[test]
fn another_thread_ends_a_wait_that_follows_it() {
    // Soon after the last message, and later.
    for pause in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(30)] {
        let (client, server) = (transport(), transport());
        let (mut asking, mut answering) = pair(&client, &server, Scheme::Quic);
        let handle = asking.try_clone().unwrap();
        let (tell, last) = mpsc::channel();
        let (give, given) = mpsc::channel();
        thread::spawn(move || {
            (0..MESSAGES).try_for_each(|_| exchange(&mut asking)).unwrap();
            tell.send(()).unwrap();
            give.send(asking.read(&mut [0; 1]).unwrap_err()).unwrap();
        });
        (0..MESSAGES).try_for_each(|_| exchange_back(&mut answering)).unwrap();
        last.recv_timeout(Duration::from_secs(30)).unwrap();
        thread::sleep(pause);
        let begun = Instant::now();
        handle.reset(1);
        given.recv_timeout(Duration::from_secs(20)).expect("the read ends");
        assert!(begun.elapsed() < PROMPTLY, "{pause:?} {:?}", begun.elapsed());
    }
}

/// Enough of them for a leader to take to the receive.
const MESSAGES: usize = 300;

/// A dialogue that goes on until an end fails; the receiver gets what ended it, at the end that asks. It is well under way by now.
fn dialogue(client: &Transport, server: &Transport) -> Receiver<Option<StreamError>> {
    let (mut asking, mut answering) = pair(client, server, Scheme::Quic);
    let (told, over) = mpsc::channel();
    let (tell, under_way) = mpsc::channel();
    thread::spawn(move || while exchange_back(&mut answering).is_ok() {});
    thread::spawn(move || {
        for number in 0_usize.. {
            if number == MESSAGES {
                tell.send(()).unwrap();
            }
            if let Err(error) = exchange(&mut asking) {
                let _ = told.send(StreamError::of(&error).cloned());
                return;
            }
        }
    });
    under_way.recv_timeout(Duration::from_secs(30)).expect("it is under way");
    over
}

fn exchange(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(&[7; 64])?;
    stream.read_exact(&mut [0; 64])
}

fn exchange_back(stream: &mut Stream) -> std::io::Result<()> {
    let mut message = [0; 64];
    stream.read_exact(&mut message)?;
    stream.write_all(&message)
}
