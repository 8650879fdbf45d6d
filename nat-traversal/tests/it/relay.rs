use std::error::Error as _;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use nat_traversal::protocol::turn::{AddressFamily, TurnFailure};
use nat_traversal::{MappingConfig, MappingContext, RelayError, RelayedUdpSocket, TurnServer, TurnSocket};

use crate::coturn::{Coturn, certificate};

#[test]
fn packets_pass_both_ways_over_udp_tcp_and_tls() {
    let Some(coturn) = Coturn::start(&[]) else { return };
    let authority = format!("?ca={}", certificate("ca.pem").display());
    for (scheme, parameters) in
        [("turn", ""), ("turn", "?transport=tcp"), ("turns", &authority), ("turns", &pin("646b74c0"))]
    {
        let server = coturn.server(scheme, parameters);
        let context = context();
        let relayed =
            RelayedUdpSocket::allocate(&context, &server, soon()).unwrap_or_else(|e| panic!("{e:?}"));
        let peer = peer();
        let peer_address = peer.local_addr().unwrap();
        let mut buffer = [0; 2_048];
        // Some go with 36 bytes around them, the later ones through a channel; of every length to a multiple of four.
        for length in (0..12_u8).map(|count| usize::from(count) * 101) {
            let payload: Vec<u8> = (0..length).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
            relayed.send_to(&payload, peer_address, soon()).unwrap();
            let (received, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..received], from), (&payload[..], relayed.relayed_addr()), "{server}");
            peer.send_to(&payload, from).unwrap();
            let (received, from) = relayed.recv_from(&mut buffer, soon()).unwrap();
            assert_eq!((&buffer[..received], from), (&payload[..], peer_address), "{server}");
        }
        assert_eq!(relayed.stats().ignored + relayed.stats().overflowed, 0, "{server}");
    }
}

#[test]
fn the_first_request_leaves_before_anything_is_awaited() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let address = server.local_addr().unwrap();
    let named: TurnServer = format!("turn:user:word@{address}").parse().unwrap();
    // It is not turned, so nothing is repeated.
    let _socket = TurnSocket::connect(&named, address, AddressFamily::V4).unwrap();
    let mut buffer = [0; 64];
    let length = server.recv(&mut buffer).expect("a request has come");
    assert_eq!((length >= 20, &buffer[..2]), (true, &[0, 3][..]), "Allocate (RFC 8656, section 18.1)");
}

#[test]
fn two_relays_meet_and_a_permitted_peer_may_begin() {
    let Some(coturn) = Coturn::start(&[]) else { return };
    let context = context();
    let [a, b] = ["", "?transport=tcp"]
        .map(|over| RelayedUdpSocket::allocate(&context, &coturn.server("turn", over), soon()).unwrap());
    a.permit(b.relayed_addr().ip()).unwrap();
    // The permission is on its way by another connection than the packet: it may have to be sent again.
    let mut buffer = [0; 64];
    let received = (0..100).find_map(|_| {
        b.send_to(b"from b", a.relayed_addr(), soon()).unwrap();
        a.recv_from(&mut buffer, Instant::now() + Duration::from_millis(200)).ok()
    });
    assert_eq!(received, Some((6, b.relayed_addr())));
    assert_eq!(&buffer[..6], b"from b");
}

#[test]
fn a_server_that_refers_to_another_is_followed() {
    let Some(other) = Coturn::start(&[]) else { return };
    let referral = format!("--alternate-server=127.0.0.1:{}", other.port());
    let Some(coturn) = Coturn::start(&[&referral]) else { return };
    for over in ["", "?transport=tcp"] {
        let context = context();
        let relayed = RelayedUdpSocket::allocate(&context, &coturn.server("turn", over), soon()).unwrap();
        let peer = peer();
        relayed.send_to(b"by the other", peer.local_addr().unwrap(), soon()).unwrap();
        let (_, from) = peer.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(from, relayed.relayed_addr());
    }
}

#[test]
fn the_wrong_password_and_an_unknown_user_are_told() {
    let Some(coturn) = Coturn::start(&[]) else { return };
    for (user, password) in [("alice", "guess"), ("mallory", "secret"), ("", "")] {
        let server = coturn.server("turn", "").with_credentials(user, password);
        let error = RelayedUdpSocket::allocate(&context(), &server, soon()).unwrap_err();
        let RelayError::Server { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*source, TurnFailure::WrongCredentials);
        assert!(!format!("{error} {error:?} {source}").contains("guess"));
    }
}

#[test]
fn a_stale_nonce_costs_nothing_but_a_round_trip() {
    let Some(coturn) = Coturn::start(&["--stale-nonce=1"]) else { return };
    let context = context();
    let relayed = RelayedUdpSocket::allocate(&context, &coturn.server("turn", ""), soon()).unwrap();
    thread::park_timeout(Duration::from_millis(2_100));
    let peer = peer();
    let mut buffer = [0; 64];
    peer.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let received = (0..50).find_map(|_| {
        relayed.send_to(b"after a while", peer.local_addr().unwrap(), soon()).unwrap();
        peer.recv_from(&mut buffer).ok()
    });
    assert_eq!(received, Some((13, relayed.relayed_addr())));
}

#[test]
fn a_full_quota_is_told_and_a_dropped_relay_is_given_back() {
    let Some(coturn) = Coturn::start(&["--user-quota=1"]) else { return };
    let context = context();
    let server = coturn.server("turn", "");
    let first = RelayedUdpSocket::allocate(&context, &server, soon()).unwrap();
    let error = RelayedUdpSocket::allocate(&context, &server, soon()).unwrap_err();
    assert!(matches!(error, RelayError::Server { source: TurnFailure::Refused(486), .. }), "{error:?}");
    assert!(error.source().unwrap().to_string().contains("as many allocations as it may"));
    drop(first);
    let deadline = soon();
    let again = loop {
        match RelayedUdpSocket::allocate(&context, &server, deadline) {
            Err(RelayError::Server { source: TurnFailure::Refused(486), .. }) => {
                assert!(Instant::now() < deadline, "the allocation was not given back");
            }
            again => break again.unwrap(),
        }
    };
    assert_eq!(again.relayed_addr().ip().to_string(), "127.0.0.1");
}

#[test]
fn a_server_that_is_killed_ends_the_calls_with_its_name() {
    for over in ["", "?transport=tcp"] {
        let Some(mut coturn) = Coturn::start(&[]) else { return };
        let context = context();
        let server = coturn.server("turn", over);
        let relayed = RelayedUdpSocket::allocate(&context, &server, soon()).unwrap();
        coturn.kill();
        // Over UDP the system tells only who sends.
        relayed.send_to(b"anyone?", peer().local_addr().unwrap(), soon()).unwrap_or_default();
        let start = Instant::now();
        let error = relayed.recv_from(&mut [0; 64], soon()).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let expected = if over.is_empty() {
            matches!(error, RelayError::Server { source: TurnFailure::Unreachable, .. })
        } else {
            matches!(error, RelayError::Connection { .. })
        };
        assert!(expected && error.to_string().contains(&server.to_string()), "{error:?}");
        let error = RelayedUdpSocket::allocate(&context, &server, soon()).unwrap_err();
        assert!(!matches!(error, RelayError::TimedOut { .. }), "{error:?}");
    }
}

#[test]
fn a_server_that_cannot_prove_itself_gets_no_password() {
    let Some(coturn) = Coturn::start(&[]) else { return };
    let authority = format!("?ca={}", certificate("ca.pem").display());
    let both = format!("{authority}&{}", &pin("00000000")[1..]);
    let cases = [
        ("127.0.0.1", "", "UnknownIssuer"),
        ("127.0.0.2", authority.as_str(), "NotValidForName"),
        ("127.0.0.1", &pin("00000000"), "ApplicationVerificationFailure"),
        ("127.0.0.1", &both, "ApplicationVerificationFailure"),
    ];
    for (host, parameters, reason) in cases {
        let server = coturn.at(host, "turns", parameters).with_credentials("alice", "secret");
        let error = RelayedUdpSocket::allocate(&context(), &server, soon()).unwrap_err();
        let RelayError::Connection { source, .. } = &error else { panic!("{error:?}") };
        assert!(format!("{source:?}").contains(reason), "{server}: {source:?}");
    }
    let missing = coturn.server("turns", "?ca=/nowhere/ca.pem");
    let error = RelayedUdpSocket::allocate(&context(), &missing, soon()).unwrap_err();
    assert!(matches!(error, RelayError::Start { .. }), "{error:?}");
}

#[test]
fn a_name_is_looked_up_and_one_that_does_not_exist_is_told() {
    let Some(coturn) = Coturn::start(&[]) else { return };
    let server = coturn.at("localhost", "turn", "").with_credentials("alice", "secret");
    let relayed = RelayedUdpSocket::allocate(&context(), &server, soon()).unwrap();
    assert!(relayed.mapped_addr().is_some());
    let nowhere = coturn.at("nowhere.invalid", "turn", "");
    let error = RelayedUdpSocket::allocate(&context(), &nowhere, soon()).unwrap_err();
    assert!(matches!(error, RelayError::Resolve { .. }), "{error:?}");
}

#[test]
fn a_silent_server_is_given_up_at_the_deadline_and_an_interruption_ends_every_wait() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server: TurnServer = format!("turn:u:p@{}", silent.local_addr().unwrap()).parse().unwrap();
    let context = context();
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = RelayedUdpSocket::allocate(&context, &server, deadline).unwrap_err();
    assert!(matches!(error, RelayError::TimedOut { .. }), "{error:?}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| RelayedUdpSocket::allocate(&context, &server, soon()));
        // It has begun to wait when its request is here.
        silent.recv_from(&mut [0; 256]).unwrap();
        context.interrupter().interrupt();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, RelayError::Interrupted), "{error:?}");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn many_relays_come_and_go_and_leave_neither_socket_nor_thread() {
    // In a process of its own, so that nobody else's threads and sockets are counted.
    const ALONE: &str = "relay::many_relays_come_and_go_and_leave_neither_socket_nor_thread";
    if std::env::var_os("NAT_TRAVERSAL_ALONE").is_none() {
        let program = std::env::current_exe().unwrap();
        let mut alone = std::process::Command::new(program);
        let output =
            alone.args(["--exact", ALONE, "--nocapture"]).env("NAT_TRAVERSAL_ALONE", "1").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        return print!("{told}");
    }
    let Some(coturn) = Coturn::start(&[]) else { return };
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let sockets = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = (threads(), sockets());
    let context = context();
    for over in ["", "?transport=tcp"] {
        let server = coturn.server("turn", over);
        let wrong = server.clone().with_credentials("alice", "guess");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        drop(RelayedUdpSocket::allocate(&context, &server, soon()).unwrap());
                        RelayedUdpSocket::allocate(&context, &wrong, soon()).unwrap_err();
                    }
                });
            }
        });
    }
    // They are given back in the background.
    let deadline = soon();
    while (threads(), sockets()) != before {
        assert!(Instant::now() < deadline, "{:?} before, {:?} after", before, (threads(), sockets()));
        thread::park_timeout(Duration::from_millis(10));
    }
}

fn context() -> MappingContext {
    MappingContext::new(MappingConfig::new()).unwrap()
}

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    peer
}

/// The pin of the server's key, whose first digits are these if it is to be the right one.
fn pin(begin: &str) -> String {
    format!("?pin={begin}71ab6dc549952fe6e49d9504ce4ace8f72303300a2c731c2d28beb6e")
}

/// Far beyond what loopback takes, on any machine.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}
