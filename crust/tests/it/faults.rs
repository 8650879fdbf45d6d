//! Introducers and relays that lie, disagree or do not want.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use crust::{
    Config, ConnectOptions, Contact, Endpoint, Identity, Lan, NamedEndpoint, ProtocolLabel, Road, Scheme,
    Service, ServiceEvent,
};
use transport::{Admission, Listener, Transport, TransportConfig};

use crate::support::listening;

fn introducer() -> (Service, NamedEndpoint) {
    let service = Service::new_from_config(listening(Scheme::Quic).lan(Lan::Off).introduce(true)).unwrap();
    let endpoint = service.controller.endpoints().unwrap()[0].into();
    (service, endpoint)
}

fn attached(introducer: &NamedEndpoint) -> Service {
    let config = listening(Scheme::Quic).lan(Lan::Off).introducers([introducer.clone()]);
    let service = Service::new_from_config(config).unwrap();
    assert!(service.controller.wait_attached(soon()));
    service
}

fn asking(introducers: &[&NamedEndpoint]) -> Service {
    let config = Config::new().lan(Lan::Off).listen([]).attach(false);
    Service::new_from_config(config.introducers(introducers.iter().copied().cloned())).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[test]
fn when_two_introducers_disagree_the_one_that_knows_the_peer_is_enough() {
    let ((_one, knows), (_other, does_not)) = (introducer(), introducer());
    let server = attached(&knows);
    for introducers in [[&knows, &does_not], [&does_not, &knows]] {
        let stream = asking(&introducers).controller.connect(server.controller.public_key()).unwrap();
        assert_eq!(stream.public_key(), server.controller.public_key());
    }
    let error = asking(&[&does_not]).controller.connect(server.controller.public_key()).unwrap_err();
    assert!(error.trace().to_string().contains("not attached"), "{}", error.trace());
}

/// Answers every knock in the peer's name, as well as somebody can who is not the peer.
fn liar() -> (Transport, NamedEndpoint) {
    let transport = Transport::new(Identity::generate(), TransportConfig::default()).unwrap();
    let label = ProtocolLabel::new("crust-introduce/1").unwrap();
    transport.set_admission(Admission::default().protocols([label]));
    let listener = Listener::bind(&transport, "quic://127.0.0.1:0").unwrap();
    let endpoint: Endpoint = listener.endpoints().unwrap().next().unwrap();
    thread::spawn(move || {
        // Until the transport is gone.
        while let Ok(mut stream) = listener.accept() {
            let mut head = [0; 7];
            if stream.read_exact(&mut head).is_err() {
                continue;
            }
            // A note of the same call: an answer of version 1 with a key, a signature and something sealed.
            let mut body = head[3..].to_vec();
            body.push(1);
            body.extend([0x5a; 32 + 64 + 300]);
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            let _ = stream.write_all(&[&[4], &length[..], &body].concat());
            let _ = stream.flush();
            let _ = stream.read(&mut [0; 512]);
        }
    });
    (transport, endpoint.into())
}

#[test]
fn an_introducer_that_answers_in_the_peers_name_is_not_believed() {
    let (_liar, lies) = liar();
    let (_middle, honest) = introducer();
    let server = attached(&honest);
    let key = server.controller.public_key();
    let error = asking(&[&lies]).controller.connect(key).unwrap_err();
    assert!(error.trace().to_string().contains("the answer is not the peer's"), "{}", error.trace());
    let stream = asking(&[&lies, &honest]).controller.connect(key).unwrap();
    assert_eq!(stream.public_key(), key, "and it keeps nobody from a better one");
}

#[test]
fn a_contact_that_leads_to_somebody_else_gives_no_stream() {
    let server = Service::new_from_config(listening(Scheme::Tcp).lan(Lan::Off)).unwrap();
    let addr = server.controller.endpoints().unwrap()[0].addr();
    let nobody = Identity::generate().public_key();
    let contact = Contact::new(nobody).endpoint(Endpoint::new(Scheme::Tcp, addr, nobody)).unwrap();
    let error = asking(&[]).controller.connect(contact).unwrap_err();
    assert_eq!((error.attempts().len(), error.refusal()), (1, None), "{}", error.trace());
    assert!(server.acceptor.receiver().is_empty());
}

#[cfg(feature = "turn")]
#[test]
fn a_relay_that_does_not_accept_us_is_told_and_stands_in_nobodys_way() {
    use nat_traversal::{
        RelayHost,
        protocol::turn::{RelayRules, RelaySecret},
    };

    let rules = RelayRules::new([127, 0, 0, 1].into());
    let full =
        RelayHost::bind("127.0.0.1:0".parse().unwrap(), RelaySecret::new([1; 32]), rules.allocations(0));
    let full = full.unwrap();
    let until = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let good = RelaySecret::new([1; 32]).credentials(until.as_secs() + 3_600, "someone");
    let server = |user: &str, password: &str| {
        let server: crust::TurnServer = format!("turn:{}", full.addr()).parse().unwrap();
        server.with_credentials(user, password)
    };
    let (_middle, place) = introducer();
    let peer = attached(&place);
    for (relay, reason) in [
        (server(good.username(), "guessed"), "does not accept the user name and password"),
        (server(good.username(), good.password()), "486"),
    ] {
        let config = || {
            let config = Config::new().lan(Lan::Off).listen([]).attach(false).introducers([place.clone()]);
            config.relays([relay.clone()])
        };
        // Everybody else is met as ever.
        let client = Service::new_from_config(config()).unwrap();
        client.controller.connect(peer.controller.public_key()).unwrap();
        // Who may use nothing but the relay learns why it cannot.
        let client = Service::new_from_config(config().roads([Road::Relayed])).unwrap();
        let options = ConnectOptions::new().deadline(Duration::from_secs(3));
        client.controller.connect_with(peer.controller.public_key(), &options).unwrap_err();
        let event = client.controller.events().recv_deadline(soon()).unwrap();
        let ServiceEvent::RelayUnusable { reason: told, .. } = event else { panic!("{event:?}") };
        assert!(told.contains(reason), "{told}");
    }
}
