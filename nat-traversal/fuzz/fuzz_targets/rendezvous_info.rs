//! Any bytes, and any text, as what a peer tells of itself; what can be read is written and reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nat_traversal::PubRendezvousInfo;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(info) = PubRendezvousInfo::from_bytes(bytes) {
        assert_eq!(PubRendezvousInfo::from_bytes(&info.to_bytes()), Ok(info.clone()));
        assert_eq!(info.to_string().parse(), Ok(info));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(info) = text.parse::<PubRendezvousInfo>()
    {
        assert_eq!(info.to_string().parse(), Ok(info));
    }
});
