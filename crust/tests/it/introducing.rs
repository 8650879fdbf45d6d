use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use crust::{
    AccessToken, Config, ConnectOptions, Contact, Introducer, Lan, NamedEndpoint, NetworkName, PublicKey,
    Refusal, Service, ServiceEvent,
};

use crate::support::{SCHEMES, listening};

/// Who introduces, and its endpoint.
fn introducer(scheme: crust::Scheme) -> (Service, NamedEndpoint) {
    let service = Service::new_from_config(listening(scheme).introduce(true)).unwrap();
    let endpoint = service.controller.endpoints().unwrap()[0].into();
    (service, endpoint)
}

/// One that is attached to it.
fn attached(config: Config, introducer: &NamedEndpoint) -> Service {
    let service = Service::new_from_config(config.introducers([introducer.clone()])).unwrap();
    assert!(service.controller.wait_attached(soon()));
    service
}

fn client(introducer: &NamedEndpoint) -> Service {
    let config = Config::new().lan(Lan::Off).listen([]).introducers([introducer.clone()]).attach(false);
    Service::new_from_config(config).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A contact that says nothing but who introduces.
fn by(key: PublicKey, introducer: &NamedEndpoint) -> Contact {
    Contact::new(key).introducer(Introducer::new(introducer.clone())).unwrap()
}

#[test]
fn a_bare_key_leads_there_by_an_introducer() {
    for scheme in SCHEMES {
        let (_middle, place) = introducer(scheme);
        let server = attached(listening(scheme), &place);
        let client = client(&place);
        let mut dialled = client.controller.connect(server.controller.public_key()).unwrap();
        let mut accepted = server.acceptor.accept_deadline(soon()).unwrap();
        assert_eq!(accepted.public_key(), client.controller.public_key());
        dialled.write_all(b"hello").unwrap();
        drop(dialled);
        let mut text = String::new();
        accepted.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello", "{scheme}");
    }
}

#[test]
fn the_stream_of_an_introduction_has_the_protocol_that_was_asked_for() {
    let chat = || crust::ProtocolLabel::new("chat/1").unwrap();
    let (_middle, place) = introducer(crust::Scheme::Quic);
    let server = attached(listening(crust::Scheme::Quic).protocols([chat()]), &place);
    let client = client(&place);
    let key = server.controller.public_key();
    let options = ConnectOptions::new().protocol(chat());
    client.controller.connect_with(key, &options).unwrap();
    assert_eq!(server.acceptor.accept_deadline(soon()).unwrap().protocol(), &chat());
    let error = client.controller.connect(key).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Label), "{}", error.trace());
}

#[test]
fn an_introducer_serves_all_networks_and_peers_keep_to_theirs() {
    let network = |name: &str| NetworkName::new(name).unwrap();
    let (_middle, place) = introducer(crust::Scheme::Quic);
    let server = attached(listening(crust::Scheme::Quic).network_name(network("test")), &place);
    let of = |name: &str| {
        let config = Config::new().lan(Lan::Off).listen([]).introducers([place.clone()]).attach(false);
        Service::new_from_config(config.network_name(network(name))).unwrap()
    };
    let key = server.controller.public_key();
    of("test").controller.connect(key).unwrap();
    let error = of("real").controller.connect(key).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Network), "{}", error.trace());
}

#[test]
fn an_introducer_with_our_own_key_is_told_at_once() {
    let twin = || crust::Identity::from_seed([3; 32]);
    let config = listening(crust::Scheme::Quic).lan(Lan::Off).identity(twin()).introduce(true);
    let own = Service::new_from_config(config).unwrap().controller.endpoints().unwrap()[0];
    let config = listening(crust::Scheme::Quic).lan(Lan::Off).identity(twin()).introducers([own.into()]);
    let service = Service::new_from_config(config).unwrap();
    let event = service.controller.events().recv_deadline(soon()).unwrap();
    assert!(matches!(event, ServiceEvent::IntroducerIsMyself { introducer } if introducer == own.into()));
    assert!(!service.controller.wait_attached(soon()), "there is nobody to wait for");
    assert!(service.controller.contact().unwrap().introducers().is_empty());
    // And it asks no contact's introducer for others that is itself.
    let contact =
        Contact::new(crust::Identity::generate().public_key()).introducer(Introducer::new(own)).unwrap();
    let error = service.controller.connect(contact).unwrap_err();
    assert!(error.attempts().is_empty(), "{}", error.trace());
}

#[test]
fn a_contact_names_the_introducers_and_serves_who_is_attached_nowhere() {
    let (_middle, place) = introducer(crust::Scheme::Quic);
    let server = attached(listening(crust::Scheme::Quic), &place);
    let contact = server.controller.contact().unwrap();
    assert_eq!(contact.introducers().len(), 1);
    assert_eq!(contact.introducers()[0].endpoints(), std::slice::from_ref(&place));
    assert_eq!(contact.to_string().parse::<Contact>().unwrap(), contact);
    let stranger = crate::support::client();
    stranger.controller.connect(by(server.controller.public_key(), &place)).unwrap();
}

#[test]
fn who_is_not_admitted_learns_it_by_the_introducer_and_no_address() {
    let (_middle, place) = introducer(crust::Scheme::Tcp);
    let stranger = crate::support::client();
    let token = AccessToken::generate();
    let server = attached(listening(crust::Scheme::Tcp).access_token(token.clone()), &place);
    let contact = by(server.controller.public_key(), &place);
    let error = stranger.controller.connect(&contact).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Token), "{}", error.trace());
    assert_eq!(error.attempts().len(), 1, "no address was tried");
    // By another, since who was met once may be dialled without an introduction.
    crate::support::client().controller.connect(contact.clone().access_token(token)).unwrap();

    server.controller.set_blocked([stranger.controller.public_key()]);
    let error = stranger.controller.connect(&contact).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Key), "{}", error.trace());
    server.controller.set_blocked([]);
    server.controller.set_accepting(false);
    let error = stranger.controller.connect(&contact).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Key), "{}", error.trace());
    let failed = |event: &ServiceEvent| {
        matches!(event, ServiceEvent::IntroductionFailed { peer: Some(peer), .. }
            if *peer == stranger.controller.public_key())
    };
    // The dialler is told at once, and maybe before the peer has written it down.
    let events = server.controller.events();
    let deadline = Instant::now() + Duration::from_secs(10);
    for _ in 0..3 {
        while !failed(&events.recv_deadline(deadline).expect("each is told")) {}
    }
}

#[test]
fn a_peer_that_the_introducer_does_not_know_is_told_with_advice() {
    let (_middle, place) = introducer(crust::Scheme::Quic);
    let nobody = crust::Identity::generate().public_key();
    let started = Instant::now();
    let error = client(&place).controller.connect(nobody).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let trace = error.trace().to_string();
    assert!(trace.contains("not attached to this introducer"), "{trace}");
    assert!(trace.contains("given the same introducer?"), "{trace}");
}

#[test]
fn one_introducer_that_dies_loses_nothing_and_one_that_comes_back_is_found_again() {
    let (first, place) = introducer(crust::Scheme::Quic);
    let (_second, other) = introducer(crust::Scheme::Quic);
    let config = listening(crust::Scheme::Quic).introducers([place.clone(), other.clone()]);
    let server = Service::new_from_config(config.dead_after(Duration::from_secs(2))).unwrap();
    let up = |event: &ServiceEvent| matches!(event, ServiceEvent::IntroducerAttached { .. });
    let events = server.controller.events();
    let wait = |wanted: &dyn Fn(&ServiceEvent) -> bool| {
        while !wanted(&events.recv_deadline(soon()).expect("the event comes")) {}
    };
    wait(&up);
    wait(&up);
    drop(first);
    wait(&|event| matches!(event, ServiceEvent::IntroducerLost { introducer, .. } if *introducer == place));
    let mut contact = by(server.controller.public_key(), &place);
    contact = contact.introducer(Introducer::new(other)).unwrap();
    let options = ConnectOptions::new().deadline(Duration::from_secs(15));
    crate::support::client().controller.connect_with(&contact, &options).unwrap();
}

#[test]
fn dropping_a_service_ends_its_threads_and_its_calls() {
    let (middle, place) = introducer(crust::Scheme::Quic);
    let server = attached(listening(crust::Scheme::Quic), &place);
    let started = Instant::now();
    drop(server);
    drop(middle);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn what_is_not_a_frame_ends_the_stream_and_nothing_else() {
    let (middle, place) = introducer(crust::Scheme::Tcp);
    let server = attached(listening(crust::Scheme::Tcp), &place);
    let stranger = crate::support::client();
    let options = ConnectOptions::new().protocol(crust::ProtocolLabel::new("crust-introduce/1").unwrap());
    let mut rude = stranger.controller.connect_with(place.clone(), &options).unwrap();
    rude.write_all(&[9, 0, 0]).unwrap();
    rude.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let end = rude.read(&mut [0]);
    let silent = |error| crust::StreamError::of(error) == Some(&crust::StreamError::TimedOut);
    assert!(matches!(&end, Ok(0)) || end.as_ref().is_err_and(|error| !silent(error)), "{end:?}");
    stranger.controller.connect(by(server.controller.public_key(), &place)).unwrap();
    drop(middle);
}

#[cfg(feature = "turn")]
#[test]
fn an_introducer_that_relays_carries_those_who_are_attached() {
    use crust::{Cidr, Road};

    let loopback: Cidr = "127.0.0.0/8".parse().unwrap();
    let config = listening(crust::Scheme::Quic).lan(Lan::Off).introduce(true).relay(true);
    let middle = Service::new_from_config(config.relay_allow([loopback])).unwrap();
    let place: NamedEndpoint = middle.controller.endpoints().unwrap()[0].into();
    // Neither may use anything else than a relay, and neither was told of one.
    let relayed = |config: Config| attached(config.lan(Lan::Off).roads([Road::Relayed]), &place);
    let server = relayed(listening(crust::Scheme::Quic));
    let client = relayed(Config::new().listen([]));
    // The ticket comes right behind the word that one is attached.
    let deadline = soon();
    let mut stream = loop {
        match client.controller.connect(server.controller.public_key()) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{}", error.trace()),
        }
    };
    assert_eq!(Road::from(stream.path().kind), Road::Relayed);
    stream.write_all(b"hello").unwrap();
    drop(stream);
    let mut text = String::new();
    server.acceptor.accept_deadline(soon()).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[cfg(feature = "turn")]
#[test]
fn a_relay_has_to_know_its_address() {
    let config = Config::new().lan(Lan::Off).listen(["quic://0.0.0.0:0".parse().unwrap()]).introduce(true);
    let error = Service::new_from_config(config.relay(true)).unwrap_err();
    assert!(matches!(error, crust::StartError::RelayAddress), "{error}");
}
