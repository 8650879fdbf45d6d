//! The message, [RFC 8489, section 5](https://www.rfc-editor.org/rfc/rfc8489#section-5):
//!
//! ```text
//! | 0 (2) | type: method and class (14) | length of the attributes (16) |
//! | magic cookie 0x2112A442 (32)                                       |
//! | transaction (96)                                                   |
//! | attributes: type (16) | length (16) | value, padded to 32 bits     | ...
//! ```

use std::net::SocketAddr;

use ring::hmac;
use thiserror::Error;

use super::address;
use crate::protocol::Random;

/// A checked view of the bytes of a STUN message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

/// Why bytes are no STUN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The header says something else: another protocol on the same socket.
    #[error("not a STUN message")]
    NotStun,
    /// The lengths in it contradict each other.
    #[error("lengths do not fit")]
    BadLength,
    /// The checksum at its end is wrong.
    #[error("wrong fingerprint")]
    BadFingerprint,
}

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method(pub u16);

impl Method {
    /// "Which address do you see?"
    pub const BINDING: Self = Self(1);
    /// "Relay for me" ([RFC 8656](https://www.rfc-editor.org/rfc/rfc8656), as all that follow).
    pub const ALLOCATE: Self = Self(3);
    /// "Go on relaying", or "stop".
    pub const REFRESH: Self = Self(4);
    /// Data for a peer.
    pub const SEND: Self = Self(6);
    /// Data of a peer.
    pub const DATA: Self = Self(7);
    /// "Let this peer send to me."
    pub const CREATE_PERMISSION: Self = Self(8);
    /// "Call this peer by a number from now on."
    pub const CHANNEL_BIND: Self = Self(9);
}

/// Whether a message asks or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// The answer to a request that worked.
    Success,
    /// The answer to one that did not.
    Error,
}

/// Ties an answer to its request. Who cannot read the request cannot guess it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    /// Draws a fresh one.
    pub fn draw(random: &mut Random) -> Self {
        Self(random.bytes())
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type; see [`attribute`].
    pub kind: u16,
    /// Its value without the padding.
    pub value: &'a [u8],
    /// Where it begins in the message.
    offset: usize,
}

/// The types of attributes that we know, by the names in
/// [IANA's list](https://www.iana.org/assignments/stun-parameters).
#[allow(missing_docs, reason = "the names are the documentation")]
pub mod attribute {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const CHANGE_REQUEST: u16 = 0x0003;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const CHANNEL_NUMBER: u16 = 0x000C;
    pub const LIFETIME: u16 = 0x000D;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub const PASSWORD_ALGORITHM: u16 = 0x001D;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const USE_CANDIDATE: u16 = 0x0025;
    pub const PADDING: u16 = 0x0026;
    pub const RESPONSE_PORT: u16 = 0x0027;
    pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
    pub const SOFTWARE: u16 = 0x8022;
    pub const ALTERNATE_SERVER: u16 = 0x8023;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const RESPONSE_ORIGIN: u16 = 0x802B;
    pub const OTHER_ADDRESS: u16 = 0x802C;
}

impl<'a> Message<'a> {
    /// Checks bytes that came in one datagram: everything that [`attributes`](Self::attributes) relies on, and the
    /// fingerprint if there is one.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NotStun`] for what another protocol sent, the others for damaged messages.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() < HEADER_BYTES || bytes[0] & 0b1100_0000 != 0 || bytes[4..8] != COOKIE {
            return Err(DecodeError::NotStun);
        }
        if declared_length(bytes) != bytes.len() - HEADER_BYTES || !bytes.len().is_multiple_of(4) {
            return Err(DecodeError::BadLength);
        }
        let message = Self { bytes };
        let mut offset = HEADER_BYTES;
        while offset < bytes.len() {
            offset = message.attribute_at(offset).ok_or(DecodeError::BadLength)?.end();
        }
        if let Some(fingerprint) = message.find(attribute::FINGERPRINT) {
            let right = crc32(&bytes[..fingerprint.offset]) ^ FINGERPRINT_MASK;
            if fingerprint.value != right.to_be_bytes() || fingerprint.end() != bytes.len() {
                return Err(DecodeError::BadFingerprint);
            }
        }
        Ok(message)
    }

    /// The length of the message that begins with these bytes of a TCP stream, once its header is there.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NotStun`] if none begins there.
    pub fn length_in_stream(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        if bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        let length = declared_length(bytes);
        if bytes[0] & 0b1100_0000 != 0 || bytes[4..8] != COOKIE || !length.is_multiple_of(4) {
            return Err(DecodeError::NotStun);
        }
        Ok(Some(HEADER_BYTES + length))
    }

    /// What it is about.
    #[must_use]
    pub fn method(&self) -> Method {
        let kind = self.kind();
        Method((kind & 0x000F) | ((kind & 0x00E0) >> 1) | ((kind & 0x3E00) >> 2))
    }

    /// Whether it asks or answers.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.kind() & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// The transaction it belongs to.
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        TransactionId(self.bytes[8..20].try_into().expect("12 bytes of a checked header"))
    }

    /// Its attributes in order. Behind the integrity anyone could have added some, so that only a stronger integrity and
    /// the fingerprint are seen there.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let message = *self;
        let mut offset = HEADER_BYTES;
        let mut covered = true;
        let all = std::iter::from_fn(move || {
            let attribute = message.attribute_at(offset)?;
            offset = attribute.end();
            Some(attribute)
        });
        all.filter(move |found| match found.kind {
            attribute::MESSAGE_INTEGRITY | attribute::MESSAGE_INTEGRITY_SHA256 => {
                covered = false;
                true
            }
            attribute::FINGERPRINT => true,
            _ => covered,
        })
    }

    /// The first attribute of a type.
    #[must_use]
    pub fn find(&self, kind: u16) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }

    /// The address that the answerer saw. The plain form is read too, as some old servers send nothing else.
    #[must_use]
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        let hidden = self.xor_address(attribute::XOR_MAPPED_ADDRESS);
        hidden.or_else(|| self.plain_address(attribute::MAPPED_ADDRESS))
    }

    /// The address in an attribute that hides it as XOR-MAPPED-ADDRESS does.
    #[must_use]
    pub fn xor_address(&self, kind: u16) -> Option<SocketAddr> {
        address::decode(self.find(kind)?.value, Some(self.transaction()))
    }

    /// The addresses in all attributes of a type that hides them so; `None` for one that makes no sense.
    pub fn xor_addresses(&self, kind: u16) -> impl Iterator<Item = Option<SocketAddr>> + use<'a> {
        let transaction = self.transaction();
        let all = self.attributes().filter(move |found| found.kind == kind);
        all.map(move |found| address::decode(found.value, Some(transaction)))
    }

    /// The address in an attribute that has it in the clear.
    #[must_use]
    pub fn plain_address(&self, kind: u16) -> Option<SocketAddr> {
        address::decode(self.find(kind)?.value, None)
    }

    /// The server's other address and port (RFC 5780), if it has both.
    #[must_use]
    pub fn other_address(&self) -> Option<SocketAddr> {
        self.plain_address(attribute::OTHER_ADDRESS)
    }

    /// The number of an error: 420, say.
    #[must_use]
    pub fn error_code(&self) -> Option<u16> {
        let value = self.find(attribute::ERROR_CODE)?.value;
        let (class, number) = (*value.get(2)?, *value.get(3)?);
        Some(u16::from(class & 0b111) * 100 + u16::from(number))
    }

    /// Whether its sender had this key: by MESSAGE-INTEGRITY-SHA256 if it is a key of HMAC-SHA256, by
    /// MESSAGE-INTEGRITY if it is one of HMAC-SHA1. Compares in constant time.
    #[must_use]
    pub fn has_integrity(&self, key: &hmac::Key) -> bool {
        let Some(found) = self.find(integrity_kind(key)) else { return false };
        let mut covered = self.bytes[..found.offset].to_vec();
        set_length(&mut covered, found.end() - HEADER_BYTES);
        hmac::verify(key, &covered, found.value).is_ok()
    }

    fn kind(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    fn attribute_at(&self, offset: usize) -> Option<Attribute<'a>> {
        let (head, rest) = self.bytes.get(offset..)?.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        rest.get(..length.next_multiple_of(4))?;
        Some(Attribute { kind: u16::from_be_bytes([head[0], head[1]]), value: &rest[..length], offset })
    }
}

impl Attribute<'_> {
    const fn end(&self) -> usize {
        self.offset + 4 + self.value.len().next_multiple_of(4)
    }

    /// Whether who does not know the attribute must not act on the message.
    #[must_use]
    pub const fn is_required(&self) -> bool {
        self.kind < 0x8000
    }
}

/// A message being written, attribute by attribute.
#[derive(Debug, Clone)]
pub struct MessageBuilder {
    bytes: Vec<u8>,
    transaction: TransactionId,
}

impl MessageBuilder {
    /// Begins a message.
    #[must_use]
    pub fn new(class: Class, method: Method, transaction: TransactionId) -> Self {
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        let method = method.0;
        let kind = class | (method & 0x000F) | ((method & 0x0070) << 1) | ((method & 0x0F80) << 2);
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(transaction.0);
        Self { bytes, transaction }
    }

    /// Adds an attribute.
    ///
    /// # Panics
    ///
    /// If the message grows beyond what its header can say, 65,535 bytes.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).expect("attributes are short");
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let attributes = self.bytes.len() - HEADER_BYTES;
        set_length(&mut self.bytes, attributes);
        self
    }

    /// Adds an address in the clear.
    #[must_use]
    pub fn address(self, kind: u16, address: SocketAddr) -> Self {
        self.attribute(kind, &address::encode(address, None))
    }

    /// Adds XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn mapped_address(self, address: SocketAddr) -> Self {
        self.xor_address(attribute::XOR_MAPPED_ADDRESS, address)
    }

    /// Adds an address, hidden as in XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn xor_address(self, kind: u16, address: SocketAddr) -> Self {
        let value = address::encode(address, Some(self.transaction));
        self.attribute(kind, &value)
    }

    /// Adds ERROR-CODE with its reason.
    #[must_use]
    pub fn error_code(self, code: u16, reason: &str) -> Self {
        let class = u8::try_from(code / 100).unwrap_or(0);
        let number = u8::try_from(code % 100).expect("below 100");
        self.attribute(attribute::ERROR_CODE, &[&[0, 0, class, number], reason.as_bytes()].concat())
    }

    /// Adds the integrity for this key: MESSAGE-INTEGRITY-SHA256, or MESSAGE-INTEGRITY for a key of HMAC-SHA1. Only a
    /// fingerprint may follow.
    #[must_use]
    pub fn integrity(mut self, key: &hmac::Key) -> Self {
        let value_bytes = key.algorithm().digest_algorithm().output_len();
        let covered = self.bytes.len();
        set_length(&mut self.bytes, covered + 4 + value_bytes - HEADER_BYTES);
        let tag = hmac::sign(key, &self.bytes);
        self.attribute(integrity_kind(key), tag.as_ref())
    }

    /// Ends the message with a fingerprint.
    #[must_use]
    pub fn fingerprint(mut self) -> Vec<u8> {
        let covered = self.bytes.len();
        set_length(&mut self.bytes, covered + 8 - HEADER_BYTES);
        let sum = crc32(&self.bytes) ^ FINGERPRINT_MASK;
        self.attribute(attribute::FINGERPRINT, &sum.to_be_bytes()).bytes
    }

    /// Ends the message without a fingerprint.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// How long it would be as it is now.
    #[must_use]
    pub const fn length_bytes(&self) -> usize {
        self.bytes.len()
    }
}

fn declared_length(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))
}

fn set_length(bytes: &mut [u8], length: usize) {
    let length = u16::try_from(length).expect("messages are short");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}

fn integrity_kind(key: &hmac::Key) -> u16 {
    if key.algorithm() == hmac::HMAC_SHA256 {
        attribute::MESSAGE_INTEGRITY_SHA256
    } else {
        attribute::MESSAGE_INTEGRITY
    }
}

/// The CRC-32 of Ethernet and zip, bit by bit: messages are a hundred bytes, a table would be larger than the gain.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// What tells STUN from other protocols on a socket.
pub(super) const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

const HEADER_BYTES: usize = 20;

/// RFC 8489, section 14.7: so that a checksum of another protocol in the same place does not pass for ours.
const FINGERPRINT_MASK: u32 = 0x5354_554E;

#[cfg(test)]
mod tests;
