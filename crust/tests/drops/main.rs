//! Whatever two services are at when one of them ends: every blocked call returns, and nothing is left behind, in threads, descriptors,
//! allocations of a relay or ports that a router forwards. Counted from `/proc`, so Linux.
//!
//! A sequence, such as a call by an introducer, is played once to learn its steps, which are what the libraries log; then once more for each
//! step, at which one of those who take part ends, while whoever takes the step stands still. `DROP_AT` names one step.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod held;
#[path = "../it/home_router.rs"]
#[expect(dead_code, reason = "some of it is for the other program")]
mod home_router;
mod play;
mod recorder;

use std::time::{Duration, Instant};

use crust::{Config, ConnectOptions, Lan, NamedEndpoint, Road, Scheme, Service};

use home_router::HomeRouter;
use play::{Cast, Who, alone, at_every_step, call, call_each_other, start};

#[test]
fn while_known_addresses_are_dialled() {
    let _alone = alone();
    for scheme in [Scheme::Tcp, Scheme::Quic] {
        let cast = || {
            let (dialler, acceptor) = (hidden(Config::new()), listening(scheme));
            let to = acceptor.controller.endpoints().unwrap()[0].into();
            Cast::new(dialler, acceptor, None, to)
        };
        let phases = ["", "dialling", "a stream is accepted"];
        at_every_step("known addresses", &EITHER, &phases, 1, &|end, most| call(cast(), &options(most), end));
    }
}

#[test]
fn while_the_local_network_is_asked() {
    let _alone = alone();
    let cast = || {
        let on_the_air = |config: Config, port| {
            Service::new_from_config(config.lan(Lan::Loopback).lan_port(port)).unwrap()
        };
        let mut acceptor = on_the_air(Config::new().listen(place(Scheme::Quic)), 0);
        acceptor.beacon_state.set_enabled(true).unwrap();
        let dialler = on_the_air(Config::new().listen([]), acceptor.controller.lan_port().unwrap());
        let to = acceptor.controller.public_key().into();
        Cast::new(dialler, acceptor, None, to)
    };
    let phases = ["", "asking the local network", "dialling"];
    at_every_step("local network", &EITHER, &phases, 1, &|end, most| call(cast(), &options(most), end));
}

#[test]
fn while_peers_are_introduced_and_holes_are_punched() {
    let _alone = alone();
    let phases = [
        "",
        "dialling",
        "knocked at an introducer",
        "a peer knocks",
        "the peer has answered",
        "a peer that knocked tells where it is",
        "sent a STUN message",
        "a hole for QUIC",
        "dialling a peer that is met",
        "a stream is accepted",
    ];
    let everybody = [Who::Dialler, Who::Acceptor, Who::Introducer];
    let options = |most| options(most).roads([Road::Punched]).only([Scheme::Quic]);
    at_every_step("introduced", &everybody, &phases, 1, &|end, most| {
        call(introduced(&Config::new), &options(most), end)
    });
    at_every_step("calling each other", &everybody, &phases, 1, &|end, most| {
        call_each_other(introduced(&Config::new), &options(most), end)
    });
}

#[test]
fn while_holes_are_punched_for_tcp() {
    let _alone = alone();
    let options = |most| options(most).roads([Road::Punched]).only([Scheme::Tcp]);
    let phases = ["", "the peer has answered", "an attempt is established", "punched a hole for TLS"];
    at_every_step("TCP", &EITHER, &phases, 1, &|end, most| {
        call(introduced(&Config::new), &options(most), end)
    });
}

#[cfg(feature = "turn")]
#[test]
fn while_a_relay_is_asked_and_waited_for() {
    let _alone = alone();
    use nat_traversal::{
        RelayHost,
        protocol::turn::{RelayRules, RelaySecret, TargetPolicy},
    };

    let policy = TargetPolicy::strict().allow(["127.0.0.0/8".parse().unwrap()]);
    let rules = RelayRules::new([127, 0, 0, 1].into()).targets(policy);
    let relay = RelayHost::bind("127.0.0.1:0".parse().unwrap(), RelaySecret::new([1; 32]), rules).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let ticket = RelaySecret::new([1; 32]).credentials(now.as_secs() + 3_600, "someone");
    let config = || {
        let server: crust::TurnServer = format!("turn:{}", relay.addr()).parse().unwrap();
        let server = server.with_credentials(ticket.username(), ticket.password());
        Config::new().roads([Road::Relayed]).relays([server])
    };
    // From the relay's answer until it is used, 300 ms after the call, nothing else happens.
    let phases = [
        "",
        "asking a relay for an address",
        "relay: a relay",
        "a hole for QUIC",
        "dialling a peer that is met",
    ];
    at_every_step("relay", &EITHER, &phases, 1, &|end, most| {
        let played = call(introduced(&config), &options(most), end);
        let until = Instant::now() + PATIENCE;
        while relay.stats().allocations > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(relay.stats().allocations, 0, "addresses that nobody gave back: {end:?}");
        played
    });
}

#[test]
fn while_an_introducer_is_asked_to_call() {
    let _alone = alone();
    let middle = introducer();
    let place_of_it: NamedEndpoint = middle.controller.endpoints().unwrap()[0].into();
    let make = || {
        let config = Config::new().lan(Lan::Off).listen(place(Scheme::Quic));
        Service::new_from_config(config.introducers([place_of_it.clone()])).unwrap()
    };
    let phases = ["", "listening", "dialling", "a stream is accepted"];
    at_every_step("attaching", &[Who::Acceptor], &phases, 1, &|end, _| {
        start(&make, &|controller| controller.wait_attached(Instant::now() + PATIENCE), end)
    });
}

#[test]
fn while_a_router_is_asked_to_forward_ports() {
    let _alone = alone();
    let router = HomeRouter::start("127.9.21.1", |_| ());
    let make = || {
        let config = Config::new().lan(Lan::Off).router(router.ip());
        let places = [Scheme::Tcp, Scheme::Quic].map(|scheme| place(scheme)[0]);
        Service::new_from_config(config.listen(places)).unwrap()
    };
    let phases = ["", "listening", "a router forwards a port", "service PortMapped"];
    at_every_step("router", &[Who::Acceptor], &phases, 1, &|end, _| {
        let played = start(&make, &|controller| controller.wait_port_mapped(Instant::now() + PATIENCE), end);
        router.wait_until(|forwarded| forwarded == 0);
        played
    });
}

/// Who is behind the same introducer, made of such a configuration.
fn introduced(config: &dyn Fn() -> Config) -> Cast {
    let middle = introducer();
    let introducer: NamedEndpoint = middle.controller.endpoints().unwrap()[0].into();
    let by = |config: Config| config.lan(Lan::Off).introducers([introducer.clone()]);
    let acceptor = Service::new_from_config(by(config().listen(place(Scheme::Quic)))).unwrap();
    assert!(acceptor.controller.wait_attached(Instant::now() + PATIENCE));
    // It listens, since whoever listens nowhere punches from an address that is not on loopback.
    let dialler = by(config().listen(place(Scheme::Quic)).attach(false));
    let dialler = Service::new_from_config(dialler).unwrap();
    let to = acceptor.controller.public_key().into();
    Cast::new(dialler, acceptor, Some(middle), to)
}

fn introducer() -> Service {
    let config = Config::new().lan(Lan::Off).listen(place(Scheme::Quic));
    Service::new_from_config(config.introduce(true)).unwrap()
}

fn listening(scheme: Scheme) -> Service {
    Service::new_from_config(Config::new().lan(Lan::Off).listen(place(scheme))).unwrap()
}

fn hidden(config: Config) -> Service {
    Service::new_from_config(config.lan(Lan::Off).listen([])).unwrap()
}

fn place(scheme: Scheme) -> [crust::ListenEndpoint; 1] {
    [format!("{scheme}://127.0.0.1:0").parse().unwrap()]
}

/// For that long at most.
fn options(most: Duration) -> ConnectOptions {
    ConnectOptions::new().deadline(most)
}

const EITHER: [Who; 2] = [Who::Dialler, Who::Acceptor];
/// Far beyond what anything here takes on a machine whose cores are all busy.
const PATIENCE: Duration = Duration::from_secs(30);
