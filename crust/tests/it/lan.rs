//! Services that find each other by beacons, on loopback: the first chooses a port, the others are given it.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use beacon::{Beacon, BeaconConfig, Interfaces};
use crust::{
    BeaconError, Config, ConnectOptions, Contact, Disabled, Dynamic, Enabled, Endpoint, GroupSecret,
    Identity, Lan, LanError, Road, Scheme, Service, ServiceBeaconState,
};

use crate::support::{SCHEMES, listening};

#[test]
fn an_announced_service_is_heard_with_its_key_and_is_where_it_says() {
    for scheme in SCHEMES {
        let (server, port) = announced(listening(scheme));
        let mut client = looking(port);

        let endpoint = client.beacon_receiver.next_deadline(soon()).unwrap();

        assert_eq!(endpoint, server.controller.endpoints().unwrap()[0]);
        let stream = client.controller.connect(endpoint).unwrap();
        assert_eq!(stream.public_key(), server.controller.public_key());
        assert_eq!(Road::from(stream.path().kind), Road::Lan);
        let known = client.controller.lan_peers();
        assert_eq!(known, [(server.controller.public_key(), vec![endpoint])]);
    }
}

#[test]
fn a_bare_key_is_looked_for_and_dialled() {
    let places = SCHEMES.map(|scheme| format!("{scheme}://127.0.0.1:0").parse().unwrap());
    let (server, port) = announced(Config::new().listen(places));
    let client = looking(port);

    let stream = client.controller.connect(server.controller.public_key()).unwrap();

    assert_eq!(stream.path().scheme, Scheme::Quic);
    let tcp = ConnectOptions::new().only([Scheme::Tcp]);
    let stream = client.controller.connect_with(server.controller.public_key(), &tcp).unwrap();
    assert_eq!(stream.path().scheme, Scheme::Tcp);
}

#[test]
fn a_service_on_every_address_is_where_its_beacon_came_from() {
    let (server, port) = announced(Config::new().lan(Lan::Loopback).port_map(false));
    let mut client = looking(port);

    let mut heard = [(); 2].map(|()| client.beacon_receiver.next_deadline(soon()).unwrap());

    heard.sort();
    assert_eq!(heard.map(|endpoint| endpoint.scheme()), [Scheme::Quic, Scheme::Tcp]);
    assert!(heard.iter().all(|endpoint| endpoint.addr().ip().is_loopback()), "{heard:?}");
    client.controller.connect(server.controller.public_key()).unwrap();
}

#[test]
fn a_contact_whose_addresses_are_old_leads_to_where_the_key_is_heard() {
    let (server, port) = announced(listening(Scheme::Tcp));
    let mut client = looking(port);
    client.beacon_receiver.next_deadline(soon()).unwrap();
    let key = server.controller.public_key();
    let gone = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse().unwrap(), key);

    let stream = client.controller.connect(Contact::new(key).endpoint(gone).unwrap()).unwrap();

    assert_eq!(stream.public_key(), key);
}

#[test]
fn who_lies_about_a_key_does_not_keep_others_from_it() {
    let (server, port) = announced(listening(Scheme::Tcp));
    let key = server.controller.public_key();
    let nobody = [&[1][..], key.as_bytes(), &[1, 0, 7, 1, 127, 0, 0, 1, 0, 1]].concat();
    let elsewhere = [&[1][..], key.as_bytes(), &[1, 0, 7, 1, 192, 0, 2, 1, 0, 1]].concat();
    let config = BeaconConfig::new(port).interfaces(Interfaces::Loopback);
    let _liars = [nobody, elsewhere].map(|lie| Beacon::with_config(config.clone(), lie).unwrap());
    let mut client = looking(port);
    // The liar and the honest one; what is off the link is not passed on.
    for _ in 0..2 {
        let endpoint = client.beacon_receiver.next_deadline(soon()).unwrap();
        assert!(endpoint.addr().ip().is_loopback(), "{endpoint}");
    }

    assert_eq!(client.controller.connect(key).unwrap().public_key(), key);
}

#[test]
fn a_service_does_not_hear_itself_and_is_not_heard_when_disabled() {
    let (server, port) = announced(listening(Scheme::Tcp));
    let Service { beacon_state, mut beacon_receiver, controller, .. } =
        Service::new_from_config(listening(Scheme::Tcp).lan_port(port)).unwrap();
    let state: ServiceBeaconState<Enabled> = beacon_state.enable().unwrap();
    let Service { beacon_receiver: mut other, controller: server, .. } = server;

    // Each hears the other first, and so not itself.
    assert_eq!(beacon_receiver.next_deadline(soon()).unwrap().public_key(), server.public_key());
    assert_eq!(other.next_deadline(soon()).unwrap().public_key(), controller.public_key());

    let state: ServiceBeaconState<Disabled> = state.disable();
    assert!(!state.is_enabled());
    until(|| server.lan_peers().is_empty());
    let mut state: ServiceBeaconState<Dynamic> = state.into();
    state.set_period(Duration::from_millis(100));
    state.set_enabled(true).unwrap();
    assert_eq!(other.next_deadline(soon()).unwrap().public_key(), controller.public_key());
}

#[test]
fn places_that_are_added_and_removed_are_announced_as_they_are() {
    let (server, port) = announced(listening(Scheme::Tcp));
    let mut client = looking(port);
    let first = client.beacon_receiver.next_deadline(soon()).unwrap();

    let added = server.controller.add_listener("quic://127.0.0.1:0".parse().unwrap()).unwrap();
    let second = client.beacon_receiver.next_deadline(soon()).unwrap();
    assert_eq!((second.scheme(), second.addr()), (added.scheme(), added.addr()));

    assert!(server.controller.remove_listener(crust::ListenEndpoint::new(first.scheme(), first.addr())));
    until(|| client.controller.lan_peers() == [(second.public_key(), vec![second])]);
    assert!(server.controller.remove_listener(added));
    until(|| client.controller.lan_peers().is_empty());
}

#[test]
fn the_end_of_the_service_ends_every_wait_and_is_heard_as_a_goodbye() {
    let (server, port) = announced(listening(Scheme::Tcp));
    let Service { mut beacon_receiver, controller, beacon_state, .. } = looking(port);
    beacon_receiver.next_deadline(soon()).unwrap();
    drop(server);
    until(|| controller.lan_peers().is_empty());

    let nobody = Identity::generate().public_key();
    thread::scope(|scope| {
        let receiving = scope.spawn(|| beacon_receiver.endpoints().count());
        let finding = scope.spawn(|| controller.find_on_lan(nobody, soon()));
        controller.close();
        assert_eq!(receiving.join().unwrap(), 0);
        assert!(matches!(finding.join().unwrap(), Err(LanError::Closed)));
    });
    assert!(matches!(beacon_state.enable().unwrap_err().error(), LanError::Closed));
}

#[test]
fn a_key_that_is_nowhere_is_given_up_at_the_deadline() {
    let (_server, port) = announced(listening(Scheme::Tcp));
    let client = looking(port);
    let nobody = Identity::generate().public_key();
    let begun = Instant::now();

    let soon = ConnectOptions::new().deadline(Duration::from_millis(100));
    let error = client.controller.connect_with(nobody, &soon).unwrap_err();

    assert!(error.attempts().is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[test]
fn where_the_local_network_is_off_nothing_is_started() {
    let config = Config::new().listen([]).lan(Lan::Off);
    let Service { beacon_state, mut beacon_receiver, controller, .. } =
        Service::new_from_config(config).unwrap();

    let error = beacon_state.enable().unwrap_err();
    assert!(matches!(error.error(), LanError::Off));
    assert!(!error.into_state().is_enabled());
    assert!(matches!(beacon_receiver.next(), Err(LanError::Off)));
    controller.connect(Identity::generate().public_key()).unwrap_err();
    assert_eq!(controller.lan_port(), None);
}

#[test]
fn a_port_that_is_not_shared_is_told_and_may_be_tried_again() {
    let holder = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let service = Service::new_from_config(listening(Scheme::Tcp).lan_port(port)).unwrap();

    let error = service.beacon_state.enable().unwrap_err();
    assert!(matches!(error.error(), LanError::Start(BeaconError::Bind { .. })), "{error:?}");

    drop(holder);
    assert!(error.into_state().enable().unwrap().is_enabled());
}

#[test]
fn services_with_a_secret_are_found_by_those_who_share_it_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("group.key");
    std::fs::write(&file, [7; 32]).unwrap();
    let (server, port) = announced(listening(Scheme::Tcp).lan_secret_file(&file));
    let looking = |config: Config| {
        Service::new_from_config(config.listen([]).lan(Lan::Loopback).lan_port(port)).unwrap()
    };
    let member = looking(Config::new().lan_secret_file(&file));
    let stranger = looking(Config::new());
    let other = looking(Config::new().lan_secret(GroupSecret::new([8; 32])));
    let key = server.controller.public_key();

    member.controller.connect(key).unwrap();

    let soon = || Instant::now() + Duration::from_millis(300);
    assert!(matches!(stranger.controller.find_on_lan(key, soon()), Err(LanError::TimedOut)));
    assert!(matches!(other.controller.find_on_lan(key, soon()), Err(LanError::TimedOut)));
    std::fs::remove_file(&file).unwrap();
    Service::new_from_config(Config::new().port_map(false).lan_secret_file(&file)).unwrap_err();
}

/// A service that is announced, and the port to hear it on.
fn announced(config: Config) -> (Service, u16) {
    let mut service = Service::new_from_config(config.lan_port(0)).unwrap();
    service.beacon_state.set_enabled(true).unwrap();
    let port = service.controller.lan_port().unwrap();
    (service, port)
}

/// One that listens to beacons only.
fn looking(port: u16) -> Service {
    Service::new_from_config(Config::new().listen([]).lan(Lan::Loopback).lan_port(port)).unwrap()
}

/// Waits for what no call waits for: that a beacon's thread has taken note of a goodbye.
fn until(is_so: impl Fn() -> bool) {
    let deadline = soon();
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come about");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Far more than a busy machine needs.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}
