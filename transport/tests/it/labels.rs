use std::{net::TcpListener, time::Duration};

use transport::{
    Admission, ConnectError, ConnectOptions, Endpoint, ExportError, Interrupter, LabelListener, NetworkName,
    ProtocolLabel, Refusal, Scheme, Stream, StreamSet,
};

use crate::support::{PROMPTLY, SCHEMES, interrupted, listen, soon, transport};

fn side() -> ProtocolLabel {
    ProtocolLabel::new("side/1").unwrap()
}

#[test]
fn the_streams_of_a_taken_label_never_come_out_of_the_listener() {
    for scheme in SCHEMES {
        let (server, client) = (transport(), transport());
        let (listener, endpoint) = listen(&server, scheme);
        let options = ConnectOptions::new().protocol(side());
        let refused = Stream::connect_with(&client, endpoint, &options).unwrap_err();
        assert!(matches!(refused, ConnectError::Refused { reason: Refusal::Label, .. }), "{refused}");
        let label = LabelListener::new(&server, side(), Admission::default()).unwrap();
        assert!(LabelListener::new(&server, side(), Admission::default()).is_err());
        let _dialled = Stream::connect_with(&client, endpoint, &options).unwrap();
        assert_eq!(label.accept_deadline(soon()).unwrap().protocol(), &side());
        let _other = Stream::direct_connect(&client, endpoint).unwrap();
        assert_eq!(listener.accept_deadline(soon()).unwrap().protocol(), &ProtocolLabel::default());
        assert!(label.receiver().is_empty() && listener.receiver().is_empty());
        drop(label);
        assert!(Stream::connect_with(&client, endpoint, &options).is_err(), "given back");
    }
}

#[test]
fn a_label_has_an_admission_of_its_own() {
    let (server, friend, stranger) = (transport(), transport(), transport());
    let (_listener, endpoint) = listen(&server, Scheme::Quic);
    let admission = Admission::default().allow([friend.public_key()]);
    let _label = LabelListener::new(&server, side(), admission).unwrap();
    let options = ConnectOptions::new().protocol(side());
    Stream::connect_with(&friend, endpoint, &options).unwrap();
    let refused = Stream::connect_with(&stranger, endpoint, &options).unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { reason: Refusal::Key, .. }), "{refused}");
    Stream::direct_connect(&stranger, endpoint).unwrap();
}

#[test]
fn peers_of_different_networks_refuse_each_other() {
    let network = |name: &str| NetworkName::new(name).unwrap();
    for scheme in SCHEMES {
        let (server, client) = (transport(), transport());
        let (listener, endpoint) = listen(&server, scheme);
        let of = |name: &str| ConnectOptions::new().network(network(name));
        for (ours, theirs) in [("", ""), ("test", "test"), ("", "test"), ("test", ""), ("test", "real")] {
            server.set_admission(Admission::default().network(network(theirs)));
            let dialled = Stream::connect_with(&client, endpoint, &of(ours));
            if ours == theirs {
                let _dialled = dialled.unwrap();
                listener.accept_deadline(soon()).unwrap();
            } else {
                let refused = dialled.unwrap_err();
                let by_network = matches!(refused, ConnectError::Refused { reason: Refusal::Network, .. });
                assert!(by_network, "{scheme} {ours:?} {theirs:?}: {refused}");
            }
        }
    }
}

#[test]
fn a_set_is_woken_by_a_new_stream_of_a_label() {
    for scheme in SCHEMES {
        let (server, client) = (transport(), transport());
        let (_listener, endpoint) = listen(&server, scheme);
        let label = LabelListener::new(&server, side(), Admission::default()).unwrap();
        let mut set = StreamSet::new(&server).unwrap();
        label.wake(set.waker());
        let dialling = std::thread::spawn(move || {
            Stream::connect_with(&client, endpoint, &ConnectOptions::new().protocol(side())).unwrap()
        });
        while label.receiver().is_empty() {
            set.wait(&mut Vec::new(), Some(soon())).unwrap();
        }
        dialling.join().unwrap();
    }
}

#[test]
fn an_interrupted_dial_ends_promptly_whatever_its_deadline() {
    // A listener that never accepts: the connection is there, the handshake never ends.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for scheme in SCHEMES {
        let client = transport();
        let endpoint = Endpoint::new(scheme, silent.local_addr().unwrap(), transport().public_key());
        let interrupter = Interrupter::default();
        let options = ConnectOptions::new().timeout(Duration::from_secs(60)).interrupter(&interrupter);
        let dial = move || Stream::connect_with(&client, endpoint, &options).unwrap_err();
        let (error, took) = interrupted(dial, || interrupter.interrupt());
        assert!(matches!(error, ConnectError::Interrupted | ConnectError::Socket { .. }), "{error:?}");
        assert!(took < PROMPTLY, "{took:?}");
    }
}

#[test]
fn what_a_transport_signs_its_key_has_signed() {
    let (one, other) = (transport(), transport());
    let signature = one.sign(b"a test: hello");
    assert!(one.public_key().has_signed(b"a test: hello", &signature));
    assert!(!one.public_key().has_signed(b"a test: hellp", &signature));
    assert!(!other.public_key().has_signed(b"a test: hello", &signature));
    assert!(!one.public_key().has_signed(b"a test: hello", &signature[1..]));
}

#[test]
fn what_is_signed_for_a_purpose_counts_for_no_other() {
    let one = transport();
    let signature = one.sign_for("a test: greeting", b"hello");
    assert!(one.public_key().has_signed_for("a test: greeting", b"hello", &signature));
    assert!(!one.public_key().has_signed_for("a test: greetingh", b"ello", &signature));
    assert!(!one.public_key().has_signed(b"hello", &signature));
}

#[test]
fn both_ends_of_a_connection_export_the_same_and_no_others_do() {
    for scheme in SCHEMES {
        let (server, client) = (transport(), transport());
        let (listener, endpoint) = listen(&server, scheme);
        let options = ConnectOptions::new().own_connection();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let dialled = Stream::connect_with(&client, endpoint, &options).unwrap();
            let accepted = listener.accept_deadline(soon()).unwrap();
            for context in [&b""[..], b"else"] {
                let exported = [&dialled, &accepted].map(|stream| {
                    let mut output = [0; 32];
                    stream.export_keying_material(&mut output, b"EXPORTER-a-test", context).unwrap();
                    output
                });
                assert_eq!(exported[0], exported[1]);
                assert!(!seen.contains(&exported[0]));
                seen.push(exported[0]);
            }
            let reserved = dialled.export_keying_material(&mut [0; 8], b"EXPORTER-crust-path-check-1", b"");
            assert_eq!(reserved, Err(ExportError::Reserved));
            assert_eq!(dialled.export_keying_material(&mut [], b"EXPORTER-a", b""), Err(ExportError::Size));
        }
    }
}
