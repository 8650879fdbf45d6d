//! A home router on loopback forwards the ports of listeners, or does not.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crust::{Config, Driver, Endpoint, Lan, ListenEndpoint, PortMapMethod, Scheme, Service, ServiceEvent};

use crate::{
    home_router::{EXTERNAL, HomeRouter},
    support::{SCHEMES, client},
};

#[test]
fn where_a_router_lets_peers_in_is_told_in_every_way_and_given_back() {
    let router = HomeRouter::start("127.9.20.1", |_| ());
    let service = Service::new_from_config(listening().router(router.ip())).unwrap();
    let controller = &service.controller;

    assert!(controller.wait_port_mapped(soon()));

    let places: Vec<_> = controller.accepting_endpoints().map(|place| *place.local_endpoint()).collect();
    let outside: Vec<_> = places.iter().map(|place| outside(*place, &service)).collect();
    for (accepting, outside) in controller.accepting_endpoints().zip(&outside) {
        let known: Vec<_> = accepting.known_endpoints().unwrap().map(|known| known.endpoint).collect();
        let inside = Endpoint::new(outside.scheme(), accepting.local_endpoint().addr(), outside.public_key());
        assert_eq!(known, [inside, *outside]);
        let mapped: Vec<_> = accepting.mapped_endpoints().unwrap().map(|mapped| mapped.endpoint).collect();
        assert_eq!(mapped, known);
    }
    for outside in &outside {
        assert!(controller.endpoints().unwrap().contains(outside));
        assert!(controller.contact().unwrap().endpoints().contains(&(*outside).into()));
    }
    let (offer, _rendezvous) = controller.prepare_rendezvous().unwrap();
    let [a, b, c, d] = EXTERNAL;
    assert!(offer.to_bytes().windows(4).any(|bytes| bytes == [a, b, c, d]), "a peer that is met is told");
    let mut told: Vec<_> = (0..2).map(|_| mapped(&service)).collect();
    told.sort();
    let mut expected: Vec<_> = places.into_iter().zip(outside.iter().map(Endpoint::addr)).collect();
    expected.sort();
    assert_eq!(told, expected);

    drop(service);
    router.wait_until(|forwarded| forwarded == 0);
}

#[test]
fn a_listener_that_is_added_is_forwarded_and_one_that_is_removed_is_not() {
    let router = HomeRouter::start("127.9.20.2", |_| ());
    let config = Config::new().lan(Lan::Off).listen([]).router(router.ip());
    let service = Service::new_from_config(config).unwrap();
    assert!(!service.controller.wait_port_mapped(soon()), "nothing listens yet");

    let place = service.controller.add_listener("tcp://127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!(mapped(&service).0, place);
    assert!(service.controller.contact().unwrap().endpoints().contains(&outside(place, &service).into()));

    assert!(service.controller.remove_listener(place));
    router.wait_until(|forwarded| forwarded == 0);
    assert!(service.controller.contact().unwrap().endpoints().is_empty());
}

#[test]
fn a_lease_that_ends_takes_its_address_away_and_a_router_that_comes_back_brings_it_again() {
    let router = HomeRouter::start("127.9.20.3", |router| router.max_lifetime = Duration::from_secs(3));
    let service = Service::new_from_config(listening().only([Scheme::Tcp]).router(router.ip())).unwrap();
    let (place, external) = mapped(&service);
    let is_told = || {
        let endpoints = service.controller.contact().unwrap().endpoints().to_vec();
        endpoints.contains(&outside(place, &service).into())
    };
    assert!(is_told());

    router.change(|router| router.is_silent = true);

    let event = service.controller.events().recv_deadline(soon()).unwrap();
    let ServiceEvent::PortMapLost { place: lost, external: gone, reason } = event else {
        panic!("{event:?}")
    };
    assert_eq!((lost, gone), (place, external));
    assert!(reason.contains("no answer from 127.9.20.3"), "{reason}");
    assert!(!is_told());
    // The service itself goes on.
    let endpoint = service.controller.endpoints().unwrap()[0];
    client().controller.connect(endpoint).unwrap();

    router.change(|router| router.is_silent = false);
    assert_eq!(mapped(&service), (place, external));
    assert!(is_told());
}

#[test]
fn a_router_that_moves_to_another_address_is_followed() {
    let router = HomeRouter::start("127.9.20.4", |router| router.max_lifetime = Duration::from_secs(3));
    let service = Service::new_from_config(listening().only([Scheme::Quic]).router(router.ip())).unwrap();
    let (place, before) = mapped(&service);
    let now: SocketAddr = SocketAddr::from(([203, 0, 113, 9], before.port()));

    router.change(|router| router.external = now.ip());

    assert_eq!(mapped(&service), (place, now));
    let endpoints = service.controller.endpoints().unwrap();
    assert!(endpoints.iter().any(|endpoint| endpoint.addr() == now), "{endpoints:?}");
    assert!(endpoints.iter().all(|endpoint| endpoint.addr() != before), "{endpoints:?}");
}

#[test]
fn a_router_that_refuses_is_told_of_once_and_holds_nothing_up() {
    let router = HomeRouter::start("127.9.20.5", |router| router.refuses = Some(2));
    let service = Service::new_from_config(listening().router(router.ip())).unwrap();
    // Before the router has had its say, as UPnP's search takes more than a second.
    let endpoint = service.controller.endpoints().unwrap()[0];
    client().controller.connect(endpoint).unwrap();
    service.acceptor.accept_deadline(soon()).unwrap();

    assert!(!service.controller.wait_port_mapped(soon()));

    let event = service.controller.events().recv_deadline(soon()).unwrap();
    let ServiceEvent::PortMapFailed { reason, .. } = event else { panic!("{event:?}") };
    assert!(reason.contains("PCP: 127.9.20.5 refuses: not authorized"), "{reason}");
    // What it does on request is no news if it comes to the same.
    for accepting in service.controller.accepting_endpoints() {
        assert_eq!(accepting.mapped_endpoints().unwrap().count(), 1);
    }
    assert!(service.controller.events().is_empty());
    let nobody = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse().unwrap(), client().controller.public_key());
    let error = service.controller.connect(nobody).unwrap_err();
    assert!(error.trace().to_string().contains("router: no port is forwarded: PCP"), "{}", error.trace());
}

#[test]
fn what_a_router_forwards_is_in_the_trace_of_a_call() {
    let router = HomeRouter::start("127.9.20.6", |_| ());
    let service = Service::new_from_config(listening().router(router.ip())).unwrap();
    assert!(service.controller.wait_port_mapped(soon()));
    let other = Service::new_from_config(listening().port_map(false)).unwrap();
    let to_other = other.controller.endpoints().unwrap()[0];

    let (stream, trace) = service.controller.connect_traced(to_other, &crust::ConnectOptions::new());

    stream.unwrap();
    let line = trace.router().unwrap();
    assert!(line.contains("198.51.100.77:") && line.contains("by PCP"), "{line}");
    assert!(trace.to_string().contains(line));
    let (_, trace) = other.controller.connect_traced(to_other, &crust::ConnectOptions::new());
    assert_eq!(trace.router(), None, "that one asks no router");
}

#[test]
fn no_router_is_asked_if_none_is_to_be() {
    let router = HomeRouter::start("127.9.20.7", |_| ());
    let config = || listening().router(router.ip());
    let off = Service::new_from_config(config().port_map(false)).unwrap();
    assert!(!off.controller.wait_port_mapped(soon()));
    for accepting in off.controller.accepting_endpoints() {
        assert_eq!(accepting.mapped_endpoints().unwrap().count(), 1);
    }
    // Nor in the background where the service has no threads.
    let still = Service::new_from_config(config().driver(Driver::Caller)).unwrap();
    assert!(!still.controller.wait_port_mapped(soon()));
    assert_eq!(router.requests(), 0);

    let first = still.controller.accepting_endpoints().next().unwrap();
    let mapped: Vec<_> = first.mapped_endpoints().unwrap().collect();
    assert_eq!(mapped[1].endpoint, outside(*first.local_endpoint(), &still));
    drop(still);
    router.wait_until(|forwarded| forwarded == 0);
}

#[test]
fn a_service_that_ends_while_a_router_is_asked_waits_for_nobody_and_leaves_nothing_behind() {
    let router = HomeRouter::start("127.9.20.8", |_| ());
    let held = router.hold();
    let service = Service::new_from_config(listening().router(router.ip())).unwrap();
    router.wait_until_asked();
    // It has the question, and answers it when nobody wants to know any more.
    drop(service);
    drop(held);
    router.wait_for(|router, requests| requests > 1 && router.forwardings(Instant::now()).is_empty());
}

#[test]
fn a_router_that_is_gone_keeps_the_end_of_a_service_for_a_second_at_most() {
    let router = HomeRouter::start("127.9.20.9", |_| ());
    let service = Service::new_from_config(listening().router(router.ip())).unwrap();
    assert!(service.controller.wait_port_mapped(soon()));
    router.change(|router| router.is_silent = true);
    let begun = Instant::now();
    drop(service);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

fn listening() -> Config {
    let places = SCHEMES.map(|scheme| format!("{scheme}://127.0.0.1:0").parse().unwrap());
    Config::new().lan(Lan::Off).listen(places)
}

fn outside(place: ListenEndpoint, service: &Service) -> Endpoint {
    let addr = SocketAddr::from((EXTERNAL, place.addr().port()));
    Endpoint::new(place.scheme(), addr, service.controller.public_key())
}

/// What the next event tells to be forwarded.
fn mapped(service: &Service) -> (ListenEndpoint, SocketAddr) {
    let event = service.controller.events().recv_deadline(soon()).unwrap();
    let ServiceEvent::PortMapped { place, external, method, .. } = event else { panic!("{event:?}") };
    assert_eq!(method, PortMapMethod::Pcp);
    (place, external)
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Far beyond what this takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);
