//! Any text as a contact, and any bytes under a right checksum, which random text never has.
#![no_main]

use crust::Contact;
use libfuzzer_sys::fuzz_target;
use ring::digest::{SHA256, digest};

fuzz_target!(|input: &[u8]| {
    let Some((&mode, input)) = input.split_first() else { return };
    if mode % 4 == 0 {
        let Ok(text) = std::str::from_utf8(input) else { return };
        check(text);
        return;
    }
    // Version 1 and some key, so that the records are what is tried.
    let mut bytes = if mode % 4 == 1 { input.to_vec() } else { [&[1], &[3; 32][..], input].concat() };
    let checksum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(&checksum.as_ref()[..4]);
    check(&format!("crust1{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase()));
});

fn check(text: &str) {
    if let Ok(contact) = text.parse::<Contact>() {
        let printed = contact.to_string();
        assert!(printed.len() <= Contact::MAX_TEXT_BYTES);
        assert_eq!(printed.parse(), Ok(contact));
    }
}
