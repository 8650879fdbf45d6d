//! Any bytes as a knock, as what is signed in one, and as what is sealed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    crust::fuzzing::introduction(input);
});
