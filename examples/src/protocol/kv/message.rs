use std::borrow::Cow;

use crust::PublicKey;
use serde::{Deserialize, Serialize, de::Error as _};

use super::{
    auth::AuthMessage,
    item::all,
    onion::{Announcement, Packet},
    record::{MAX_KEY, Record},
    reference::{Change, Handles, Reference},
};
use crate::protocol::mesh::{MAX_MESSAGE, MAX_PEERS};

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
    /// `share` is as in [`Message::NotFound`].
    Found {
        id: u64,
        records: Vec<F::To<Record>>,
        share: u64,
    },
    /// `share` is how much of a query that is answered from afar has ended here; 0 where answers go hop by hop.
    NotFound {
        id: u64,
        share: u64,
    },
    Put(F::To<Record>),
    /// Neighbours that the sender has got and lost since it last said so.
    Neighbours {
        came: Vec<PublicKey>,
        left: Vec<PublicKey>,
    },
    Announcement(Box<Announcement>),
    /// Not text like the others, but bytes: its length must tell nothing.
    Onion(Packet),
}

/// A query on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What whoever sent this calls it.
    pub(super) id: u64,
    /// What everybody calls it, so that nobody handles it twice.
    pub(super) tag: u64,
    #[serde(deserialize_with = "text::<_, MAX_KEY>")]
    pub(super) key: String,
    /// How many more nodes may look, the receiver included.
    pub(super) hops: u8,
    pub(super) fan_out: u8,
    pub(super) wanted: u8,
    pub(super) way: Way,
    /// Who is asked together with the receiver, and the receiver itself.
    #[serde(with = "keys")]
    pub(super) together: Vec<PublicKey>,
    /// Who had it before, or is left to somebody who has it.
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
    /// To this node. The query is [`WHOLE`] where it sets out; whoever passes it on divides his share among those he asks, and where it
    /// goes no further the share goes home with the answer. So the asker knows when there is nobody left, though nobody on the way
    /// remembers anything.
    Far {
        #[serde(with = "key")]
        to: PublicKey,
        #[serde(deserialize_with = "text::<_, MAX_CONTACT>")]
        contact: String,
        id: u64,
        share: u64,
    },
    /// To the receiver itself; never sent.
    #[serde(skip)]
    Turn,
}

impl Way {
    pub(super) fn of(mode: Mode, me: PublicKey, contact: &str, id: u64) -> Self {
        match mode {
            Mode::Proxy => Self::Back,
            Mode::Asynch | Mode::Mix(0) => Self::far(me, contact, id),
            Mode::Mix(hops) => Self::BackFor(hops),
        }
    }

    pub(super) fn far(to: PublicKey, contact: &str, id: u64) -> Self {
        Self::Far { to, contact: contact.to_owned(), id, share: WHOLE }
    }

    /// The same for the next receiver.
    pub(super) fn next(&self) -> Self {
        match self {
            Self::BackFor(0 | 1) | Self::Turn => Self::Turn,
            Self::BackFor(hops) => Self::BackFor(hops - 1),
            Self::Back | Self::Far { .. } => self.clone(),
        }
    }

    /// The same for one of several receivers, by its place.
    pub(super) fn part(&self, place: usize, of: usize) -> Self {
        let (each, rest) = (self.share() / of as u64, self.share() % of as u64);
        self.with_share(if place == 0 { each + rest } else { each })
    }

    /// How much of the query its receiver has, if the answer is to come from afar.
    pub(super) const fn share(&self) -> u64 {
        if let Self::Far { share, .. } = self { *share } else { 0 }
    }

    pub(super) fn with_share(&self, new: u64) -> Self {
        let mut way = self.clone();
        if let Self::Far { share, .. } = &mut way {
            *share = new;
        }
        way
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
            Self::Found { id, records, share } => {
                let records = records[..records.len() - left_out].iter();
                let records = records.map(|one| Cow::Borrowed(&**one)).collect();
                RawMessage::Found { id: *id, records, share: *share }
            }
            Self::NotFound { id, share } => RawMessage::NotFound { id: *id, share: *share },
            Self::Put(record) => RawMessage::Put(Cow::Borrowed(record)),
            Self::Neighbours { came, left } => {
                RawMessage::Neighbours { came: Cow::Borrowed(came), left: Cow::Borrowed(left) }
            }
            Self::Announcement(told) => RawMessage::Announcement(Cow::Borrowed(told)),
            Self::Onion(packet) => return packet.to_bytes(),
        };
        serde_json::to_vec(&raw).expect("numbers and strings are JSON")
    }

    pub(super) fn change<G: Handles>(self, how: &impl Change<F, G>) -> Message<G> {
        match self {
            Self::Auth(message) => Message::Auth(message),
            Self::Ask(ask) => Message::Ask(ask),
            Self::Found { id, records, share } => Message::Found { id, records: all(records, how), share },
            Self::NotFound { id, share } => Message::NotFound { id, share },
            Self::Put(record) => Message::Put(how.change(record)),
            Self::Neighbours { came, left } => Message::Neighbours { came, left },
            Self::Announcement(told) => Message::Announcement(told),
            Self::Onion(packet) => Message::Onion(packet),
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
        if let Some(packet) = Packet::from_bytes(bytes) {
            return Ok(Self::Onion(packet));
        }
        let raw = serde_json::from_slice(bytes).map_err(|error| NotMessage(error.to_string()))?;
        Ok(match raw {
            RawMessage::Auth(message) => Self::Auth(message.into_owned()),
            RawMessage::Ask(ask) => Self::Ask(ask.into_owned()),
            RawMessage::Found { id, records, share } => {
                let records = records.into_iter().map(|record| R::new(record.into_owned()));
                Self::Found { id, records: records.collect(), share }
            }
            RawMessage::NotFound { id, share } => Self::NotFound { id, share },
            RawMessage::Put(record) => Self::Put(R::new(record.into_owned())),
            RawMessage::Neighbours { came, left } => {
                Self::Neighbours { came: came.into_owned(), left: left.into_owned() }
            }
            RawMessage::Announcement(told) => Self::Announcement(Box::new(told.into_owned())),
        })
    }
}

/// A message as it is written.
#[derive(Serialize, Deserialize)]
enum RawMessage<'a> {
    Auth(Cow<'a, AuthMessage>),
    Ask(Cow<'a, Ask>),
    Found {
        id: u64,
        records: Vec<Cow<'a, Record>>,
        share: u64,
    },
    NotFound {
        id: u64,
        share: u64,
    },
    Put(Cow<'a, Record>),
    Neighbours {
        #[serde(with = "keys")]
        came: Cow<'a, [PublicKey]>,
        #[serde(with = "keys")]
        left: Cow<'a, [PublicKey]>,
    },
    Announcement(Cow<'a, Announcement>),
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

/// Text of a bearable length: a question is kept while it is answered, and passed on to many.
fn text<'de, D: serde::Deserializer<'de>, const MOST: usize>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > MOST {
        return Err(D::Error::custom(format_args!("a text of {} bytes, and {MOST} is the most", text.len())));
    }
    Ok(text)
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

pub(super) mod keys {
    use super::{Deserialize as _, MAX_KEYS, PublicKey};
    use serde::de::Error as _;

    pub(in super::super) fn serialize<S: serde::Serializer>(
        keys: &[PublicKey],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(keys.iter().map(ToString::to_string))
    }

    pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>, K: From<Vec<PublicKey>>>(
        deserializer: D,
    ) -> Result<K, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX_KEYS {
            return Err(D::Error::custom(format_args!("{} keys, and {MAX_KEYS} is the most", texts.len())));
        }
        let keys: Result<Vec<PublicKey>, _> = texts.iter().map(|text| text.parse()).collect();
        keys.map(K::from).map_err(D::Error::custom)
    }
}

/// All of a query that is answered from afar: enough to be divided among 8 neighbours at each of 20 hops.
pub(super) const WHOLE: u64 = 1 << 60;
/// Keys in one list of a message: as many as a node has neighbours.
const MAX_KEYS: usize = MAX_PEERS;
/// Bytes of how a node is reached: as many as are read of an endpoint.
const MAX_CONTACT: usize = 512;
