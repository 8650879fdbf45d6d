//! Any text as an endpoint, a place to listen, a key or a token; what can be read prints as what reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transport::{AccessToken, Endpoint, ListenEndpoint, NamedEndpoint, PublicKey};

fuzz_target!(|text: &str| {
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }
    if let Ok(endpoint) = text.parse::<NamedEndpoint>() {
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }
    if let Ok(endpoint) = text.parse::<ListenEndpoint>() {
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    let _ = text.parse::<AccessToken>();
});
