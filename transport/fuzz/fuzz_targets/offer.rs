//! Any bytes to the code that reads them from a peer, by way of a stranger.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| transport::fuzzing::offer(bytes));
