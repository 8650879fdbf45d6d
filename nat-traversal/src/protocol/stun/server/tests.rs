use super::*;
use crate::protocol::stun::TransactionId;
use crate::protocol::stun::client::{binding_request, request_to_port};

const CLIENT: &str = "198.51.100.2:4000";

#[test]
fn a_server_with_two_addresses_answers_from_the_one_that_is_asked_for() {
    for (flags, from) in [(0, 0), (2, 1), (4, 2), (6, 3)] {
        let mut server = four();
        let answer = ask(&mut server, 0, &binding_request(TransactionId([1; 12]), Some(flags))).unwrap();
        assert_eq!(answer.socket, SocketIndex(from), "flags {flags}");
        let message = Message::decode(&answer.bytes).unwrap();
        assert_eq!(message.mapped_address().unwrap().to_string(), CLIENT);
        assert_eq!(message.other_address().unwrap().to_string(), "203.0.113.11:3479");
    }
}

#[test]
fn a_server_with_one_address_refuses_to_answer_from_another() {
    let mut server = StunServer::new(ServerAddresses::One);
    let answer = ask(&mut server, 0, &binding_request(TransactionId([1; 12]), Some(6))).unwrap();
    assert_eq!(Message::decode(&answer.bytes).unwrap().error_code(), Some(420));
}

#[test]
fn what_must_be_understood_and_is_not_is_refused_by_name() {
    let request = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId([1; 12]))
        .attribute(0x7FFF, b"new")
        .finish();
    let mut server = StunServer::new(ServerAddresses::One);
    let answer = ask(&mut server, 0, &request).unwrap();
    let message = Message::decode(&answer.bytes).unwrap();
    assert_eq!(message.error_code(), Some(420));
    assert_eq!(message.find(attribute::UNKNOWN_ATTRIBUTES).unwrap().value, [0x7F, 0xFF]);
}

#[test]
fn no_answer_is_longer_than_three_times_its_request_and_none_than_ours() {
    let v6: SocketAddr = "[2001:db8::1]:4000".parse().unwrap();
    let four_v6 = ServerAddresses::Four(
        ["[2001:db8::2]:1", "[2001:db8::2]:2", "[2001:db8::3]:1", "[2001:db8::3]:2"]
            .map(|a| a.parse().unwrap()),
    );
    let bare = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId([1; 12])).finish();
    let odd = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId([1; 12]))
        .attribute(0x7001, &[])
        .attribute(0x7002, &[])
        .finish();
    let ours = binding_request(TransactionId([1; 12]), Some(6));
    for (request, factor) in [(&bare, 3), (&odd, 3), (&ours, 1)] {
        for addresses in [ServerAddresses::One, four_addresses(), four_v6] {
            for source in [CLIENT.parse().unwrap(), v6] {
                let mut server = StunServer::new(addresses);
                let datagram = Datagram { socket: SocketIndex::MAIN, source, bytes: request };
                server.handle_datagram(crate::testing::epoch(), datagram);
                let answer = server.poll_transmit().unwrap().bytes;
                assert!(answer.len() <= request.len() * factor, "{} for {}", answer.len(), request.len());
            }
        }
    }
}

#[test]
fn one_address_gets_twenty_answers_a_second_whatever_its_port() {
    let now = crate::testing::epoch();
    let mut server = StunServer::new(ServerAddresses::One);
    let request = binding_request(TransactionId([1; 12]), None);
    let mut answers = |now, address: &str| {
        let count = |port: u16| {
            let source = SocketAddr::new(address.parse().unwrap(), port);
            server.handle_datagram(now, Datagram { socket: SocketIndex::MAIN, source, bytes: &request });
            server.poll_transmit().is_some()
        };
        (1..=100).map(count).filter(|answered| *answered).count()
    };
    assert_eq!(answers(now, "198.51.100.2"), 20);
    assert_eq!(answers(now, "198.51.100.3"), 20, "others have their own share");
    assert_eq!(answers(now + Duration::from_millis(999), "198.51.100.2"), 0);
    assert_eq!(answers(now + Duration::from_secs(1), "198.51.100.2"), 20);
}

#[test]
fn the_count_of_answers_stays_bounded_under_spoofed_sources() {
    let now = crate::testing::epoch();
    let mut server = StunServer::new(ServerAddresses::One);
    let request = binding_request(TransactionId([1; 12]), None);
    for number in 0..10_000_u32 {
        let source = SocketAddr::new(IpAddr::from((0x0A00_0000 + number).to_be_bytes()), 4000);
        server.handle_datagram(now, Datagram { socket: SocketIndex::MAIN, source, bytes: &request });
        server.poll_transmit();
        assert!(server.answered.len() <= StunServer::MAX_COUNTED);
    }
}

#[test]
fn answers_and_other_methods_are_not_answered() {
    let mut server = StunServer::new(ServerAddresses::One);
    for (class, method) in
        [(Class::Success, Method::BINDING), (Class::Error, Method::BINDING), (Class::Request, Method(3))]
    {
        let bytes = MessageBuilder::new(class, method, TransactionId([1; 12])).finish();
        assert_eq!(ask(&mut server, 0, &bytes), None);
    }
}

#[test]
fn an_answer_goes_to_another_port_of_the_same_address_if_asked_for_and_counts_as_any() {
    for mut server in [StunServer::new(ServerAddresses::One), four()] {
        let request = request_to_port(TransactionId([1; 12]), 4_001);
        let answer = ask(&mut server, 0, &request).unwrap();
        let client: SocketAddr = CLIENT.parse().unwrap();
        assert_eq!(answer.destination, SocketAddr::new(client.ip(), 4_001));
        let told = Message::decode(&answer.bytes).unwrap();
        assert_eq!((told.class(), told.mapped_address()), (Class::Success, Some(client)));
        assert_eq!(ask(&mut server, 0, &request_to_port(TransactionId([2; 12]), 0)), None, "no such port");
        let more = (0..100).filter(|_| ask(&mut server, 0, &request).is_some()).count();
        assert_eq!(more, 19, "no address is flooded");
        let within_a_connection = StunServer::answer_stream(&request, client).unwrap();
        assert_eq!(Message::decode(&within_a_connection).unwrap().class(), Class::Error);
    }
}

fn ask(server: &mut StunServer, socket: u16, bytes: &[u8]) -> Option<Transmit> {
    let datagram = Datagram { socket: SocketIndex(socket), source: CLIENT.parse().unwrap(), bytes };
    server.handle_datagram(crate::testing::epoch(), datagram);
    server.poll_transmit()
}

fn four() -> StunServer {
    StunServer::new(four_addresses())
}

fn four_addresses() -> ServerAddresses {
    let addresses = ["203.0.113.10:3478", "203.0.113.10:3479", "203.0.113.11:3478", "203.0.113.11:3479"];
    ServerAddresses::Four(addresses.map(|address| address.parse().unwrap()))
}
