//! One call of every name that the RFC promises of its service library, so that coverage is a compile error, not an opinion.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{thread, time::Duration};

use crust::{
    AcceptingEndpoints, BeaconEndpoints, CachedEndpoint, Config, ConnectOptions, Disabled, Dynamic, Enabled,
    Endpoint, EndpointCacheIterator, HolePunchServerAddr, Incoming, KnownEndpoints, Lan, ListenEndpoint,
    MapError, MappedEndpoint, MappedEndpoints, MappedUdpSocket, MappingContext, NetworkName, Refusal,
    RendezvousOffer, Service, ServiceBeaconReceiver, ServiceBeaconState, ServiceController, ServiceListener,
    StartError, Stream, UdpRendezvousInfo, gen_rendezvous_info,
};
use nat_traversal::MappingConfig;

fn config() -> Config {
    Config::new().lan(Lan::Loopback).lan_port(0).listen(["quic://127.0.0.1:0".parse().unwrap()])
}

#[test]
fn a_service_comes_apart() {
    let Service { acceptor, beacon_state, beacon_receiver, controller, .. } =
        Service::new_from_config(config()).unwrap();
    let parts: (ServiceListener, ServiceBeaconState, ServiceBeaconReceiver, ServiceController) =
        (acceptor, beacon_state, beacon_receiver, controller);
    fn is_sync<T: Sync + Send>(_: &T) {}
    is_sync(&parts.3);
    thread::spawn(move || drop(parts)).join().unwrap();
}

#[test]
fn streams_come_in_and_go_out() {
    let server = Service::new_from_config(config()).unwrap();
    let client = Service::new_from_config(config()).unwrap();
    let endpoint: Endpoint = server.controller.endpoints().unwrap()[0];
    let _dialled: Stream = client.controller.connect(endpoint).unwrap();
    let _accepted: Stream = server.acceptor.accept().unwrap();
    let _dialled: Stream = client.controller.connect(endpoint).unwrap();
    let mut incoming: Incoming<'_> = server.acceptor.incoming();
    let _accepted: Stream = incoming.next().unwrap();
}

#[test]
fn two_calls_that_dial_each_other_have_one_stream() {
    let services = [(); 2].map(|()| Service::new_from_config(config()).unwrap());
    let endpoints = [0, 1].map(|index: usize| services[index].controller.endpoints().unwrap()[0]);
    let options = ConnectOptions::new().single();
    thread::scope(|scope| {
        let other =
            scope.spawn(|| services[1].controller.connect_with(endpoints[0], &options).unwrap().public_key());
        let stream: Stream = services[0].controller.connect_with(endpoints[1], &options).unwrap();
        assert_eq!(stream.public_key(), services[1].controller.public_key());
        assert_eq!(other.join().unwrap(), services[0].controller.public_key());
    });
}

#[test]
fn the_beacon_has_its_typestates() {
    let service = Service::new_from_config(config()).unwrap();
    let mut state: ServiceBeaconState<Dynamic> = service.beacon_state;
    state.set_period(Duration::from_secs(5));
    state.set_enabled(true).unwrap();
    assert!(state.is_enabled());
    let disabled: ServiceBeaconState<Disabled> = state.disable();
    let dynamic: ServiceBeaconState<Dynamic> = disabled.into();
    let mut enabled: ServiceBeaconState<Enabled> = dynamic.enable().unwrap();
    enabled.set_period(Duration::from_secs(5));

    let port = service.controller.lan_port().unwrap();
    let mut other = Service::new_from_config(config().lan_port(port)).unwrap();
    let _heard: Endpoint = other.beacon_receiver.next().unwrap();
    let _: fn(&mut ServiceBeaconReceiver) -> BeaconEndpoints<'_> = |receiver| receiver.endpoints();
    let _dynamic: ServiceBeaconState<Dynamic> = enabled.into();
}

#[test]
fn the_controller_lists_adds_and_removes() {
    let service = Service::new_from_config(config()).unwrap();
    let controller = &service.controller;
    let place: ListenEndpoint = controller.add_listener("tcp://127.0.0.1:0".parse().unwrap()).unwrap();
    let accepting: AcceptingEndpoints<'_> = controller.accepting_endpoints();
    let mut seen = 0;
    for one in accepting {
        let _local: &ListenEndpoint = one.local_endpoint();
        let known: KnownEndpoints = one.known_endpoints().unwrap();
        let mapped: MappedEndpoints = one.mapped_endpoints().unwrap();
        let known: Vec<MappedEndpoint> = known.collect();
        assert_eq!(known, mapped.collect::<Vec<_>>(), "loopback needs no router");
        assert!(!known[0].nat_restricted && known[0].endpoint.addr().ip().is_loopback());
        seen += 1;
    }
    assert_eq!(seen, 2);
    assert!(controller.remove_listener(place));
    assert_eq!(controller.accepting_endpoints().count(), 1);
}

#[test]
fn hole_punching_has_its_servers_and_sockets() {
    let middle = Service::new_from_config(config().introduce(true)).unwrap();
    let service = Service::new_from_config(config()).unwrap();
    let addresses: Vec<HolePunchServerAddr> = middle.controller.hole_punch_addresses();
    assert_eq!(addresses.len(), 2, "at two ports");
    service.controller.add_hole_puncher_server(addresses[0].clone());
    let _context: &MappingContext = service.controller.mapping_context();
}

#[test]
fn two_services_meet_from_mapped_sockets() {
    let one = Service::new_from_config(config()).unwrap();
    let other = Service::new_from_config(config()).unwrap();
    let keys = [&one, &other].map(|service| service.controller.public_key());
    // `mapped_udp_socket` asks the router of the machine that runs the test, which would be rude; its kind is the same.
    let _: fn(&ServiceController) -> Result<MappedUdpSocket, MapError> = ServiceController::mapped_udp_socket;
    let context = MappingContext::new(MappingConfig::new().port_map(false)).unwrap();
    let [(mine, ours, told), (yours, theirs, their_told)]: [(_, _, UdpRendezvousInfo); 2] =
        [0, 1].map(|_| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let mapped: MappedUdpSocket = MappedUdpSocket::map(socket, &context).unwrap();
            let (ours, told) = gen_rendezvous_info(mapped.endpoints.clone());
            (mapped, ours, told)
        });
    thread::scope(|scope| {
        let met =
            scope.spawn(|| other.controller.udp_rendezvous_connect(yours, theirs, keys[0], &told).unwrap());
        let stream: Stream = one.controller.udp_rendezvous_connect(mine, ours, keys[1], &their_told).unwrap();
        assert_eq!([met.join().unwrap().public_key(), stream.public_key()], keys);
    });
    assert!(one.acceptor.receiver().is_empty() && other.acceptor.receiver().is_empty());
}

#[test]
fn two_services_meet_by_offers_that_the_caller_carries() {
    let one = Service::new_from_config(config()).unwrap();
    let other = Service::new_from_config(config()).unwrap();
    let (offer, rendezvous) = one.controller.prepare_rendezvous().unwrap();
    let (theirs, meeting) = other.controller.prepare_rendezvous().unwrap();
    let offer = RendezvousOffer::from_bytes(&offer.to_bytes()).unwrap();
    thread::scope(|scope| {
        let met = scope.spawn(move || meeting.connect(&offer).unwrap());
        let stream: Stream = rendezvous.connect(&theirs).unwrap();
        assert_eq!(stream.public_key(), other.controller.public_key());
        assert_eq!(met.join().unwrap().public_key(), one.controller.public_key());
    });
    assert!(one.acceptor.receiver().is_empty() && other.acceptor.receiver().is_empty());
}

#[test]
fn the_endpoint_cache_is_listed_dialled_and_emptied() {
    let server = Service::new_from_config(config()).unwrap();
    let client = Service::new_from_config(config()).unwrap();
    client.controller.cache_endpoint(server.controller.endpoints().unwrap()[0]);
    let mut cache: EndpointCacheIterator<'_> = client.controller.iter_endpoint_cache();
    let cached: CachedEndpoint<'_> = cache.next().unwrap();
    let _endpoint: Endpoint = cached.endpoint();
    let _stream: Stream = cached.connect().unwrap();
    client.controller.iter_endpoint_cache().next().unwrap().remove();
    assert!(client.controller.iter_endpoint_cache().next().is_none());
}

#[test]
fn a_service_does_not_connect_to_itself() {
    let service = Service::new_from_config(config()).unwrap();
    let error = service.controller.connect(service.controller.contact().unwrap()).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Myself));
    let error = service.controller.connect(service.controller.public_key()).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Myself));
    assert!(error.to_string().contains("own key"), "{error}");
}

#[test]
fn the_default_file_is_where_such_files_are() {
    let _: fn() -> Result<Service, StartError> = Service::new;
    let file = Config::default_file().expect("whoever runs tests has a home");
    assert!(file.ends_with("crust/config.toml"), "{}", file.display());
}

#[test]
fn who_may_connect_is_a_matter_of_network_lists_and_a_switch() {
    let network = |name: &str| NetworkName::new(name).unwrap();
    let server = Service::new_from_config(config().network_name(network("test"))).unwrap();
    let client = Service::new_from_config(config().network_name(network("test"))).unwrap();
    let other = Service::new_from_config(config()).unwrap();
    let endpoint = server.controller.endpoints().unwrap()[0];
    let refusal = |from: &Service| from.controller.connect(endpoint).map(drop).err()?.refusal();
    assert_eq!(refusal(&other), Some(Refusal::Network));
    assert_eq!(refusal(&client), None);
    server.controller.set_blocked([client.controller.public_key()]);
    assert_eq!(refusal(&client), Some(Refusal::Key));
    server.controller.set_blocked([]);
    server.controller.set_allowed(Some(vec![other.controller.public_key()]));
    assert_eq!(refusal(&client), Some(Refusal::Key));
    server.controller.set_allowed(None);
    server.controller.set_accepting(false);
    assert_eq!(refusal(&client), Some(Refusal::Key));
    server.controller.set_accepting(true);
    assert_eq!(refusal(&client), None);
}

#[cfg(feature = "dht")]
#[test]
fn the_dht_is_asked_only_where_it_is_on() {
    let service = Service::new_from_config(config()).unwrap();
    let found = service.controller.find_in_dht(service.controller.public_key(), std::time::Instant::now());
    assert_eq!(found, Err(crust::DhtError::Off));
}
