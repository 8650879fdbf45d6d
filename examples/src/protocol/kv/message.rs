use std::borrow::Cow;

use crust::PublicKey;
use serde::{Deserialize, Serialize, de::Error as _};

use super::{
    auth::AuthMessage,
    item::all,
    record::Record,
    reference::{Change, Handles, Reference},
};
use crate::protocol::mesh::MAX_MESSAGE;

/// How an answer comes home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Hop by hop, the way that the query went; each node on it remembers who asked.
    Proxy,
    /// Straight from whoever has it, over a connection of its own; nodes on the way remember nothing, and learn who asks.
    Asynch,
    /// So many hops as with a proxy; the last of these has the answer sent to itself and passes it home.
    Mix(u8),
}

/// What nodes say to each other.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each says it")]
pub enum Message<F: Handles> {
    Auth(AuthMessage),
    Ask(Ask),
    Found { id: u64, records: Vec<F::To<Record>> },
    NotFound { id: u64 },
    Put(F::To<Record>),
}

/// A query on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What whoever sent this calls it.
    pub(super) id: u64,
    /// What everybody calls it, so that nobody handles it twice.
    pub(super) tag: u64,
    pub(super) key: String,
    /// How many more nodes may look, the receiver included.
    pub(super) hops: u8,
    pub(super) fan_out: u8,
    pub(super) wanted: u8,
    pub(super) way: Way,
    /// Who had it before.
    #[serde(with = "keys")]
    pub(super) history: Vec<PublicKey>,
}

impl Ask {
    /// What whoever sent it calls it: answers repeat it.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }
}

/// How the answer to a query comes home, seen from its receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// Back to the sender.
    Back,
    /// Back to the sender, for so many hops still.
    BackFor(u8),
    /// To this node.
    Far {
        #[serde(with = "key")]
        to: PublicKey,
        contact: String,
        id: u64,
    },
    /// To the receiver itself; never sent.
    #[serde(skip)]
    Turn,
}

impl Way {
    pub(super) fn of(mode: Mode, me: PublicKey, contact: &str, id: u64) -> Self {
        match mode {
            Mode::Proxy => Self::Back,
            Mode::Asynch | Mode::Mix(0) => Self::Far { to: me, contact: contact.to_owned(), id },
            Mode::Mix(hops) => Self::BackFor(hops),
        }
    }

    /// The same for the next receiver.
    pub(super) fn next(&self) -> Self {
        match self {
            Self::BackFor(0 | 1) | Self::Turn => Self::Turn,
            Self::BackFor(hops) => Self::BackFor(hops - 1),
            Self::Back => Self::Back,
            Self::Far { to, contact, id } => Self::Far { to: *to, contact: contact.clone(), id: *id },
        }
    }
}

impl<F: Handles> Message<F> {
    /// Writes it, without copying records. Of more values than a message holds the last are left out.
    ///
    /// # Panics
    ///
    /// Never: everything in it can be written.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (mut text, mut left_out) = (self.write(0), 0);
        while text.len() > MAX_MESSAGE
            && matches!(self, Self::Found { records, .. } if left_out < records.len())
        {
            left_out += 1;
            text = self.write(left_out);
        }
        text
    }

    fn write(&self, left_out: usize) -> Vec<u8> {
        let raw = match self {
            Self::Auth(message) => RawMessage::Auth(Cow::Borrowed(message)),
            Self::Ask(ask) => RawMessage::Ask(Cow::Borrowed(ask)),
            Self::Found { id, records } => {
                let records = records[..records.len() - left_out].iter();
                RawMessage::Found { id: *id, records: records.map(|one| Cow::Borrowed(&**one)).collect() }
            }
            Self::NotFound { id } => RawMessage::NotFound { id: *id },
            Self::Put(record) => RawMessage::Put(Cow::Borrowed(record)),
        };
        serde_json::to_vec(&raw).expect("numbers and strings are JSON")
    }

    pub(super) fn change<G: Handles>(self, how: &impl Change<F, G>) -> Message<G> {
        match self {
            Self::Auth(message) => Message::Auth(message),
            Self::Ask(ask) => Message::Ask(ask),
            Self::Found { id, records } => Message::Found { id, records: all(records, how) },
            Self::NotFound { id } => Message::NotFound { id },
            Self::Put(record) => Message::Put(how.change(record)),
        }
    }
}

impl<R: Reference> Message<R> {
    /// Reads a message. Nothing in it is verified.
    ///
    /// # Errors
    ///
    /// [`NotMessage`] when it is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotMessage> {
        let raw = serde_json::from_slice(bytes).map_err(|error| NotMessage(error.to_string()))?;
        Ok(match raw {
            RawMessage::Auth(message) => Self::Auth(message.into_owned()),
            RawMessage::Ask(ask) => Self::Ask(ask.into_owned()),
            RawMessage::Found { id, records } => {
                let records = records.into_iter().map(|record| R::new(record.into_owned()));
                Self::Found { id, records: records.collect() }
            }
            RawMessage::NotFound { id } => Self::NotFound { id },
            RawMessage::Put(record) => Self::Put(R::new(record.into_owned())),
        })
    }
}

/// A message as it is written.
#[derive(Serialize, Deserialize)]
enum RawMessage<'a> {
    Auth(Cow<'a, AuthMessage>),
    Ask(Cow<'a, Ask>),
    Found { id: u64, records: Vec<Cow<'a, Record>> },
    NotFound { id: u64 },
    Put(Cow<'a, Record>),
}

/// These bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message: {0}")]
pub struct NotMessage(String);

#[derive(Serialize, Deserialize)]
struct RawRecord {
    author: String,
    key: String,
    value: Vec<u8>,
    version: u64,
    signature: Vec<u8>,
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { author, key, value, version, signature } = self;
        let (author, signature) = (author.to_string(), signature.to_vec());
        RawRecord { author, key: key.clone(), value: value.clone(), version: *version, signature }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawRecord::deserialize(deserializer)?;
        let signature = raw.signature.try_into().map_err(|_| D::Error::custom("a signature has 64 bytes"))?;
        let author = raw.author.parse().map_err(D::Error::custom)?;
        Ok(Self { author, key: raw.key, value: raw.value, version: raw.version, signature })
    }
}

pub(super) mod key {
    use super::{Deserialize as _, PublicKey};
    use serde::de::Error as _;

    pub(in super::super) fn serialize<S: serde::Serializer>(
        key: &PublicKey,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(key)
    }

    pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PublicKey, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

mod keys {
    use super::{Deserialize as _, PublicKey};
    use serde::de::Error as _;

    pub(super) fn serialize<S: serde::Serializer>(
        keys: &[PublicKey],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(keys.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PublicKey>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}
