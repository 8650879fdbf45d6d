//! Any bytes to the decoder.
#![no_main]

use beacon::protocol::Packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::decode(bytes) else { return };
    let encoded = packet.encode().expect("what was decoded is within the limits");
    let again = Packet::decode(&encoded).expect("our own");
    // What others send after our size of a question is read, but not sent by us.
    assert!(packet.known.starts_with(again.known));
    assert_eq!(Packet { known: &[], ..again }, Packet { known: &[], ..packet });
});
