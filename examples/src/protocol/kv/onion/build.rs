//! Layers put on, by whoever sends a message or prepares the way of its answer.

use std::fmt;

use crust::PublicKey;
use zeroize::Zeroizing;

use super::{
    keys::{LayerKeys, OnionKey, OnionSecret, StreamKey, Tag, derive, noise},
    packet::{
        BODY_BYTES, HEADER_BYTES, Header, Instruction, LAYER_BYTES, LAYERS_BYTES, Layer, MAX_LAYERS, Packet,
        Ticket,
    },
};

/// A node on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Who it is.
    pub node: PublicKey,
    /// What is written for it with.
    pub key: OnionKey,
}

/// Why a packet cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The text is longer than [`MAX_TEXT`].
    #[error("a message has at most {MAX_TEXT} bytes, not {0}")]
    TooLong(usize),
    /// The way has no nodes or more than [`MAX_LAYERS`].
    #[error("a way has 1 to {MAX_LAYERS} nodes, its end included, not {0}")]
    Way(usize),
    /// What a node says is its key is none.
    #[error("what {0} says is its key is none")]
    Key(PublicKey),
}

/// What lets whoever has it send one answer, over nodes that it does not know, to somebody it does not know.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplyBlock {
    /// To whom the answer is given first.
    pub(super) first: PublicKey,
    header: Header,
    /// What the answer is encrypted with, before the first hop adds its layer.
    key: [u8; 32],
}

/// What the answer to a message is read with.
pub(super) struct ReplyKeys {
    /// Of each hop on the way back, this node included.
    hops: Vec<StreamKey>,
    inner: StreamKey,
}

/// What a message says to its receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What its sender wants to be known.
    pub text: Vec<u8>,
    /// How it is answered, if it can be.
    pub reply: Option<ReplyBlock>,
}

/// Makes the packet that is for the first of these nodes and brings the content to the last. `seed` is a secret and used once.
///
/// # Errors
///
/// [`BuildError`].
pub fn message(seed: &[u8; 32], way: &[Hop], content: &Content) -> Result<Packet, BuildError> {
    let stages = stages(seed, way)?;
    let mut body = content.to_body()?;
    let mut tags: Vec<Tag> = stages.iter().rev().map(|stage| stage.keys.body.seal(&mut body[..])).collect();
    tags.reverse();
    let next = way[1..].iter().map(|hop| Some(hop.node)).chain([None]);
    let instructions = tags.iter().zip(next).map(|(tag, next)| match next {
        Some(next) => Instruction::Pass { next, body: *tag },
        None => Instruction::Read { body: *tag },
    });
    let header = header(seed, &stages, &instructions.collect::<Vec<_>>());
    Ok(Packet { header, body })
}

/// Prepares the way of an answer over these nodes, the last of whom is this one. `seed` is a secret and used once.
///
/// # Errors
///
/// [`BuildError::Way`] and [`BuildError::Key`].
pub(super) fn reply_block(
    seed: &[u8; 32],
    way: &[Hop],
    ticket: Ticket,
) -> Result<(ReplyBlock, ReplyKeys), BuildError> {
    let stages = stages(seed, way)?;
    let next = way[1..].iter().map(|hop| Instruction::Return { next: hop.node });
    let instructions: Vec<Instruction> = next.chain([Instruction::Home { ticket }]).collect();
    let inner = derive(seed, b"answer", 0);
    let block = ReplyBlock { first: way[0].node, header: header(seed, &stages, &instructions), key: *inner };
    let hops = stages.into_iter().map(|stage| stage.keys.body).collect();
    Ok((block, ReplyKeys { hops, inner: StreamKey::new(*inner) }))
}

impl ReplyBlock {
    /// Makes the packet that brings an answer home, and tells to whom it is given.
    ///
    /// # Errors
    ///
    /// [`BuildError::TooLong`].
    pub fn answer(&self, text: &[u8]) -> Result<(PublicKey, Packet), BuildError> {
        let mut body = Box::new([0; BODY_BYTES]);
        let (tag, rest) = body.split_at_mut(TAG_BYTES);
        put_text(rest, text)?;
        tag.copy_from_slice(&StreamKey::new(self.key).seal(rest));
        Ok((self.first, Packet { header: self.header.clone(), body }))
    }

    fn to_bytes(&self) -> Vec<u8> {
        [&self.first.as_bytes()[..], &self.key, &self.header.to_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let (first, rest) = bytes.split_first_chunk().expect("a block is longer than a key");
        let (key, header) = rest.split_first_chunk().expect("and than two");
        let header = Header::from_bytes(header.try_into().expect("the rest of a block is its header"));
        Self { first: PublicKey::from_bytes(*first), header, key: *key }
    }
}

impl fmt::Debug for ReplyBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReplyBlock").field("first", &self.first).finish_non_exhaustive()
    }
}

impl ReplyKeys {
    /// Reads an answer that has come home. `None` where somebody has changed it.
    pub(super) fn open(&self, body: &[u8; BODY_BYTES]) -> Option<Vec<u8>> {
        let mut body = Zeroizing::new(*body);
        for key in &self.hops {
            key.mix(&mut body[..]);
        }
        let (tag, rest) = body.split_first_chunk_mut()?;
        self.inner.open(tag, rest).then(|| take_text(rest)).flatten()
    }
}

impl Content {
    fn to_body(&self) -> Result<Box<[u8; BODY_BYTES]>, BuildError> {
        let mut body = Box::new([0; BODY_BYTES]);
        if let Some(block) = &self.reply {
            body[0] = 1;
            body[1..=BLOCK_BYTES].copy_from_slice(&block.to_bytes());
        }
        put_text(&mut body[1 + BLOCK_BYTES..], &self.text)?;
        Ok(body)
    }

    /// `None` where it says something that nobody says.
    pub(super) fn from_body(body: &[u8; BODY_BYTES]) -> Option<Self> {
        let (answerable, rest) = body.split_first()?;
        let (block, rest) = rest.split_first_chunk()?;
        let reply = match answerable {
            0 => None,
            1 => Some(ReplyBlock::from_bytes(block)),
            _ => return None,
        };
        Some(Self { text: take_text(rest)?, reply })
    }
}

/// One layer of a packet, as its writer knows it.
struct Stage {
    ephemeral: OnionKey,
    keys: LayerKeys,
}

fn stages(seed: &[u8; 32], way: &[Hop]) -> Result<Vec<Stage>, BuildError> {
    if way.is_empty() || way.len() > MAX_LAYERS {
        return Err(BuildError::Way(way.len()));
    }
    let numbered = (0_u8..).zip(way);
    let stages = numbered.map(|(number, hop)| {
        let secret = OnionSecret::from_seed(*derive(seed, b"ephemeral", number));
        let keys = secret.writing(&hop.key).ok_or(BuildError::Key(hop.node))?;
        Ok(Stage { ephemeral: secret.public(), keys })
    });
    stages.collect()
}

/// Puts the layers around each other, from the last to the first.
///
/// Each hop takes off the first layer, moves the others up and adds at the end what only it and the writer know. So what the last hop gets
/// ends with such additions of all before it, encrypted by those after them; the writer must know it beforehand for tags to fit. What is
/// between these and the last layer is noise: zeros there would tell the last hop how many were before it.
fn header(seed: &[u8; 32], stages: &[Stage], instructions: &[Instruction]) -> Header {
    let (last, before) = stages.split_last().expect("a way has nodes");
    let mut end: Vec<u8> = Vec::new();
    for stage in before {
        mix_end(&mut end, &stage.keys);
        end.extend_from_slice(&*stage.keys.filler);
    }
    let mut layers: Box<[u8; LAYERS_BYTES]> = Box::new(*noise(seed));
    mix_end(&mut end, &last.keys); // which sealing undoes
    layers[LAYERS_BYTES - end.len()..].copy_from_slice(&end);
    let nothing = noise::<48>(&derive(seed, b"nothing", 0));
    let (key, tag) = nothing.split_first_chunk().expect("48 bytes are a key and a tag");
    let mut layer = Layer {
        instruction: instructions[stages.len() - 1].clone(),
        ephemeral: OnionKey::from_bytes(*key),
        tag: tag.try_into().expect("48 bytes are a key and a tag"),
    };
    for (place, stage) in stages.iter().enumerate().rev() {
        if place + 1 < stages.len() {
            layers.copy_within(..LAYERS_BYTES - LAYER_BYTES, LAYER_BYTES);
            layer.instruction = instructions[place].clone();
        }
        layers[..LAYER_BYTES].copy_from_slice(&layer.to_bytes());
        layer.tag = stage.keys.seal_header(&mut layers);
        layer.ephemeral = stage.ephemeral;
    }
    Header { ephemeral: layer.ephemeral, tag: layer.tag, layers }
}

/// Mixes what stands at the end of a header as reading it does.
fn mix_end(end: &mut [u8], keys: &LayerKeys) {
    let stream = keys.header_stream();
    let begin = LAYERS_BYTES - end.len();
    end.iter_mut().zip(&stream[begin..]).for_each(|(byte, other)| *byte ^= other);
}

/// Length, text, zeros.
fn put_text(room: &mut [u8], text: &[u8]) -> Result<(), BuildError> {
    let length = u16::try_from(text.len()).ok().filter(|length| usize::from(*length) <= MAX_TEXT);
    let length = length.ok_or(BuildError::TooLong(text.len()))?;
    room[..2].copy_from_slice(&length.to_be_bytes());
    room[2..2 + text.len()].copy_from_slice(text);
    Ok(())
}

fn take_text(room: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = room.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    rest.get(..length).filter(|text| text.len() <= MAX_TEXT).map(<[u8]>::to_vec)
}

/// The longest text, in bytes, of a message and of an answer.
pub const MAX_TEXT: usize = 2_048;
const TAG_BYTES: usize = 16;
/// First node, key, header.
const BLOCK_BYTES: usize = 32 + 32 + HEADER_BYTES;
const _: () = assert!(1 + BLOCK_BYTES + 2 + MAX_TEXT <= BODY_BYTES);
