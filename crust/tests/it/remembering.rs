use std::time::{Duration, Instant};

use crust::{Config, ConnectOptions, Endpoint, Identity, Lan, Scheme, Service, ServiceEvent};

use crate::support::{SCHEMES, listening, service};

fn client(file: &std::path::Path) -> Service {
    Service::new_from_config(Config::new().lan(Lan::Off).listen([]).cache(file)).unwrap()
}

#[test]
fn where_a_peer_was_reached_is_remembered_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crust/endpoints");
    for scheme in SCHEMES {
        let server = service(scheme);
        let key = server.controller.public_key();
        client(&file).controller.connect(server.controller.contact().unwrap()).unwrap();
        // Another one, that knows the key alone.
        let client = client(&file);
        client.controller.connect(key).unwrap();
        let cached: Vec<Endpoint> =
            client.controller.iter_endpoint_cache().map(|cached| cached.endpoint()).collect();
        assert_eq!(cached[0], server.controller.endpoints().unwrap()[0]);
    }
}

#[test]
fn an_endpoint_that_fails_is_forgotten_when_it_was_asked_for_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints");
    let client = client(&file);
    let nobody = Identity::generate().public_key();
    let gone = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse().unwrap(), nobody);
    client.controller.cache_endpoint(gone);
    client.controller.iter_endpoint_cache().next().unwrap().connect().unwrap_err();
    assert_eq!(client.controller.iter_endpoint_cache().count(), 0);
    client.controller.cache_endpoint(gone);
    client.controller.iter_endpoint_cache().next().unwrap().remove();
    assert_eq!(self::client(&file).controller.iter_endpoint_cache().count(), 0, "on disk as well");
}

#[test]
fn many_dials_that_fail_leave_nothing_behind() {
    let client = Service::new_from_config(Config::new().lan(Lan::Off).listen([])).unwrap();
    let nobody = Identity::generate().public_key();
    let closed = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse().unwrap(), nobody);
    let options = ConnectOptions::new().deadline(Duration::from_secs(5));
    for _ in 0..1_000 {
        client.controller.connect_with(closed, &options).unwrap_err();
    }
    assert_eq!(client.controller.iter_endpoint_cache().count(), 0);
    assert_eq!(client.controller.stats().streams_open, 0);
}

#[test]
fn a_cache_that_cannot_be_used_is_told_and_stands_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints");
    std::fs::write(&file, b"crustend\x09of a later version").unwrap();
    let server = Service::new_from_config(listening(Scheme::Tcp)).unwrap();
    let client = client(&file);
    let contact = server.controller.contact().unwrap();
    client.controller.connect(contact).unwrap();
    let soon = Instant::now() + Duration::from_secs(20);
    let event = client.controller.events().recv_deadline(soon).unwrap();
    assert!(matches!(event, ServiceEvent::CacheUnusable { reason } if reason.contains("version 9")));
    assert_eq!(client.controller.iter_endpoint_cache().count(), 1, "it is kept in memory");
    assert!(std::fs::read(&file).unwrap().starts_with(b"crustend\x09"), "and the file is left alone");
}
