//! The packets of a punch: STUN Binding messages, so that they fit beside other protocols on a socket, with an
//! integrity that only the peer can make.

use std::net::SocketAddr;

use super::PunchKeys;
use crate::protocol::stun::{Class, Message, MessageBuilder, Method, TransactionId, attribute};

/// What an authentic packet of the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// "Do you hear me?", and if so, "let us use this pair of addresses".
    Request { nominates: bool },
    /// "I hear you."
    Answer,
}

/// Reads a packet; `None` if it is not the peer's.
pub(super) fn decode(keys: &PunchKeys, bytes: &[u8]) -> Option<(TransactionId, Check)> {
    let message = Message::decode(bytes).ok()?;
    let ours = message.method() == Method::BINDING
        && message.find(attribute::USERNAME).is_some_and(|found| found.value == keys.tag)
        && message.has_integrity(&keys.theirs);
    let check = match message.class() {
        Class::Request => Check::Request { nominates: message.find(attribute::USE_CANDIDATE).is_some() },
        Class::Success => Check::Answer,
        Class::Indication | Class::Error => return None,
    };
    ours.then_some((message.transaction(), check))
}

/// Asks whether the peer hears us.
pub(super) fn request(keys: &PunchKeys, transaction: TransactionId, nominates: bool) -> Vec<u8> {
    let mut builder = MessageBuilder::new(Class::Request, Method::BINDING, transaction)
        .attribute(attribute::USERNAME, &keys.tag);
    if nominates {
        builder = builder.attribute(attribute::USE_CANDIDATE, &[]);
    }
    builder.integrity(&keys.ours).fingerprint()
}

/// Tells the peer that we hear it.
pub(super) fn answer(keys: &PunchKeys, transaction: TransactionId, source: SocketAddr) -> Vec<u8> {
    MessageBuilder::new(Class::Success, Method::BINDING, transaction)
        .attribute(attribute::USERNAME, &keys.tag)
        .mapped_address(source)
        .integrity(&keys.ours)
        .fingerprint()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_peer_is_believed() {
        let (a, b) =
            (PunchKeys::derive(b"s", b"a", b"b").unwrap(), PunchKeys::derive(b"s", b"b", b"a").unwrap());
        let transaction = TransactionId([7; 12]);
        for nominates in [false, true] {
            let bytes = request(&a, transaction, nominates);
            assert_eq!(decode(&b, &bytes), Some((transaction, Check::Request { nominates })));
            assert_eq!(decode(&a, &bytes), None, "thrown back at us");
            assert!(bytes.len() <= 240, "five of them stay below 1,200 bytes");
            // The last eight bytes are the fingerprint, which may be left out.
            for index in 0..bytes.len() - 8 {
                let mut forged = bytes.clone();
                forged[index] ^= 1;
                assert_eq!(decode(&b, &forged), None, "byte {index}");
            }
        }
        let mut extended = request(&a, transaction, false);
        extended.truncate(extended.len() - 8);
        extended.extend([0, 0x25, 0, 0]);
        let length = u16::try_from(extended.len() - 20).unwrap();
        extended[2..4].copy_from_slice(&length.to_be_bytes());
        let nominates = false;
        assert_eq!(
            decode(&b, &extended),
            Some((transaction, Check::Request { nominates })),
            "USE-CANDIDATE added"
        );
        let bytes = answer(&a, transaction, "198.51.100.2:4000".parse().unwrap());
        assert_eq!(decode(&b, &bytes), Some((transaction, Check::Answer)));
        let stranger = PunchKeys::derive(b"other", b"a", b"b").unwrap();
        assert_eq!(decode(&b, &request(&stranger, transaction, true)), None);
    }
}
