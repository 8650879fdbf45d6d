//! Any bytes as what a service puts into its beacon; what can be read can be written, and reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    crust::fuzz_announcement(input);
    // Version 1 and some key, so that the records are what is tried.
    crust::fuzz_announcement(&[&[1], &[3; 32][..], input].concat());
});
