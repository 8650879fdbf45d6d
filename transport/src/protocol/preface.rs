//! The dialer's first bytes on every stream: what it wants.
//!
//! ```text
//!  0         1                   3
//! +---------+---------+---------+---------+-----------------+
//! | version | length of the rest | purpose | [tag, 16 bytes] |   purpose 0: direct, 1: rendezvous with a tag
//! +---------+---------+---------+---------+-----------------+
//! | label length | label (UTF-8, ≤ 64)                      |
//! +--------------+------------------------------------------+
//! | token length | token (0 or 16 bytes)                    |
//! +--------------+------------------------------------------+
//! | extensions: type, length (2 bytes), value; until the end; unknown ones are ignored
//! +---------------------------------------------------------+
//!
//!   type 1: network            the name of the dialer's network (UTF-8, 1 to 64); left out if it has none
//!   type 2: stays              without a value: the stream stays on its connection
//! ```
//!
//! Numbers are in network order. The version stands first and alone, so that every later form can be refused by name.

use ring::digest::{Context, SHA256};

use super::wire::{Reader, WireError};
use crate::{AccessToken, NetworkName, ProtocolLabel, PublicKey};

/// What the dialer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preface {
    pub(crate) purpose: Purpose,
    pub(crate) label: ProtocolLabel,
    pub(crate) token: Option<AccessToken>,
    pub(crate) network: NetworkName,
    /// The stream cannot be sent to another connection, and no other is to come to this one for its sake.
    pub(crate) stays: bool,
}

/// Why the stream was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A dial of a known address.
    Direct,
    /// The stream that both sides agreed on beforehand.
    Rendezvous(RendezvousTag),
}

/// Names one rendezvous; 16 bytes, so that it cannot be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RendezvousTag(pub(crate) [u8; 16]);

impl RendezvousTag {
    /// Of two calls with `single`: the same for both. It is no secret: a stream with it is taken from that peer only.
    pub(crate) fn of_two_calls(ours: PublicKey, theirs: PublicKey, label: &ProtocolLabel) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(b"crust single 1");
        context.update(ours.min(theirs).as_bytes());
        context.update(ours.max(theirs).as_bytes());
        context.update(label.as_str().as_bytes());
        let mut tag = Self([0; 16]);
        tag.0.copy_from_slice(&context.finish().as_ref()[..16]);
        tag
    }
}

impl Preface {
    /// Writes the preface; every value fits its field by construction.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, 0, 0];
        match self.purpose {
            Purpose::Direct => bytes.push(PURPOSE_DIRECT),
            Purpose::Rendezvous(tag) => {
                bytes.push(PURPOSE_RENDEZVOUS);
                bytes.extend_from_slice(&tag.0);
            }
        }
        push_short(&mut bytes, self.label.as_str().as_bytes());
        push_short(&mut bytes, self.token.as_ref().map_or(&[][..], |token| token.as_bytes()));
        let network = self.network.as_str().as_bytes();
        if !network.is_empty() {
            bytes.push(NETWORK);
            bytes.push(0);
            push_short(&mut bytes, network);
        }
        if self.stays {
            bytes.extend_from_slice(&[STAYS, 0, 0]);
        }
        let length =
            u16::try_from(bytes.len() - HEAD_BYTES).expect("16 + 64 + 16 + 64 bytes and their lengths");
        bytes[1..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    /// Reads a preface from the front of what has arrived: itself and its length, or `None` while bytes are missing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, PrefaceError> {
        let Some(&version) = bytes.first() else { return Ok(None) };
        if version != VERSION {
            return Err(PrefaceError::Version { theirs: version });
        }
        let Some(&[high, low]) = bytes.get(1..HEAD_BYTES) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_BODY_BYTES {
            return Err(PrefaceError::TooLong { length });
        }
        let Some(body) = bytes.get(HEAD_BYTES..HEAD_BYTES + length) else { return Ok(None) };
        Ok(Some((Self::decode_body(body)?, HEAD_BYTES + length)))
    }

    fn decode_body(body: &[u8]) -> Result<Self, PrefaceError> {
        let mut reader = Reader::new(body);
        let purpose = match reader.u8()? {
            PURPOSE_DIRECT => Purpose::Direct,
            PURPOSE_RENDEZVOUS => Purpose::Rendezvous(RendezvousTag(reader.array()?)),
            other => return Err(PrefaceError::Purpose { theirs: other }),
        };
        let label = std::str::from_utf8(reader.short()?).map_err(|_| PrefaceError::Label)?;
        let label = ProtocolLabel::new(label).map_err(|_| PrefaceError::Label)?;
        let token = match reader.short()? {
            [] => None,
            token => Some(AccessToken::from_bytes(token.try_into().map_err(|_| PrefaceError::Token)?)),
        };
        let mut network = NetworkName::default();
        let mut stays = false;
        while let Some((kind, value)) = reader.extension()? {
            match kind {
                NETWORK => {
                    let name = std::str::from_utf8(value).map_err(|_| PrefaceError::Network)?;
                    network = NetworkName::new(name).map_err(|_| PrefaceError::Network)?;
                }
                STAYS => stays = true,
                _ => {}
            }
        }
        Ok(Self { purpose, label, token, network, stays })
    }
}

fn push_short(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.push(u8::try_from(value.len()).expect("labels and names have at most 64 bytes, tokens 16"));
    bytes.extend_from_slice(value);
}

/// Why bytes are no preface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PrefaceError {
    #[error("version {theirs} is not spoken here, only {VERSION}")]
    Version { theirs: u8 },
    #[error("a preface of {length} bytes, at most {MAX_BODY_BYTES} are read")]
    TooLong { length: usize },
    #[error("unknown purpose {theirs}")]
    Purpose { theirs: u8 },
    #[error("the protocol label is not UTF-8 of at most 64 bytes")]
    Label,
    #[error("the access token has not 16 bytes")]
    Token,
    #[error("the name of the network is not UTF-8 of at most 64 bytes")]
    Network,
    #[error("cut short inside")]
    Wire(#[from] WireError),
}

/// The version spoken here, of preface and verdict alike.
pub(crate) const VERSION: u8 = 1;
/// The longest preface of this version has 172 bytes; the rest is room for extensions. A peer can make us hold no more.
pub(crate) const MAX_BODY_BYTES: usize = 512;
const HEAD_BYTES: usize = 3;
const PURPOSE_DIRECT: u8 = 0;
const PURPOSE_RENDEZVOUS: u8 = 1;
const NETWORK: u8 = 1;
const STAYS: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn golden() -> (Preface, Vec<u8>) {
        let preface = Preface {
            purpose: Purpose::Direct,
            label: ProtocolLabel::new("chat/1").unwrap(),
            token: Some(AccessToken::from_bytes([9; 16])),
            network: NetworkName::default(),
            stays: false,
        };
        let mut bytes = b"\x01\x00\x19\x00\x06chat/1\x10".to_vec();
        bytes.extend([9; 16]);
        (preface, bytes)
    }

    #[test]
    fn the_golden_bytes_read_and_write() {
        let (preface, bytes) = golden();
        assert_eq!(preface.encode(), bytes);
        assert_eq!(Preface::decode(&bytes), Ok(Some((preface, bytes.len()))));
    }

    #[test]
    fn a_stream_that_stays_says_so_by_an_extension() {
        let (preface, mut bytes) = golden();
        bytes.extend_from_slice(b"\x02\x00\x00");
        bytes[2] += 3;
        let staying = Preface { stays: true, ..preface };
        assert_eq!(staying.encode(), bytes);
        assert_eq!(Preface::decode(&bytes), Ok(Some((staying, bytes.len()))));
    }

    #[test]
    fn every_prefix_asks_for_more() {
        let (_, bytes) = golden();
        for end in 0..bytes.len() {
            assert_eq!(Preface::decode(&bytes[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn unknown_extensions_are_ignored_and_cut_ones_refused() {
        let (preface, mut bytes) = golden();
        bytes.extend_from_slice(b"\xee\x00\x03abc");
        bytes[2] += 6;
        assert_eq!(Preface::decode(&bytes), Ok(Some((preface, bytes.len()))));
        bytes.truncate(bytes.len() - 1);
        bytes[2] -= 1;
        assert_eq!(Preface::decode(&bytes), Err(PrefaceError::Wire(WireError)));
    }

    #[test]
    fn a_network_is_named_after_the_rest() {
        let (mut preface, mut bytes) = golden();
        preface.network = NetworkName::new("test").unwrap();
        bytes.extend_from_slice(b"\x01\x00\x04test");
        bytes[2] += 7;
        assert_eq!(preface.encode(), bytes);
        assert_eq!(Preface::decode(&bytes), Ok(Some((preface, bytes.len()))));
        let last = bytes.len() - 1;
        bytes[last] = 0xff;
        assert_eq!(Preface::decode(&bytes), Err(PrefaceError::Network));
    }

    #[test]
    fn another_version_is_refused_by_its_first_byte() {
        assert_eq!(Preface::decode(&[2]), Err(PrefaceError::Version { theirs: 2 }));
        assert!(PrefaceError::Version { theirs: 2 }.to_string().contains("version 2"));
        assert_eq!(Preface::decode(&[1, 0xff, 0xff]), Err(PrefaceError::TooLong { length: 0xffff }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Preface::decode(&bytes);
        }
    }
}
