use std::borrow::Cow;

use crust::PublicKey;
use serde::{Deserialize, Serialize, de::Error as _};

use super::keys::OnionKey;
use crate::protocol::kv::message::{key, keys};

/// What a node tells everybody of itself, so that packets can be written for it. It says who its neighbours are, and not where
/// anybody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Who signed it.
    pub node: PublicKey,
    /// What is written for it with.
    pub key: OnionKey,
    /// To whom it can pass on.
    pub neighbours: Vec<PublicKey>,
    /// Which of several; the highest counts.
    pub version: u64,
    /// Over all that.
    pub signature: [u8; 64],
}

impl Announcement {
    /// Signs what is in it. Of more neighbours than are told the last are left out.
    pub(super) fn sign(mut self, sign: impl FnOnce(&str, &[u8]) -> [u8; 64]) -> Self {
        self.neighbours.truncate(MAX_TOLD);
        self.signature = sign(PURPOSE, &self.signed_bytes());
        self
    }

    /// Whether the node has signed it, and it is of a bearable size.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        self.neighbours.len() <= MAX_TOLD
            && self.node.has_signed_for(PURPOSE, &self.signed_bytes(), &self.signature)
    }

    /// Everything; only the last is of variable length.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes =
            [&self.node.as_bytes()[..], self.key.as_bytes(), &self.version.to_be_bytes()].concat();
        self.neighbours.iter().for_each(|neighbour| bytes.extend_from_slice(neighbour.as_bytes()));
        bytes
    }
}

#[derive(Serialize, Deserialize)]
struct Raw<'a> {
    #[serde(with = "key")]
    node: PublicKey,
    key: [u8; 32],
    #[serde(with = "keys")]
    neighbours: Cow<'a, [PublicKey]>,
    version: u64,
    signature: Vec<u8>,
}

impl Serialize for Announcement {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { node, key, neighbours, version, signature } = self;
        let (neighbours, signature) = (Cow::Borrowed(&neighbours[..]), signature.to_vec());
        Raw { node: *node, key: *key.as_bytes(), neighbours, version: *version, signature }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Announcement {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw { node, key, neighbours, version, signature } = Raw::deserialize(deserializer)?;
        let signature = signature.try_into().map_err(|_| D::Error::custom("a signature has 64 bytes"))?;
        let neighbours = neighbours.into_owned();
        Ok(Self { node, key: OnionKey::from_bytes(key), neighbours, version, signature })
    }
}

const PURPOSE: &str = "crust examples: kv announcement";
/// Neighbours that a node tells of: 2 KiB of text.
pub(super) const MAX_TOLD: usize = 32;
