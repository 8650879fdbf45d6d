use std::{
    io::Read as _,
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use crust::{AcceptError, Config, Driver, Scheme, Service, StreamError, TurnError};

use crate::support::{SCHEMES, client, listening, service};

#[test]
fn dropping_the_controller_ends_accept_and_every_stream() {
    for scheme in SCHEMES {
        let Service { acceptor, controller, .. } = service(scheme);
        let client = client();
        let mut dialled = client.controller.connect(controller.contact().unwrap()).unwrap();
        let mut accepted = acceptor.accept().unwrap();
        let (tell, ended) = channel();
        thread::scope(|scope| {
            let both = tell.clone();
            scope.spawn(move || tell.send(acceptor.accept().unwrap_err() == AcceptError::Closed));
            scope.spawn(move || {
                let error = accepted.read(&mut [0]).unwrap_err();
                both.send(StreamError::of(&error) == Some(&StreamError::Closed))
            });
            // Let both begin to wait; if they have not, the same must come of it.
            thread::sleep(Duration::from_millis(50));
            drop(controller);
            for _ in 0..2 {
                assert!(ended.recv_timeout(WAKING).unwrap(), "{scheme}");
            }
        });
        dialled.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The thread above let go of the stream, so this is the end or a cut; what matters is that it is not silence.
        let silent = dialled
            .read(&mut [0])
            .is_err_and(|error| StreamError::of(&error) == Some(&StreamError::TimedOut));
        assert!(!silent, "{scheme}: the peer learns of it");
    }
}

#[test]
fn close_does_the_same_by_reference() {
    let Service { acceptor, controller, .. } = service(Scheme::Tcp);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| acceptor.incoming().count());
        controller.close();
        assert_eq!(waiting.join().unwrap(), 0);
    });
    assert_eq!(acceptor.accept().unwrap_err(), AcceptError::Closed);
}

#[test]
fn accept_keeps_its_deadline() {
    let service = service(Scheme::Quic);
    let started = Instant::now();
    let result = service.acceptor.accept_deadline(started + Duration::from_millis(100));
    assert_eq!(result.unwrap_err(), AcceptError::TimedOut);
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_place_can_be_added_and_removed_while_it_runs() {
    let service = Service::new_from_config(Config::new().listen([])).unwrap();
    let client = client();
    assert!(service.controller.endpoints().unwrap().is_empty());
    for scheme in SCHEMES {
        let place =
            service.controller.add_listener(format!("{scheme}://127.0.0.1:0").parse().unwrap()).unwrap();
        let contact = service.controller.contact().unwrap();
        assert_eq!(contact.endpoints().len(), 1);
        client.controller.connect(&contact).unwrap();
        service.acceptor.accept().unwrap();
        assert!(service.controller.remove_listener(place));
        assert!(!service.controller.remove_listener(place));
    }
}

#[test]
fn the_streams_come_out_of_a_channel_too() {
    let (server, client) = (service(Scheme::Tcp), client());
    let _dialled = client.controller.connect(server.controller.contact().unwrap()).unwrap();
    let accepted = server.acceptor.receiver().recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(accepted.public_key(), client.controller.public_key());
}

#[test]
fn without_a_thread_of_its_own_the_callers_do_the_work() {
    for scheme in SCHEMES {
        let server = Service::new_from_config(listening(scheme).driver(Driver::Caller)).unwrap();
        let client = Service::new_from_config(Config::new().listen([]).driver(Driver::Caller)).unwrap();
        let contact = server.controller.contact().unwrap();
        thread::scope(|scope| {
            // Here accept does it, there connect.
            let accepted = scope.spawn(|| server.acceptor.accept().unwrap());
            let dialled = client.controller.connect(contact).unwrap();
            assert_eq!(dialled.public_key(), server.controller.public_key());
            accepted.join().unwrap();
        });
        assert_ne!(server.controller.turn(Instant::now()), Err(TurnError::Closed));
        server.controller.close();
        assert_eq!(server.controller.turn(Instant::now()), Err(TurnError::Closed));
    }
}

/// A woken thread may have to wait for a core on a loaded machine.
const WAKING: Duration = Duration::from_secs(10);
