//! Any bytes as a STUN message: every reader of it, and a server, which never answers with more than three times the bytes.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use nat_traversal::protocol::stun::{Message, ServerAddresses, attribute};
use nat_traversal::protocol::{Datagram, Machine as _, SocketIndex, StunServer};

fuzz_target!(|bytes: &[u8]| {
    let _ = Message::length_in_stream(bytes);
    if let Ok(message) = Message::decode(bytes) {
        let length: usize = message.attributes().map(|attribute| attribute.value.len()).sum();
        assert!(length <= bytes.len());
        let _ = (message.method(), message.class(), message.transaction(), message.error_code());
        let _ = (message.mapped_address(), message.other_address(), message.find(attribute::SOFTWARE));
    }
    let source: SocketAddr = "198.51.100.2:4000".parse().expect("an address");
    let four = ["10:3478", "10:3479", "11:3478", "11:3479"]
        .map(|end| format!("203.0.113.{end}").parse().expect("an address"));
    for addresses in [ServerAddresses::One, ServerAddresses::Four(four)] {
        let mut server = StunServer::new(addresses);
        let socket = SocketIndex::MAIN;
        server.handle_datagram(nat_traversal::testing::epoch(), Datagram { socket, source, bytes });
        while let Some(answer) = server.poll_transmit() {
            assert!(answer.bytes.len() <= bytes.len() * StunServer::MAX_FACTOR);
        }
    }
    let _ = StunServer::answer_stream(bytes, source);
});
