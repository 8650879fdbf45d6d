//! Port Control Protocol, [RFC 6887](https://www.rfc-editor.org/rfc/rfc6887):
//!
//! ```text
//! request:  | 2 (8) | 0, opcode (1+7) | 0 (16)             | lifetime (32) | client's address (128)  |
//! response: | 2 (8) | 1, opcode (1+7) | 0 (8) | result (8) | lifetime (32) | epoch (32) | 0 (96)     |
//! MAP:      | nonce (96) | protocol (8) | 0 (24) | internal port (16) | external port (16) | external address (128) |
//! ```
//!
//! Addresses are IPv6 ones, IPv4 as `::ffff:a.b.c.d`. Opcode 0 is ANNOUNCE, which is a header alone, 1 is MAP.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::PortProtocol;
use crate::protocol::Random;

/// A request for a mapping; with a lifetime of 0, for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapRequest {
    /// The client's address as it knows it.
    pub client: IpAddr,
    /// How long the mapping is to live.
    pub lifetime_s: u32,
    /// Ties a mapping to its owner: who does not know it cannot change the mapping.
    pub nonce: Nonce,
    /// Whose port.
    pub protocol: PortProtocol,
    /// The client's port.
    pub internal_port: u16,
    /// The outside address that the client would like; port 0 and the unspecified address for any.
    pub suggested: SocketAddr,
}

/// Twelve bytes that only the owner of a mapping and the router know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 12]);

impl Nonce {
    /// Draws a fresh one.
    pub fn draw(random: &mut Random) -> Self {
        Self(random.bytes())
    }
}

impl std::fmt::Debug for Nonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonce(..)")
    }
}

/// What a router says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// What became of the request.
    pub result: ResultCode,
    /// How long the mapping lives, or how long an error will last.
    pub lifetime_s: u32,
    /// Seconds since the router began to remember mappings.
    pub epoch_s: u32,
    /// What it is about.
    pub opcode: Opcode,
}

/// What a response is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The router lives.
    Announce,
    /// A mapping.
    Map {
        /// Its owner.
        nonce: Nonce,
        /// Whose port, as a number: a router may answer to somebody else's question.
        protocol: u8,
        /// The client's port.
        internal_port: u16,
        /// The outside address.
        external: SocketAddr,
    },
}

/// What became of a request ([RFC 6887, section 7.4](https://www.rfc-editor.org/rfc/rfc6887#section-7.4)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultCode(pub u8);

#[allow(missing_docs, reason = "the RFC's names are the documentation")]
impl ResultCode {
    pub const SUCCESS: Self = Self(0);
    pub const UNSUPP_VERSION: Self = Self(1);
    pub const NOT_AUTHORIZED: Self = Self(2);
    pub const UNSUPP_OPCODE: Self = Self(4);
    pub const NO_RESOURCES: Self = Self(8);
    pub const USER_EX_QUOTA: Self = Self(10);
    pub const ADDRESS_MISMATCH: Self = Self(12);
}

impl ResultCode {
    /// What the code means.
    #[must_use]
    pub fn reason(self) -> Cow<'static, str> {
        Cow::Borrowed(match self.0 {
            0 => "success",
            1 => "it speaks another version",
            2 => "not authorized",
            3 => "it calls our request malformed",
            4 => "it does not map ports",
            5 => "it does not know an option",
            6 => "it calls an option malformed",
            7 => "its own network fails",
            8 => "it has no room for more",
            9 => "it does not map this protocol",
            10 => "we have as many ports as one host may have",
            11 => "it cannot give that outside address",
            12 => "a second NAT is between it and us",
            13 => "too many remote peers",
            code => return Cow::Owned(format!("error {code}")),
        })
    }
}

impl MapRequest {
    /// The request as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = header(OPCODE_MAP, self.client);
        bytes[4..8].copy_from_slice(&self.lifetime_s.to_be_bytes());
        bytes.extend(map_fields(self.nonce, self.protocol.number(), self.internal_port, self.suggested));
        bytes
    }

    /// Reads a request, as a router does. `None` if it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES + MAP_BYTES || bytes[0] != VERSION || bytes[1] != OPCODE_MAP {
            return None;
        }
        let (nonce, protocol, internal_port, suggested) = read_map_fields(&bytes[HEADER_BYTES..])?;
        let protocol = match protocol {
            17 => PortProtocol::Udp,
            6 => PortProtocol::Tcp,
            _ => return None,
        };
        let client = read_address(&bytes[8..24])?;
        Some(Self { client, lifetime_s: read_u32(&bytes[4..8]), nonce, protocol, internal_port, suggested })
    }
}

/// A question whether the router lives, and since when.
#[must_use]
pub fn announce_request(client: IpAddr) -> Vec<u8> {
    header(OPCODE_ANNOUNCE, client)
}

/// Whether these are the bytes of an [`announce_request`].
#[must_use]
pub fn is_announce_request(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES && bytes[0] == VERSION && bytes[1] == OPCODE_ANNOUNCE
}

impl Response {
    /// Reads what a router sent. `None` if it is no response of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let fits = (HEADER_BYTES..=MAX_BYTES).contains(&bytes.len()) && bytes.len().is_multiple_of(4);
        if !fits || bytes[0] != VERSION || bytes[1] & RESPONSE_BIT == 0 {
            return None;
        }
        let opcode = match bytes[1] & !RESPONSE_BIT {
            OPCODE_ANNOUNCE => Opcode::Announce,
            OPCODE_MAP => {
                let (nonce, protocol, internal_port, external) = read_map_fields(&bytes[HEADER_BYTES..])?;
                Opcode::Map { nonce, protocol, internal_port, external }
            }
            _ => return None,
        };
        Some(Self {
            result: ResultCode(bytes[3]),
            lifetime_s: read_u32(&bytes[4..8]),
            epoch_s: read_u32(&bytes[8..12]),
            opcode,
        })
    }

    /// The response as bytes, as a router sends it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[3] = self.result.0;
        bytes[4..8].copy_from_slice(&self.lifetime_s.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.epoch_s.to_be_bytes());
        match self.opcode {
            Opcode::Announce => bytes[1] = RESPONSE_BIT | OPCODE_ANNOUNCE,
            Opcode::Map { nonce, protocol, internal_port, external } => {
                bytes[1] = RESPONSE_BIT | OPCODE_MAP;
                bytes.extend(map_fields(nonce, protocol, internal_port, external));
            }
        }
        bytes
    }
}

fn header(opcode: u8, client: IpAddr) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0] = VERSION;
    bytes[1] = opcode;
    bytes[8..24].copy_from_slice(&octets(client));
    bytes
}

fn map_fields(nonce: Nonce, protocol: u8, internal_port: u16, external: SocketAddr) -> Vec<u8> {
    let mut bytes = nonce.0.to_vec();
    bytes.extend([protocol, 0, 0, 0]);
    bytes.extend(internal_port.to_be_bytes());
    bytes.extend(external.port().to_be_bytes());
    bytes.extend(octets(external.ip()));
    bytes
}

fn read_map_fields(bytes: &[u8]) -> Option<(Nonce, u8, u16, SocketAddr)> {
    let fields = bytes.get(..MAP_BYTES)?;
    let nonce = Nonce(fields[..12].try_into().ok()?);
    let port = |at: usize| u16::from_be_bytes([fields[at], fields[at + 1]]);
    Some((nonce, fields[12], port(16), SocketAddr::new(read_address(&fields[20..36])?, port(18))))
}

/// IPv4 addresses are written as IPv6 ones; the unspecified one stays what it is in its family.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(Ipv6Addr::from(octets).to_canonical())
}

fn read_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

const VERSION: u8 = 2;
const OPCODE_ANNOUNCE: u8 = 0;
const OPCODE_MAP: u8 = 1;
const RESPONSE_BIT: u8 = 0x80;
const HEADER_BYTES: usize = 24;
const MAP_BYTES: usize = 36;

/// RFC 6887, section 7: longer messages are not PCP.
const MAX_BYTES: usize = 1_100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_the_layout_of_the_rfc() {
        let request = MapRequest {
            client: "192.168.1.11".parse().unwrap(),
            lifetime_s: 7200,
            nonce: Nonce([9; 12]),
            protocol: PortProtocol::Udp,
            internal_port: 4000,
            suggested: "0.0.0.0:4000".parse().unwrap(),
        };
        let bytes = request.encode();
        let expected = [
            "02010000 00001c20 00000000000000000000ffffc0a8010b",
            "090909090909090909090909 11000000 0fa0 0fa0 00000000000000000000ffff00000000",
        ];
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.concat().replace(' ', ""));
        assert_eq!(MapRequest::decode(&bytes), Some(request));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_alike(
            result: u8, lifetime_s: u32, epoch_s: u32, nonce: [u8; 12], protocol: u8, port: u16, external: SocketAddr,
        ) {
            let external = SocketAddr::new(external.ip().to_canonical(), external.port());
            let opcode = Opcode::Map { nonce: Nonce(nonce), protocol, internal_port: port, external };
            for opcode in [opcode, Opcode::Announce] {
                let response = Response { result: ResultCode(result), lifetime_s, epoch_s, opcode };
                prop_assert_eq!(Response::decode(&response.encode()), Some(response));
            }
        }

        #[test]
        fn no_bytes_break_the_decoders(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Response::decode(&bytes), MapRequest::decode(&bytes));
        }
    }
}
