//! What goes over a stream, always equally long.
//!
//! ```text
//!    0       version: 0, as no other message of this program begins
//!    1..33   the sender's key for this hop, made for it alone
//!   33..49   tag of the layers
//!   49..825  layers: 8 of 97 bytes, encrypted for this hop; the first is its own
//!  825..4096 body, encrypted for this hop
//! ```

use crust::PublicKey;

use super::keys::{OnionKey, Tag};

/// A packet at some place of its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub(super) header: Header,
    pub(super) body: Box<[u8; BODY_BYTES]>,
}

/// What says where a packet goes, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) ephemeral: OnionKey,
    pub(super) tag: Tag,
    pub(super) layers: Box<[u8; LAYERS_BYTES]>,
}

impl Packet {
    /// Reads a packet; whether it is any good only its receiver can tell. `None` where it has another length or version, as all other
    /// messages have.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(1 + HEADER_BYTES)?;
        let (version, header) = head.split_first()?;
        let body = body.try_into().ok().filter(|_| *version == VERSION)?;
        Some(Self { header: Header::from_bytes(header.try_into().ok()?), body: Box::new(body) })
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[VERSION][..], &self.header.to_bytes(), &self.body[..]].concat()
    }
}

impl Header {
    pub(super) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        let (ephemeral, rest) = bytes.split_first_chunk().expect("a header is longer than a key");
        let (tag, layers) = rest.split_first_chunk().expect("and than a tag");
        let layers = layers.try_into().expect("the rest of a header is its layers");
        Self { ephemeral: OnionKey::from_bytes(*ephemeral), tag: *tag, layers: Box::new(layers) }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [&self.ephemeral.as_bytes()[..], &self.tag, &self.layers[..]].concat()
    }
}

/// What a hop shall do with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instruction {
    /// Pass it on.
    Pass { next: PublicKey, body: Tag },
    /// It is for this node.
    Read { body: Tag },
    /// Pass it on; the body was written by somebody whom the header's writer could not tell what to write, so it has no tag.
    Return { next: PublicKey },
    /// The answer to something that this node has sent.
    Home { ticket: Ticket },
}

/// Which message an answer is to.
pub(super) type Ticket = [u8; 16];

/// An instruction, and what the next hop's header begins with.
///
/// ```text
///  0       1 pass on, 2 read, 3 pass back, 4 home
///  1..33   the next node (1, 3), or the ticket and zeros (4)
/// 33..49   tag of the body (1, 2)
/// 49..81   the next hop's ephemeral key (1, 3)
/// 81..97   tag of its layers (1, 3)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) instruction: Instruction,
    pub(super) ephemeral: OnionKey,
    pub(super) tag: Tag,
}

impl Layer {
    pub(super) fn to_bytes(&self) -> [u8; LAYER_BYTES] {
        let mut first = [0; 32];
        let (kind, body) = match &self.instruction {
            Instruction::Pass { next, body } => {
                first = *next.as_bytes();
                (PASS, *body)
            }
            Instruction::Read { body } => (READ, *body),
            Instruction::Return { next } => {
                first = *next.as_bytes();
                (RETURN, [0; 16])
            }
            Instruction::Home { ticket } => {
                first[..16].copy_from_slice(ticket);
                (HOME, [0; 16])
            }
        };
        let parts = [&[kind][..], &first, &body, self.ephemeral.as_bytes(), &self.tag].concat();
        parts.try_into().expect("the parts are as long as a layer")
    }

    /// `None` where it says something that nobody says.
    pub(super) fn from_bytes(bytes: &[u8; LAYER_BYTES]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (first, rest) = rest.split_first_chunk::<32>()?;
        let (body, rest) = rest.split_first_chunk::<16>()?;
        let (ephemeral, tag) = rest.split_first_chunk::<32>()?;
        let next = PublicKey::from_bytes(*first);
        let instruction = match *kind {
            PASS => Instruction::Pass { next, body: *body },
            READ => Instruction::Read { body: *body },
            RETURN => Instruction::Return { next },
            HOME => Instruction::Home { ticket: *first.first_chunk()? },
            _ => return None,
        };
        Some(Self { instruction, ephemeral: OnionKey::from_bytes(*ephemeral), tag: *tag.first_chunk()? })
    }
}

const VERSION: u8 = 0;
const PASS: u8 = 1;
const READ: u8 = 2;
const RETURN: u8 = 3;
const HOME: u8 = 4;

/// The most hops of a packet, its receiver included.
pub const MAX_LAYERS: usize = 8;
/// Every packet on every stream.
pub const PACKET_BYTES: usize = 4_096;
/// Kind, next node, two tags and a key.
pub(super) const LAYER_BYTES: usize = 1 + 32 + 16 + 32 + 16;
pub(super) const LAYERS_BYTES: usize = MAX_LAYERS * LAYER_BYTES;
pub(super) const HEADER_BYTES: usize = 32 + 16 + LAYERS_BYTES;
pub(super) const BODY_BYTES: usize = PACKET_BYTES - 1 - HEADER_BYTES;
