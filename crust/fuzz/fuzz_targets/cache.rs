//! Any bytes as the endpoint cache and as the network memory.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    crust::fuzzing::cache(input);
});
