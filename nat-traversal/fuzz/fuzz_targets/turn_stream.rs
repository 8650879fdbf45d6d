//! Any bytes to what finds the ends of messages in a stream from a TURN server, and to the client behind it.
#![no_main]

use std::net::SocketAddr;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use nat_traversal::protocol::turn::{
    AddressFamily, TurnClient, TurnCredentials, TurnLink, TurnReceived, frame_length,
};
use nat_traversal::protocol::{Datagram, Seed, SocketIndex};

fuzz_target!(|input: &[u8]| {
    let (now, server) = (Instant::now(), SocketAddr::from(([203, 0, 113, 20], 3_478)));
    let credentials = TurnCredentials::new("user", "secret");
    let mut client =
        TurnClient::new(now, server, TurnLink::Stream, AddressFamily::V4, credentials, Seed::from(1));
    let mut rest = input;
    while let Ok(Some(length)) = frame_length(rest) {
        assert!((4..=65_556).contains(&length), "{length}");
        let Some((frame, later)) = rest.split_at_checked(length) else { return };
        let received =
            client.receive(now, Datagram { socket: SocketIndex::MAIN, source: server, bytes: frame });
        assert!(!matches!(received, TurnReceived::Data { .. }), "nobody has a permission");
        rest = later;
    }
});
