//! Any text to the reader of TURN URIs; what it takes is written and read again alike, and never shows the password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nat_traversal::TurnServer;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(server) = text.parse::<TurnServer>() else { return };
    let written = server.to_string();
    let again: TurnServer = written.parse().unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(again.to_string(), written);
    assert_eq!(
        (again.host(), again.port(), again.transport()),
        (server.host(), server.port(), server.transport())
    );
    assert_eq!((again.ca(), again.pin()), (server.ca(), server.pin()));
    assert_eq!(again.credentials().username(), "");
});
