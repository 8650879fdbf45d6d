//! Any bytes as what a router says, or is asked, by PCP and NAT-PMP; what can be read is written and reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nat_traversal::protocol::port_map::{PortProtocol, nat_pmp, pcp};

fuzz_target!(|bytes: &[u8]| {
    if let Some(response) = pcp::Response::decode(bytes) {
        assert_eq!(pcp::Response::decode(&response.encode()), Some(response));
        let _ = response.result.reason();
    }
    if let Some(request) = pcp::MapRequest::decode(bytes) {
        assert_eq!(pcp::MapRequest::decode(&request.encode()), Some(request));
    }
    let _ = pcp::is_announce_request(bytes);
    if let Some(request) = nat_pmp::Request::decode(bytes) {
        assert_eq!(nat_pmp::Request::decode(&request.encode()), Some(request));
    }
    if let Some(response) = nat_pmp::Response::decode(bytes) {
        let request = match response.answer {
            Some(nat_pmp::Answer::Map { protocol, internal_port, external_port, lifetime_s }) => {
                let suggested_port = external_port;
                nat_pmp::Request::Map { protocol, internal_port, suggested_port, lifetime_s }
            }
            Some(nat_pmp::Answer::Address(_)) => nat_pmp::Request::Address,
            None => nat_pmp::Request::Map {
                protocol: PortProtocol::Udp,
                internal_port: 1,
                suggested_port: 1,
                lifetime_s: 1,
            },
        };
        assert_eq!(nat_pmp::Response::decode(&response.encode(request)), Some(response));
        let _ = response.result.reason();
    }
});
