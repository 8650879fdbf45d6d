//! What a datagram on a shared UDP socket is, by its first bytes.

/// What a datagram seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// A QUIC packet; its destination connection id, if it has the length of ours.
    Quic(Option<u64>),
    /// Anything else.
    Other,
}

/// Looks at the first bytes only; nothing is believed.
pub(crate) fn classify(bytes: &[u8]) -> Datagram {
    match bytes.first() {
        // RFC 9443: the fixed bit keeps QUIC apart from STUN; we never grease it away.
        Some(first) if first & FIXED_BIT == 0 => Datagram::Other,
        Some(first) if first & LONG_HEADER == 0 => Datagram::Quic(id_at(bytes, 1)),
        // RFC 8999 §5.1: flags, version (4 bytes), length of the destination id, the id.
        Some(_) => match bytes.get(5) {
            Some(&length) if usize::from(length) == ID_BYTES => Datagram::Quic(id_at(bytes, 6)),
            Some(_) => Datagram::Quic(None),
            None => Datagram::Other,
        },
        None => Datagram::Other,
    }
}

/// Whether it may be a STUN message: 0 in the first two bits, and the magic cookie (RFC 8489 §5).
pub(crate) fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first & 0xc0 == 0) && bytes.get(4..8) == Some(&MAGIC_COOKIE[..])
}

fn id_at(bytes: &[u8], start: usize) -> Option<u64> {
    let id = bytes.get(start..start + ID_BYTES)?;
    Some(u64::from_be_bytes(id.try_into().expect("the slice has that length")))
}

/// Length of the connection ids we issue: enough that none is guessed or drawn twice.
pub(crate) const ID_BYTES: usize = 8;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const FIXED_BIT: u8 = 0x40;
const LONG_HEADER: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_headers_give_their_destination_id() {
        assert_eq!(classify(b"\x40\0\0\0\0\0\0\0\x07rest"), Datagram::Quic(Some(7)));
        assert_eq!(classify(b"\xc0\0\0\0\x01\x08\0\0\0\0\0\0\0\x09\0"), Datagram::Quic(Some(9)));
        assert_eq!(classify(b"\xc0\0\0\0\x01\x03abc\0"), Datagram::Quic(None));
    }

    #[test]
    fn stun_and_stumps_are_something_else_or_nameless() {
        assert!(is_stun(b"\0\x01\0\0\x21\x12\xa4\x42") && !is_stun(b"\x40\x01\0\0\x21\x12\xa4\x42"));
        assert!(!is_stun(b"\0\x01\0\0\x21\x12\xa4") && !is_stun(b""));
        assert_eq!(classify(b"\0\x01\0\0\x21\x12\xa4\x42"), Datagram::Other);
        assert_eq!(classify(b""), Datagram::Other);
        assert_eq!(classify(b"\xc0\0\0"), Datagram::Other);
        assert_eq!(classify(b"\x40\0\0"), Datagram::Quic(None));
    }
}
