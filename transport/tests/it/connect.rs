//! Dials that fail, each for its own reason and in time.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use transport::{
    AccessToken, Admission, BindError, ConnectError, ConnectOptions, Endpoint, Identity, ListenEndpoint,
    Listener, NamedEndpoint, ProtocolLabel, Refusal, Scheme, Stream, TransportConfig,
};

use crate::support::{SCHEMES, listen, pair, soon, transport, with_config};

#[test]
fn both_ends_know_each_other_by_key() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (dialled, accepted) = pair(&client, &server, scheme);
        assert_eq!(dialled.public_key(), server.public_key());
        assert_eq!(accepted.public_key(), client.public_key());
    }
}

#[test]
fn a_different_key_is_a_wrong_peer_and_accept_never_sees_it() {
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let (listener, endpoint) = listen(&server, scheme);
        let other = Identity::generate().public_key();
        let wrong = Endpoint::new(scheme, endpoint.addr(), other);
        let begun = Instant::now();
        let error = Stream::direct_connect(&client, wrong).unwrap_err();
        assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "at once, not by a timeout");
        assert!(listener.accept_deadline(Instant::now() + Duration::from_millis(50)).is_err());
    }
}

#[test]
fn each_refusal_is_the_error_of_connect() {
    for scheme in SCHEMES {
        let token = AccessToken::generate();
        let friend = Identity::from_seed([7; 32]).public_key();
        let label = ProtocolLabel::new("spoken").unwrap();
        let cases = [
            (Admission::default().allow([friend]), Refusal::Key),
            (Admission::default().access_token(token), Refusal::Token),
            (Admission::default().protocols([label]), Refusal::Label),
        ];
        for (admission, expected) in cases {
            let server = with_config(TransportConfig::default().admission(admission));
            let (_listener, endpoint) = listen(&server, scheme);
            let error = Stream::direct_connect(&transport(), endpoint).unwrap_err();
            assert!(matches!(error, ConnectError::Refused { reason, .. } if reason == expected), "{error:?}");
        }
    }
}

#[test]
fn token_and_label_are_shown_and_known_at_both_ends() {
    for scheme in SCHEMES {
        let token = AccessToken::generate();
        let label = ProtocolLabel::new("chat/1").unwrap();
        let admission = Admission::default().access_token(token.clone()).protocols([label.clone()]);
        let server = with_config(TransportConfig::default().admission(admission));
        let (listener, endpoint) = listen(&server, scheme);
        let options = ConnectOptions::new().protocol(label.clone()).access_token(token);
        let client = transport();
        let dialled = Stream::connect_with(&client, endpoint, &options).unwrap();
        let accepted = listener.accept_deadline(soon()).unwrap();
        assert_eq!((dialled.protocol(), accepted.protocol()), (&label, &label));
    }
}

#[test]
fn a_full_accept_queue_refuses_the_next() {
    for scheme in SCHEMES {
        let limits = transport::Limits::default().accept_queue(1);
        let server = with_config(TransportConfig::default().limits(limits));
        let (listener, endpoint) = listen(&server, scheme);
        let client = transport();
        let first = Stream::direct_connect(&client, endpoint).unwrap();
        let error = Stream::direct_connect(&client, endpoint).unwrap_err();
        assert!(matches!(error, ConnectError::Refused { reason: Refusal::Full, .. }), "{error:?}");
        drop(listener.accept_deadline(soon()).unwrap());
        drop(first);
        Stream::direct_connect(&client, endpoint).unwrap();
    }
}

#[test]
fn dialling_oneself_is_refused() {
    for scheme in SCHEMES {
        let server = transport();
        let (_listener, endpoint) = listen(&server, scheme);
        let error = Stream::direct_connect(&server, endpoint).unwrap_err();
        assert!(matches!(error, ConnectError::Refused { reason: Refusal::Myself, .. }), "{error:?}");
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    for scheme in SCHEMES {
        let server = transport();
        let (listener, _) = listen(&server, scheme);
        let error = Listener::bind(&transport(), listener.local_endpoint()).unwrap_err();
        let BindError::Socket { endpoint, source } = &error else { panic!("{error}") };
        assert_eq!((*endpoint, source.kind()), (listener.local_endpoint(), io::ErrorKind::AddrInUse));
    }
}

#[test]
fn nobody_listening_is_refused_by_the_system_over_tcp() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let key = Identity::generate().public_key();
    let error = Stream::direct_connect(&transport(), Endpoint::new(Scheme::Tcp, free, key)).unwrap_err();
    let ConnectError::Socket { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
}

/// Linux tells of the ICMP message that answers a dial over UDP; other systems keep it to themselves.
#[cfg(target_os = "linux")]
#[test]
fn nobody_listening_is_refused_by_the_system_over_quic() {
    // Held for the whole test, so that nobody else gets a port that is free in the other family.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let key = Identity::generate().public_key();
    let (client, begun) = (transport(), Instant::now());
    let options = ConnectOptions::new().timeout(Duration::from_secs(60));
    for addr in [closed, SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
        let to = Endpoint::new(Scheme::Quic, addr, key);
        let error = Stream::connect_with(&client, to, &options).unwrap_err();
        let ConnectError::Socket { source, endpoint } = &error else { panic!("{addr}: {error:?}") };
        // A machine without IPv6 says at once that no way leads there.
        let expected = source.kind() == io::ErrorKind::ConnectionRefused
            || addr.is_ipv6() && source.kind() != io::ErrorKind::TimedOut;
        assert!(expected && *endpoint == NamedEndpoint::from(to), "{addr}: {error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "at once, not by the deadline: {:?}", begun.elapsed());
}

#[cfg(target_os = "linux")]
#[test]
fn dials_to_closed_ports_disturb_no_other() {
    let server = transport();
    let (listener, endpoint) = listen(&server, Scheme::Quic);
    let client = transport();
    let mut places: Vec<_> = (0..10)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap())
        .map(|closed| Endpoint::new(Scheme::Quic, closed, server.public_key()))
        .collect();
    places.push(endpoint);
    // All go out by one socket; each that is refused starts the next.
    for _ in 0..10 {
        let dialled = Stream::direct_connect(&client, places.clone()).unwrap();
        let accepted = listener.accept_deadline(soon()).unwrap();
        assert_eq!(accepted.public_key(), client.public_key());
        drop(dialled);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_port_that_was_closed_is_dialled_anew() {
    let client = transport();
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let server = transport();
    let endpoint = Endpoint::new(Scheme::Quic, port, server.public_key());
    assert!(matches!(Stream::direct_connect(&client, endpoint), Err(ConnectError::Socket { .. })));
    let listener = Listener::bind(&server, ListenEndpoint::new(Scheme::Quic, port)).unwrap();
    Stream::direct_connect(&client, endpoint).unwrap();
    listener.accept_deadline(soon()).unwrap();
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let key = Identity::generate().public_key();
    let name: NamedEndpoint = format!("tcp://no-such-host.invalid:1?pubkey={key}").parse().unwrap();
    let options = ConnectOptions::new().timeout(Duration::from_secs(5));
    let error = Stream::connect_with(&transport(), &name, &options).unwrap_err();
    // Without any name server the look-up takes as long as the deadline lets it.
    match &error {
        ConnectError::Resolve { endpoint, .. } | ConnectError::TimedOut { endpoint, .. } => {
            assert_eq!(*endpoint, name)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_of_this_machine_is_dialled() {
    let server = transport();
    let (listener, endpoint) = listen(&server, Scheme::Tcp);
    let name = endpoint.to_string().replace("127.0.0.1", "localhost");
    let client = transport();
    let dialled = Stream::direct_connect(&client, name).unwrap();
    assert_eq!(listener.accept_deadline(soon()).unwrap().public_key(), client.public_key());
    assert_eq!(dialled.public_key(), server.public_key());
}

#[test]
fn a_peer_that_says_nothing_ends_at_the_deadline() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let key = Identity::generate().public_key();
    let silent_too = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let places =
        [(Scheme::Tcp, silent.local_addr().unwrap()), (Scheme::Quic, silent_too.local_addr().unwrap())];
    for (scheme, addr) in places {
        let begun = Instant::now();
        let options = ConnectOptions::new().deadline(begun + Duration::from_millis(300));
        let error =
            Stream::connect_with(&transport(), Endpoint::new(scheme, addr, key), &options).unwrap_err();
        let waited = begun.elapsed();
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
        assert!(waited >= Duration::from_millis(300) && waited < Duration::from_millis(1_000), "{waited:?}");
    }
}

#[test]
fn the_address_that_answers_wins_over_those_that_do_not() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = transport();
    let (listener, endpoint) = listen(&server, Scheme::Tcp);
    let dead = Endpoint::new(Scheme::Tcp, silent.local_addr().unwrap(), server.public_key());
    let client = transport();
    let _dialled = Stream::direct_connect(&client, vec![dead, endpoint]).unwrap();
    listener.accept_deadline(soon()).unwrap();
}

#[test]
fn when_all_addresses_fail_each_says_why() {
    let free: SocketAddr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let server = transport();
    let (_listener, endpoint) = listen(&server, Scheme::Tcp);
    let nobody = Endpoint::new(Scheme::Tcp, free, server.public_key());
    let wrong = Endpoint::new(Scheme::Tcp, endpoint.addr(), Identity::generate().public_key());
    let error = Stream::direct_connect(&transport(), vec![nobody, wrong]).unwrap_err();
    let ConnectError::AllFailed { attempts } = &error else { panic!("{error:?}") };
    assert!(matches!(*attempts[0].error, ConnectError::Socket { .. }));
    assert!(matches!(*attempts[1].error, ConnectError::WrongPeer { .. }));
    assert!(error.to_string().contains("2 tried"), "{error}");
}

#[test]
fn nothing_to_dial_is_said() {
    let none: Vec<Endpoint> = Vec::new();
    assert!(matches!(Stream::direct_connect(&transport(), none), Err(ConnectError::NoEndpoint)));
}
