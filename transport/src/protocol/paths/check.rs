//! The messages of a path check; `docs/wire.md` draws them.
//!
//! STUN Binding requests and answers (RFC 8489) with USERNAME, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT. Name and keys come
//! from the TLS exporter (RFC 5705), a key for each direction, so that what is thrown back at its sender proves nothing.

use std::{fmt, net::SocketAddr};

use nat_traversal::protocol::stun::{Class, Message, MessageBuilder, Method, TransactionId, attribute};
use ring::hmac;

/// Names a connection in the clear, so that its checks are found among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CheckTag(pub(crate) [u8; TAG_BYTES]);

/// What proves a check to be the peer's.
#[derive(Clone)]
pub(crate) struct CheckKeys {
    tag: CheckTag,
    /// Made into keys when a check needs one: those are several times as large, and most connections never check anything.
    ours: [u8; KEY_BYTES],
    theirs: [u8; KEY_BYTES],
}

/// What an authentic message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    Request,
    Answer {
        /// The dialer's datagrams take the way by which the request came.
        is_used: bool,
    },
}

impl CheckKeys {
    /// The exporter's label; no context.
    pub(crate) const LABEL: &'static [u8] = b"EXPORTER-crust-path-check-1";
    /// What to export: the tag, the dialer's key, the acceptor's key.
    pub(crate) const BYTES: usize = TAG_BYTES + 2 * KEY_BYTES;

    pub(crate) fn new(exported: &[u8; Self::BYTES], is_dialer: bool) -> Self {
        let (tag, keys) = exported.split_at(TAG_BYTES);
        let (dialer, acceptor) = keys.split_at(KEY_BYTES);
        let (ours, theirs) = if is_dialer { (dialer, acceptor) } else { (acceptor, dialer) };
        let part = "a part of the array";
        Self {
            tag: CheckTag(tag.try_into().expect(part)),
            ours: ours.try_into().expect(part),
            theirs: theirs.try_into().expect(part),
        }
    }

    pub(crate) fn tag(&self) -> CheckTag {
        self.tag
    }

    pub(super) fn request(&self, id: TransactionId) -> Vec<u8> {
        MessageBuilder::new(Class::Request, Method::BINDING, id)
            .attribute(attribute::USERNAME, &self.tag.0)
            .integrity(&key(&self.ours))
            .fingerprint()
    }

    /// `is_used`: whether our own datagrams take the way by which the request came; a dialer says so.
    pub(super) fn answer(&self, id: TransactionId, source: SocketAddr, is_used: bool) -> Vec<u8> {
        let mut answer = MessageBuilder::new(Class::Success, Method::BINDING, id)
            .attribute(attribute::USERNAME, &self.tag.0)
            .mapped_address(source);
        if is_used {
            answer = answer.attribute(attribute::USE_CANDIDATE, &[]);
        }
        answer.integrity(&key(&self.ours)).fingerprint()
    }

    /// Reads a message; `None` if it is not the peer's.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<(TransactionId, Checked)> {
        let message = Message::decode(bytes).ok()?;
        let checked = match message.class() {
            Class::Request => Checked::Request,
            Class::Success => Checked::Answer { is_used: message.find(attribute::USE_CANDIDATE).is_some() },
            Class::Indication | Class::Error => return None,
        };
        let ours = message.method() == Method::BINDING
            && message.find(attribute::USERNAME).is_some_and(|found| found.value == self.tag.0)
            && message.has_integrity(&key(&self.theirs));
        ours.then(|| (message.transaction(), checked))
    }
}

impl fmt::Debug for CheckKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CheckKeys").field("tag", &self.tag).finish_non_exhaustive()
    }
}

fn key(bytes: &[u8; KEY_BYTES]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

/// Whose check it says it is. Nothing is believed.
pub(crate) fn peek_tag(bytes: &[u8]) -> Option<CheckTag> {
    let message = Message::decode(bytes).ok()?;
    message.find(attribute::USERNAME)?.value.try_into().ok().map(CheckTag)
}

const TAG_BYTES: usize = 8;
/// As the output of SHA-256 (RFC 2104 §3).
const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (CheckKeys, CheckKeys) {
        let mut exported = [1; CheckKeys::BYTES];
        exported[8..40].fill(2);
        exported[40..].fill(3);
        (CheckKeys::new(&exported, true), CheckKeys::new(&exported, false))
    }

    /// `docs/wire.md` has these bytes.
    const GOLDEN: &str = "000100382112a442070707070707070707070707000600080101010101010101001c002020344cb91290b0dcd205ae2b\
                          b554a35172752b14ef9c082a052a1d663229ef898028000457097be5";

    #[test]
    fn the_golden_bytes_read_and_write() {
        let (dialer, acceptor) = keys();
        let request = dialer.request(TransactionId([7; 12]));
        assert_eq!(data_encoding::HEXLOWER.encode(&request), GOLDEN);
        assert_eq!(acceptor.decode(&request), Some((TransactionId([7; 12]), Checked::Request)));
        assert_eq!(peek_tag(&request), Some(CheckTag([1; 8])));
    }

    #[test]
    fn only_the_peer_is_believed() {
        let (dialer, acceptor) = keys();
        let id = TransactionId([7; 12]);
        let source = "198.51.100.2:4000".parse().unwrap();
        for bytes in [dialer.request(id), dialer.answer(id, source, false), dialer.answer(id, source, true)] {
            assert!(acceptor.decode(&bytes).is_some());
            assert_eq!(dialer.decode(&bytes), None, "thrown back at us");
            // Behind the integrity stands the fingerprint, which may be left out.
            for index in 0..bytes.len() - 8 {
                let mut forged = bytes.clone();
                forged[index] ^= 1;
                assert_eq!(acceptor.decode(&forged), None, "byte {index}");
            }
        }
    }

    #[test]
    fn an_answer_says_whether_its_sender_uses_the_way() {
        let (dialer, acceptor) = keys();
        let (id, source) = (TransactionId([7; 12]), "198.51.100.2:4000".parse().unwrap());
        for is_used in [false, true] {
            let answer = dialer.answer(id, source, is_used);
            assert_eq!(acceptor.decode(&answer), Some((id, Checked::Answer { is_used })));
        }
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", keys().0), "CheckKeys { tag: CheckTag([1, 1, 1, 1, 1, 1, 1, 1]), .. }");
    }
}
