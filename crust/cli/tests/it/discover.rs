use crust::{Config, Identity, Lan, Service};

use crate::support::Home;

#[test]
fn who_listens_is_discovered_by_key_until_it_ends_and_its_token_is_not_told() {
    let (home, _keep) = home();
    let file = home.file("notes.txt", b"notes");
    let mut sender = home.start(&["send", &file, "--listen", "tcp://127.0.0.1:0"]);
    let listening = sender.event("listening");
    let contact: crust::Contact = listening["contact"].as_str().unwrap().parse().unwrap();
    let token = contact.token().unwrap().to_string();

    let found = home.run(&["discover", "--for", "2s"]);

    assert_eq!((found.status, found.events.len()), (Some(0), 1), "{found:#?}");
    assert_eq!(found.events[0]["event"], "discovered");
    assert_eq!(found.events[0]["peer"], listening["id"]);
    assert_eq!(found.events[0]["endpoints"], listening["endpoints"]);
    assert!(!found.events[0].to_string().contains(&token));
    // The key leads there; without the token it is turned away, so nobody gets in by a beacon alone.
    let key = listening["id"].as_str().unwrap();
    let refused = home.run(&["receive", key]);
    assert!(refused.assert_failed(1, "refused").contains("token"));
    sender.interrupt();
    sender.wait();
    assert!(home.run(&["discover", "--for", "200ms"]).events.is_empty());
}

#[test]
fn a_key_that_nobody_announces_is_no_road() {
    let (home, _keep) = home();
    let nobody = Identity::generate().public_key().to_string();

    let failed = home.run(&["connect", &nobody, "--deadline", "300ms"]);

    assert!(failed.assert_failed(1, "connect").contains("no road"));
}

#[test]
fn a_port_that_another_program_does_not_share_is_told() {
    let home = Home::new();
    let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    home.file("config/crust/config.toml", format!("lan = \"loopback\"\nlan_port = {port}\n").as_bytes());

    let failed = home.run(&["discover", "--for", "200ms"]);

    assert!(failed.assert_failed(1, "lan").contains(&port.to_string()));
}

/// A home whose commands use a port for beacons that no other test uses, as long as the service is kept.
fn home() -> (Home, Service) {
    let service = Service::new_from_config(Config::new().listen([]).lan(Lan::Loopback).lan_port(0)).unwrap();
    service.beacon_receiver.receiver().unwrap();
    let port = service.controller.lan_port().unwrap();
    let home = Home::new();
    home.file("config/crust/config.toml", format!("lan = \"loopback\"\nlan_port = {port}\n").as_bytes());
    (home, service)
}
