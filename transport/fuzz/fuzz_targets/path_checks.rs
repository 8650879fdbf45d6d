//! Any datagrams to the table that decides where a connection sends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| transport::fuzzing::path_checks(bytes));
