//! One layer taken off, by a hop.

use crust::PublicKey;

use super::{
    build::Content,
    keys::{LayerKeys, OnionSecret, ReplayTag},
    packet::{BODY_BYTES, Header, Instruction, LAYER_BYTES, LAYERS_BYTES, Layer, Packet, Ticket},
};

/// A packet whose header is for this node and whole. What it says may be followed once.
pub(super) struct Opened {
    keys: LayerKeys,
    layer: Layer,
    header: Header,
    body: Box<[u8; BODY_BYTES]>,
}

/// What a hop finds in a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peeled {
    /// To be passed on.
    Pass { next: PublicKey, packet: Packet },
    /// For this node.
    Message(Content),
    /// The answer to something that this node has sent.
    Home { ticket: Ticket, body: Box<[u8; BODY_BYTES]> },
}

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not for this node, for a key that it has no more, or its header was changed.
    Unreadable,
    /// Its body was changed.
    Damaged,
    /// It says something that nobody says.
    Malformed,
}

impl Opened {
    /// Reads the header.
    pub(super) fn new(secret: &OnionSecret, packet: &Packet) -> Result<Self, Refused> {
        let keys = secret.reading(&packet.header.ephemeral).ok_or(Refused::Unreadable)?;
        let mut layers = packet.header.layers.clone();
        if !keys.open_header(&packet.header.tag, &mut layers) {
            return Err(Refused::Unreadable);
        }
        let first = layers.first_chunk().expect("the layers are longer than one");
        let layer = Layer::from_bytes(first).ok_or(Refused::Malformed)?;
        layers.copy_within(LAYER_BYTES.., 0);
        layers[LAYERS_BYTES - LAYER_BYTES..].copy_from_slice(&*keys.filler);
        let header = Header { ephemeral: layer.ephemeral, tag: layer.tag, layers };
        Ok(Self { keys, layer, header, body: packet.body.clone() })
    }

    /// Which packet it is.
    pub(super) const fn replay(&self) -> ReplayTag {
        self.keys.replay
    }

    /// Reads the body as far as it is for this node.
    pub(super) fn peel(self) -> Result<Peeled, Refused> {
        let Self { keys, layer, header, mut body } = self;
        match &layer.instruction {
            Instruction::Pass { body: tag, .. } | Instruction::Read { body: tag } => {
                if !keys.body.open(tag, &mut body[..]) {
                    return Err(Refused::Damaged);
                }
            }
            Instruction::Return { .. } | Instruction::Home { .. } => keys.body.mix(&mut body[..]),
        }
        match layer.instruction {
            Instruction::Pass { next, .. } | Instruction::Return { next } => {
                Ok(Peeled::Pass { next, packet: Packet { header, body } })
            }
            Instruction::Read { .. } => {
                Content::from_body(&body).map(Peeled::Message).ok_or(Refused::Malformed)
            }
            Instruction::Home { ticket } => Ok(Peeled::Home { ticket, body }),
        }
    }

    #[cfg(test)]
    pub(super) const fn instruction(&self) -> &Instruction {
        &self.layer.instruction
    }

    /// The header as it goes to the next hop.
    #[cfg(test)]
    pub(super) const fn rest(&self) -> &Header {
        &self.header
    }
}
