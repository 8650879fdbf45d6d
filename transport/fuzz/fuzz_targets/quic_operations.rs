//! Any bytes to the code that reads them from the wire.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| transport::fuzzing::quic_operations(bytes));
