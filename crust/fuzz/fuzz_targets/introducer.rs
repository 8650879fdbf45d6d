//! What clients send to an introducer: bytes as frames, and frames in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    crust::fuzzing::frames(input);
    crust::fuzzing::switchboard(input);
});
