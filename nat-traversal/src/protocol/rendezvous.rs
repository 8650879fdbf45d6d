use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Specification};
use ring::digest;
use thiserror::Error;

use super::candidate::{AddrKind, MappedSocketAddr, PortRule};

/// What a peer must know of us to meet us: our addresses, and a public key for this one attempt.
///
/// Give it to the peer by any channel: as bytes or, by `Display` and `FromStr`, as one line of text that survives mail
/// and chat. Whoever carries it can read the addresses but cannot forge a packet of the punch.
///
/// ```text
/// | version 1 (8) | X25519 public key (256) | number of addresses (8) |, then for each
/// | kind (2), NAT (1), IPv6 (1), port rule (2), 0 (2) | step (16), only if ports are sequential | IP (32 or 128) | port (16) |
/// ```
///
/// The text is `nat1`, then in base32 the bytes and the first four of their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubRendezvousInfo {
    endpoints: Vec<MappedSocketAddr>,
    public_key: [u8; 32],
}

/// Why bytes or text are no rendezvous information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseInfoError {
    /// The text does not begin with `nat1`: it is something else, or of another version.
    #[error("rendezvous information begins with nat1")]
    Prefix,
    /// Something that is no letter of base32 stands in the text.
    #[error("the text has letters that do not belong there")]
    Letters,
    /// Some of it is wrong or missing.
    #[error("the text was damaged or cut off on its way: the checksum is wrong")]
    Checksum,
    /// The bytes make no sense, or have another version.
    #[error("the content is damaged or of another version")]
    Content,
}

impl PubRendezvousInfo {
    /// Addresses beyond the sixteenth are left out, since no peer would try them.
    pub(crate) fn new(mut endpoints: Vec<MappedSocketAddr>, public_key: [u8; 32]) -> Self {
        endpoints.truncate(MAX_ENDPOINTS);
        Self { endpoints, public_key }
    }

    /// The peer's addresses.
    #[must_use]
    pub fn endpoints(&self) -> &[MappedSocketAddr] {
        &self.endpoints
    }

    /// The same with other addresses, such as when more are known than those it was made with. The peer must use the keys of
    /// the first that it was told, for they are made of the addresses as well.
    #[must_use]
    pub fn with_endpoints(&self, endpoints: Vec<MappedSocketAddr>) -> Self {
        Self::new(endpoints, self.public_key)
    }

    /// Whether it was made for the same meeting.
    #[must_use]
    pub fn is_same_meeting(&self, other: &Self) -> bool {
        self.public_key == other.public_key
    }

    pub(crate) const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// The byte form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.public_key);
        bytes.push(u8::try_from(self.endpoints.len()).expect("at most MAX_ENDPOINTS"));
        for endpoint in &self.endpoints {
            encode(endpoint, &mut bytes);
        }
        bytes
    }

    /// Reads the byte form.
    ///
    /// # Errors
    ///
    /// [`ParseInfoError::Content`] if it is none, or has more than 16 addresses.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseInfoError> {
        Self::decode(bytes).ok_or(ParseInfoError::Content)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_first_chunk::<{ 1 + 32 + 1 }>()?;
        let count = usize::from(head[33]);
        if head[0] != VERSION || count > MAX_ENDPOINTS {
            return None;
        }
        let public_key = head[1..33].try_into().ok()?;
        let endpoints = (0..count).map(|_| decode(&mut rest)).collect::<Option<Vec<_>>>()?;
        rest.is_empty().then_some(Self { endpoints, public_key })
    }
}

impl fmt::Display for PubRendezvousInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.to_bytes();
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for PubRendezvousInfo {
    type Err = ParseInfoError;

    /// Reads the text. White space in it, as mail programs add it, and its case do not matter.
    fn from_str(text: &str) -> Result<Self, ParseInfoError> {
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let text = text.to_ascii_uppercase();
        let letters = text.strip_prefix(&PREFIX.to_ascii_uppercase()).ok_or(ParseInfoError::Prefix)?;
        if !letters.bytes().all(|letter| is_letter(&BASE32_NOPAD.specification(), letter)) {
            return Err(ParseInfoError::Letters);
        }
        // Letters that are right and a length that is not: some are missing.
        let bytes = BASE32_NOPAD.decode(letters.as_bytes()).map_err(|_| ParseInfoError::Checksum)?;
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(ParseInfoError::Checksum)?;
        if checksum(content) != *sum {
            return Err(ParseInfoError::Checksum);
        }
        Self::from_bytes(content)
    }
}

fn is_letter(base: &Specification, letter: u8) -> bool {
    base.symbols.as_bytes().contains(&letter)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    digest::digest(&digest::SHA256, bytes).as_ref()[..CHECKSUM_BYTES].try_into().expect("a part of 32 bytes")
}

fn encode(endpoint: &MappedSocketAddr, bytes: &mut Vec<u8>) {
    let (rule, step) = match endpoint.ports {
        PortRule::Stable => (0, None),
        PortRule::Sequential(step) => (1, Some(step)),
        PortRule::Random => (2, None),
        PortRule::Unknown => (3, None),
    };
    let kind = match endpoint.kind {
        AddrKind::Host => 0,
        AddrKind::PortMapped => 1,
        AddrKind::Reflexive => 2,
        AddrKind::Relayed => 3,
    };
    let v6 = u8::from(endpoint.addr.is_ipv6());
    bytes.push(kind | u8::from(endpoint.nat_restricted) << 2 | v6 << 3 | rule << 4);
    bytes.extend(step.iter().flat_map(|step: &i16| step.to_be_bytes()));
    match endpoint.addr.ip() {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
    bytes.extend(endpoint.addr.port().to_be_bytes());
}

/// Takes one address off the front of `rest`.
fn decode(rest: &mut &[u8]) -> Option<MappedSocketAddr> {
    let [flags] = take(rest)?;
    let kind = match flags & 0b11 {
        0 => AddrKind::Host,
        1 => AddrKind::PortMapped,
        2 => AddrKind::Reflexive,
        _ => AddrKind::Relayed,
    };
    let ports = match flags >> 4 {
        0 => PortRule::Stable,
        1 => PortRule::Sequential(i16::from_be_bytes(take(rest)?)),
        2 => PortRule::Random,
        3 => PortRule::Unknown,
        _ => return None,
    };
    let ip =
        if flags & 0b1000 == 0 { IpAddr::from(take::<4>(rest)?) } else { IpAddr::from(take::<16>(rest)?) };
    let port = u16::from_be_bytes(take(rest)?);
    Some(MappedSocketAddr {
        addr: SocketAddr::new(ip, port),
        kind,
        nat_restricted: flags & 0b100 != 0,
        ports,
    })
}

fn take<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

const PREFIX: &str = "nat1";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// As many as a peer tries. The text is then at most 603 letters long.
const MAX_ENDPOINTS: usize = 16;

#[cfg(test)]
mod tests;
