use std::{
    error::Error as _,
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use crust::{
    AccessToken, Config, ConnectOptions, Contact, Endpoint, Identity, ProtocolLabel, Refusal, Road, Scheme,
    Service,
};

use crate::support::{SCHEMES, client, listening, service};

#[test]
fn a_contact_an_endpoint_and_their_texts_all_lead_there() {
    for scheme in SCHEMES {
        let (server, client) = (service(scheme), client());
        let contact = server.controller.contact().unwrap();
        let endpoint = server.controller.endpoints().unwrap()[0];
        let text: Contact = contact.to_string().parse().unwrap();
        for peer in [contact, text, endpoint.into(), contact_of_named(endpoint)] {
            let dialled = client.controller.connect(peer).unwrap();
            let accepted = server.acceptor.accept().unwrap();
            assert_eq!(dialled.public_key(), server.controller.public_key());
            assert_eq!(accepted.public_key(), client.controller.public_key());
            assert_eq!((dialled.path().scheme, Road::from(dialled.path().kind)), (scheme, Road::Lan));
        }
    }
}

fn contact_of_named(endpoint: Endpoint) -> Contact {
    let text = endpoint.to_string().replace("127.0.0.1", "localhost");
    text.parse::<crust::NamedEndpoint>().unwrap().into()
}

#[test]
fn the_preferred_scheme_goes_first_and_the_other_stands_in() {
    let places = SCHEMES.map(|scheme| format!("{scheme}://127.0.0.1:0").parse().unwrap());
    let server = Service::new_from_config(Config::new().listen(places)).unwrap();
    let contact = server.controller.contact().unwrap();
    assert_eq!(contact.endpoints().len(), 2);
    let client = client();
    for only in
        [&[Scheme::Tcp][..], &[Scheme::Quic], &[Scheme::Quic, Scheme::Tcp], &[Scheme::Tcp, Scheme::Quic]]
    {
        let options = ConnectOptions::new().only(only.iter().copied());
        let stream = client.controller.connect_with(&contact, &options).unwrap();
        assert_eq!(stream.path().scheme, only[0]);
    }
    // Nothing answers by TCP any more.
    let tcp =
        server.controller.endpoints().unwrap().into_iter().find(|at| at.scheme() == Scheme::Tcp).unwrap();
    assert!(server.controller.remove_listener(crust::ListenEndpoint::new(Scheme::Tcp, tcp.addr())));
    let options = ConnectOptions::new().only([Scheme::Tcp, Scheme::Quic]);
    assert_eq!(client.controller.connect_with(&contact, &options).unwrap().path().scheme, Scheme::Quic);
}

#[test]
fn every_road_that_failed_is_told() {
    let key = Identity::from_seed([1; 32]).public_key();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let contact = Contact::new(key)
        .endpoint(Endpoint::new(Scheme::Tcp, closed, key))
        .and_then(|contact| contact.endpoint(Endpoint::new(Scheme::Tcp, silent.local_addr().unwrap(), key)))
        .unwrap();
    let options = ConnectOptions::new().deadline(Duration::from_millis(600));
    let started = Instant::now();
    let error = client().controller.connect_with(contact, &options).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!((error.peer(), error.attempts().len(), error.refusal()), (key, 2, None));
    assert!(error.to_string().contains("2 tried"), "{error}");
    let tried: Vec<_> = error.attempts().iter().filter_map(|attempt| attempt.addr).collect();
    assert!(tried.contains(&closed) && tried.contains(&silent.local_addr().unwrap()));
    assert!(
        error.source().unwrap().to_string().contains(&closed.to_string()),
        "a refusal says more than silence"
    );
}

#[test]
fn roads_that_are_not_allowed_are_not_taken() {
    let server = service(Scheme::Tcp);
    let contact = server.controller.contact().unwrap();
    let client = client();
    let by = |roads: &[Road]| {
        client.controller.connect_with(&contact, &ConnectOptions::new().roads(roads.iter().copied()))
    };
    assert_eq!(Road::from(by(&[Road::Lan]).unwrap().path().kind), Road::Lan);
    for roads in [&[][..], &[Road::Direct], &[Road::Punched, Road::Relayed]] {
        let error = by(roads).unwrap_err();
        assert!(error.attempts().is_empty(), "{roads:?}: {}", error.trace());
    }
    // What the service allows bounds what a call may.
    let config = Config::new().listen([]).lan(crust::Lan::Off).roads([Road::Direct]);
    let strict = Service::new_from_config(config).unwrap();
    let options = ConnectOptions::new().roads([Road::Lan, Road::Direct]);
    assert!(strict.controller.connect_with(&contact, &options).unwrap_err().attempts().is_empty());
}

#[test]
fn without_a_road_there_is_nothing_to_wait_for() {
    let key = Identity::from_seed([1; 32]).public_key();
    let started = Instant::now();
    let error = client().controller.connect(Contact::new(key)).unwrap_err();
    assert!(error.attempts().is_empty() && error.source().is_none());
    assert!(error.to_string().contains("no road"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn who_is_not_admitted_learns_why() {
    let chat = || ProtocolLabel::new("chat/1").unwrap();
    let chatting = ConnectOptions::new().protocol(chat());
    for scheme in SCHEMES {
        let token = AccessToken::generate();
        let config = listening(scheme).access_token(token.clone()).protocols([chat()]);
        let server = Service::new_from_config(config).unwrap();
        let contact = server.controller.contact().unwrap();
        assert_eq!(contact.token(), Some(&token), "the contact carries the token");
        let client = client();
        client.controller.connect_with(&contact, &chatting).unwrap();
        let bare = Contact::from(server.controller.endpoints().unwrap()[0]);
        let error = client.controller.connect_with(bare, &chatting).unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::Token), "{scheme}");
        let error = client.controller.connect(&contact).unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::Label), "{scheme}");

        let config = listening(scheme).allow([client.controller.public_key()]);
        let server = Service::new_from_config(config).unwrap();
        let contact = server.controller.contact().unwrap();
        client.controller.connect(&contact).unwrap();
        let error = crate::support::client().controller.connect(&contact).unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::Key), "{scheme}");
    }
}

#[test]
fn the_key_file_makes_a_peer_known_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = || listening(Scheme::Tcp).key(folder.path().join("identity.pem"));
    let first = Service::new_from_config(config()).unwrap().controller.public_key();
    assert_eq!(Service::new_from_config(config()).unwrap().controller.public_key(), first);
    std::fs::write(folder.path().join("identity.pem"), "").unwrap();
    assert!(matches!(Service::new_from_config(config()), Err(crust::StartError::Identity(_))));
}

#[test]
fn a_place_that_is_taken_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("tcp://{}", taken.local_addr().unwrap());
    let error = Service::new_from_config(Config::new().listen([place.parse().unwrap()])).unwrap_err();
    assert!(error.to_string().contains(&place), "{error}");
}

#[test]
fn streams_carry_bytes_both_ways_at_once() {
    for scheme in SCHEMES {
        let (server, client) = (service(scheme), client());
        let content = vec![0x5a; 3_000_000];
        let mut dialled = client.controller.connect(server.controller.contact().unwrap()).unwrap();
        let mut accepted = server.acceptor.accept().unwrap();
        thread::scope(|scope| {
            for mut stream in [&dialled, &accepted] {
                let content = &content;
                scope.spawn(move || {
                    stream.write_all(content).unwrap();
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                });
            }
            let mut there = Vec::new();
            let other = scope.spawn(|| {
                let mut back = Vec::new();
                (&dialled).read_to_end(&mut back).unwrap();
                back
            });
            (&accepted).read_to_end(&mut there).unwrap();
            assert!(there == content && other.join().unwrap() == content, "{scheme}");
        });
        assert_eq!((dialled.read(&mut [0]).unwrap(), accepted.read(&mut [0]).unwrap()), (0, 0));
    }
}
