//! NAT Port Mapping Protocol, [RFC 6886](https://www.rfc-editor.org/rfc/rfc6886), which knows IPv4 only:
//!
//! ```text
//! address:  | 0 (8) | 0 (8)   |
//!   answer: | 0 (8) | 128 (8) | result (16) | epoch (32) | outside address (32) |
//! map:      | 0 (8) | 1 UDP, 2 TCP (8)     | 0 (16)      | internal port (16) | outside port (16) | lifetime (32) |
//!   answer: | 0 (8) | 129, 130 (8) | result (16) | epoch (32) | internal port (16) | outside port (16) | lifetime (32) |
//! ```

use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::PortProtocol;

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// For the outside address.
    Address,
    /// For a mapping; with a lifetime of 0, for its end.
    Map {
        /// Whose port.
        protocol: PortProtocol,
        /// The client's port.
        internal_port: u16,
        /// The outside port it would like; 0 for any.
        suggested_port: u16,
        /// How long the mapping is to live.
        lifetime_s: u32,
    },
}

/// What a router says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// What became of the request.
    pub result: ResultCode,
    /// Seconds since the router began to remember mappings.
    pub epoch_s: u32,
    /// The rest of a response that tells of success.
    pub answer: Option<Answer>,
}

/// What a successful response tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The outside address.
    Address(Ipv4Addr),
    /// A mapping.
    Map {
        /// Whose port.
        protocol: PortProtocol,
        /// The client's port.
        internal_port: u16,
        /// The outside port.
        external_port: u16,
        /// How long the mapping lives.
        lifetime_s: u32,
    },
}

/// What became of a request ([RFC 6886, section 3.5](https://www.rfc-editor.org/rfc/rfc6886#section-3.5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultCode(pub u16);

impl ResultCode {
    /// It worked.
    pub const SUCCESS: Self = Self(0);

    /// The router knows only other versions.
    pub const UNSUPPORTED_VERSION: Self = Self(1);

    /// What the code means.
    #[must_use]
    pub fn reason(self) -> Cow<'static, str> {
        Cow::Borrowed(match self.0 {
            0 => "success",
            1 => "it speaks another version",
            2 => "not authorized",
            3 => "it has no outside address itself",
            4 => "it has no room for more",
            5 => "it does not map ports",
            code => return Cow::Owned(format!("error {code}")),
        })
    }
}

impl Request {
    /// The request as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Self::Address => vec![VERSION, OPCODE_ADDRESS],
            Self::Map { protocol, internal_port, suggested_port, lifetime_s } => {
                let mut bytes = vec![VERSION, opcode(protocol), 0, 0];
                bytes.extend(internal_port.to_be_bytes());
                bytes.extend(suggested_port.to_be_bytes());
                bytes.extend(lifetime_s.to_be_bytes());
                bytes
            }
        }
    }

    /// Reads a request, as a router does. `None` if it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [VERSION, OPCODE_ADDRESS, ..] => Some(Self::Address),
            [VERSION, code, _, _, a, b, c, d, e, f, g, h, ..] => Some(Self::Map {
                protocol: protocol(*code)?,
                internal_port: u16::from_be_bytes([*a, *b]),
                suggested_port: u16::from_be_bytes([*c, *d]),
                lifetime_s: u32::from_be_bytes([*e, *f, *g, *h]),
            }),
            _ => None,
        }
    }
}

impl Response {
    /// Reads what a router sent. `None` if it is no response of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [VERSION, code, r, s, a, b, c, d, rest @ ..] = bytes else { return None };
        let code = code.checked_sub(RESPONSE_BIT)?;
        let result = ResultCode(u16::from_be_bytes([*r, *s]));
        let answer = match (code, rest) {
            _ if result != ResultCode::SUCCESS => None,
            (OPCODE_ADDRESS, [a, b, c, d]) => Some(Answer::Address(Ipv4Addr::new(*a, *b, *c, *d))),
            (_, [a, b, c, d, e, f, g, h]) => Some(Answer::Map {
                protocol: protocol(code)?,
                internal_port: u16::from_be_bytes([*a, *b]),
                external_port: u16::from_be_bytes([*c, *d]),
                lifetime_s: u32::from_be_bytes([*e, *f, *g, *h]),
            }),
            _ => return None,
        };
        Some(Self { result, epoch_s: u32::from_be_bytes([*a, *b, *c, *d]), answer })
    }

    /// The response as bytes, as a router sends it; an error is about `request`.
    #[must_use]
    pub fn encode(&self, request: Request) -> Vec<u8> {
        let code = match request {
            Request::Address => OPCODE_ADDRESS,
            Request::Map { protocol, .. } => opcode(protocol),
        };
        let mut bytes = vec![VERSION, code | RESPONSE_BIT];
        bytes.extend(self.result.0.to_be_bytes());
        bytes.extend(self.epoch_s.to_be_bytes());
        match self.answer {
            None => {}
            Some(Answer::Address(ip)) => bytes.extend(ip.octets()),
            Some(Answer::Map { internal_port, external_port, lifetime_s, .. }) => {
                bytes.extend(internal_port.to_be_bytes());
                bytes.extend(external_port.to_be_bytes());
                bytes.extend(lifetime_s.to_be_bytes());
            }
        }
        bytes
    }
}

const fn opcode(protocol: PortProtocol) -> u8 {
    match protocol {
        PortProtocol::Udp => 1,
        PortProtocol::Tcp => 2,
    }
}

const fn protocol(opcode: u8) -> Option<PortProtocol> {
    match opcode {
        1 => Some(PortProtocol::Udp),
        2 => Some(PortProtocol::Tcp),
        _ => None,
    }
}

const VERSION: u8 = 0;
const OPCODE_ADDRESS: u8 = 0;
const RESPONSE_BIT: u8 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_have_the_layout_of_the_rfc() {
        let map = Request::Map {
            protocol: PortProtocol::Tcp,
            internal_port: 4000,
            suggested_port: 4001,
            lifetime_s: 7200,
        };
        for (request, bytes) in
            [(Request::Address, &[0, 0][..]), (map, &[0, 2, 0, 0, 0x0F, 0xA0, 0x0F, 0xA1, 0, 0, 0x1C, 0x20])]
        {
            assert_eq!(request.encode(), bytes);
            assert_eq!(Request::decode(bytes), Some(request));
        }
    }

    #[test]
    fn the_answer_of_an_old_router_to_a_newer_version_is_read() {
        // RFC 6887, appendix A: the opcode is the one of the request, whatever it meant.
        let refusal = Response::decode(&[0, 129, 0, 1, 0, 0, 0, 7]).unwrap();
        assert_eq!((refusal.result, refusal.answer), (ResultCode::UNSUPPORTED_VERSION, None));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_alike(result: u16, epoch_s: u32, ip: Ipv4Addr, ports: [u16; 2], lifetime_s: u32) {
            let map = Request::Map {
                protocol: PortProtocol::Udp, internal_port: ports[0], suggested_port: ports[1], lifetime_s,
            };
            let mapped = Answer::Map {
                protocol: PortProtocol::Udp, internal_port: ports[0], external_port: ports[1], lifetime_s,
            };
            for (request, answer) in [(Request::Address, Answer::Address(ip)), (map, mapped)] {
                let answer = (result == 0).then_some(answer);
                let response = Response { result: ResultCode(result), epoch_s, answer };
                prop_assert_eq!(Response::decode(&response.encode(request)), Some(response));
            }
        }

        #[test]
        fn no_bytes_break_the_decoders(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = (Response::decode(&bytes), Request::decode(&bytes));
        }
    }
}
