//! Our TURN server on loopback, asked by our client.

use std::error::Error as _;
use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime};

use nat_traversal::protocol::turn::{RelayRules, RelaySecret, TargetPolicy, TurnCredentials, TurnFailure};
use nat_traversal::{MappingConfig, MappingContext, RelayError, RelayHost, RelayedUdpSocket, TurnServer};

fn secret() -> RelaySecret {
    RelaySecret::new([7; 32])
}

/// Clients may reach loopback, which a test has and nobody else should.
fn open() -> RelayRules {
    strict().targets(TargetPolicy::strict().allow(["127.0.0.0/8".parse().unwrap()]))
}

fn strict() -> RelayRules {
    RelayRules::new([127, 0, 0, 1].into())
}

fn host(rules: RelayRules) -> RelayHost {
    RelayHost::bind("127.0.0.1:0".parse().unwrap(), secret(), rules).unwrap()
}

fn credentials(seconds: u64, who: &str) -> TurnCredentials {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    secret().credentials(now.as_secs() + seconds, who)
}

fn server(host: &RelayHost, over: &str, credentials: &TurnCredentials) -> TurnServer {
    format!("turn:{}{over}", host.addr()).parse::<TurnServer>().unwrap().with(credentials)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn context() -> MappingContext {
    MappingContext::new(MappingConfig::new().port_map(false)).unwrap()
}

#[test]
fn two_clients_meet_at_it_over_udp_and_tcp() {
    let host = host(open());
    let context = context();
    let [a, b] = ["", "?transport=tcp"].map(|over| {
        let server = server(&host, over, &credentials(3_600, over));
        RelayedUdpSocket::allocate(&context, &server, soon()).unwrap()
    });
    assert_ne!(a.relayed_addr(), b.relayed_addr());
    // Permissions travel beside the packets: what is too early is sent again, from both sides.
    let mut buffer = [0; 2_048];
    let mut carries = |from: &RelayedUdpSocket, to: &RelayedUdpSocket, payload: &[u8]| {
        (0..100).any(|_| {
            from.send_to(payload, to.relayed_addr(), soon()).unwrap();
            to.send_to(b"", from.relayed_addr(), soon()).unwrap();
            let shortly = Instant::now() + Duration::from_millis(200);
            let heard = to.recv_from(&mut buffer, shortly);
            heard.is_ok_and(|(length, seen)| buffer[..length] == *payload && seen == from.relayed_addr())
        })
    };
    for length in [1, 2, 3, 4, 1_200] {
        let payload = vec![u8::try_from(length % 251).unwrap(); length];
        assert!(carries(&a, &b, &payload) && carries(&b, &a, &payload), "{length} bytes");
    }
    assert_eq!(host.stats().allocations, 2);
}

#[test]
fn nobody_is_served_without_credentials_that_hold() {
    let host = host(open());
    for credentials in [
        credentials(0, "someone"),
        TurnCredentials::new(credentials(60, "someone").username(), "guessed"),
        TurnCredentials::new("", ""),
    ] {
        for over in ["", "?transport=tcp"] {
            let failed = RelayedUdpSocket::allocate(&context(), &server(&host, over, &credentials), soon());
            let error = failed.unwrap_err();
            let by_server = matches!(error, RelayError::Server { source: TurnFailure::WrongCredentials, .. });
            assert!(by_server, "{error}: {:?}", error.source());
        }
    }
    assert_eq!(host.stats().allocations, 0);
}

#[test]
fn by_default_nothing_of_this_host_or_its_network_is_reached() {
    let host = host(strict());
    let context = context();
    let server = server(&host, "", &credentials(3_600, "someone"));
    let relayed = RelayedUdpSocket::allocate(&context, &server, soon()).unwrap();
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    service.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while host.stats().refused_targets == 0 && Instant::now() < deadline {
        let _ = relayed.send_to(b"hello", service.local_addr().unwrap(), soon());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(host.stats().refused_targets > 0);
    assert!(service.recv_from(&mut [0; 10]).is_err(), "the service has heard nothing");
}

#[test]
fn its_drop_ends_all_of_it() {
    let relay = host(open());
    let context = context();
    let server = server(&relay, "?transport=tcp", &credentials(3_600, "someone"));
    let relayed = RelayedUdpSocket::allocate(&context, &server, soon()).unwrap();
    let addr = relay.addr();
    drop(relay);
    assert!(relayed.recv_from(&mut [0; 10], soon()).is_err(), "the connection is over");
    // And its port is free again.
    RelayHost::bind(addr, secret(), open()).unwrap();
}
