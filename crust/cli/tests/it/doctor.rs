use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use nat_traversal::HolePunchServer;

use crate::support::Home;

const FIELDS: [&str; 13] = [
    "event",
    "local",
    "public",
    "mapping",
    "filtering",
    "ports",
    "port_step",
    "hairpin",
    "udp",
    "nat_levels",
    "binding_lifetime_s",
    "port_mapper",
    "advice",
];

#[test]
fn with_a_server_of_two_addresses_it_tells_all_and_reaches_the_peer() {
    let (server, home) = (server_of_two(), Home::new());
    let stun = server.addresses()[0].addr.to_string();
    let (mut peer, contact) = home.serve("tcp", &["listen", "--once", "--no-lan"]);

    let examined = home.run(&["doctor", "--no-lan", "--stun", &stun, "--peer", &contact]);

    let doctor = examined.assert_done().event("doctor");
    let mut fields: Vec<&str> = doctor.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = FIELDS.to_vec();
    fields.sort_unstable();
    expected.sort_unstable();
    assert_eq!(fields, expected);
    assert_eq!((&doctor["udp"], &doctor["mapping"]), (&"open".into(), &"none".into()), "{doctor}");
    assert_eq!(
        (&doctor["filtering"], &doctor["ports"]),
        (&"endpoint-independent".into(), &"preserved".into())
    );
    assert_eq!((&doctor["nat_levels"], doctor["port_mapper"].is_null()), (&0.into(), true), "{doctor}");
    assert_eq!(doctor["advice"], serde_json::json!([]), "{doctor}");
    assert_eq!(examined.event("connected")["transport"], "tcp");
    let trace = examined.event("trace");
    assert_eq!(
        (&trace["steps"][0]["road"], &trace["steps"][0]["reason"]),
        (&"lan".into(), &serde_json::Value::Null)
    );
    peer.event("connected");
}

#[test]
fn how_long_a_silent_port_lives_is_measured_if_asked_for() {
    let (server, home) = (server_of_two(), Home::new());
    let stun = server.addresses()[0].addr.to_string();
    let examined = home.run(&["doctor", "--no-lan", "--stun", &stun, "--lifetime", "1s"]);
    let doctor = examined.assert_done().event("doctor");
    assert_eq!(doctor["binding_lifetime_s"], 1, "nothing forgets ports of this host: {doctor}");
}

#[test]
fn without_servers_it_says_what_is_missing() {
    let home = Home::new();
    let examined = home.run(&["doctor"]);
    let doctor = examined.assert_done().event("doctor");
    assert!(doctor["udp"].is_null() && doctor["mapping"].is_null(), "{doctor}");
    assert!(doctor["advice"][0].as_str().unwrap().contains("--stun"), "{doctor}");
}

#[test]
fn a_server_that_is_not_there_is_told_within_seconds() {
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let examined = Home::new().run(&["doctor", "--stun", &dead]);
    let doctor = examined.assert_done().event("doctor");
    assert!(doctor["advice"][0].as_str().unwrap().contains("no STUN server answers"), "{doctor}");
}

#[test]
fn a_peer_that_cannot_be_reached_is_its_failure() {
    let home = Home::new();
    let nobody = "tcp://127.0.0.1:1?pubkey=aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq";
    let examined = home.run(&["doctor", "--no-lan", "--peer", nobody]);
    examined.event("doctor");
    assert!(examined.event("trace")["steps"][0]["reason"].is_string());
    examined.assert_failed(1, "connect");
}

/// At two loopback addresses; ports are tried until both are free at both.
fn server_of_two() -> HolePunchServer {
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let attempt = |_| {
        let first = SocketAddr::from((Ipv4Addr::LOCALHOST, free()));
        HolePunchServer::bind_two(first, SocketAddr::from(([127, 0, 0, 2], free()))).ok()
    };
    (0..50).find_map(attempt).expect("free ports")
}
