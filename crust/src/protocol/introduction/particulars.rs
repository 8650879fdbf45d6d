//! What a sealed message says.
//!
//! ```text
//! | version = 1 (1) | records: type (1), length (2), value |
//!
//!   type 0: padding            ignored
//!   type 1: rendezvous         what `transport` needs of the peer to meet it, in a form of its own
//!   type 2: endpoint, IPv4     scheme (1), address (4), port (2)
//!   type 3: endpoint, IPv6     scheme (1), address (16), port (2)
//!   type 4: protocol label     UTF-8, at most 64 bytes
//!   type 5: refusal            a code of the verdict's table (1)
//! ```
//!
//! Records of other types and endpoints of other schemes are ignored. Padding makes all sealed messages of an introduction
//! equally long, unless they hold very many addresses, so that the introducer cannot tell them apart by length.

use std::net::SocketAddr;

use transport::{Endpoint, ProtocolLabel, PublicKey, Scheme};

use super::Flaw;
use crate::protocol::contact_wire::{scheme_code, scheme_of};

/// Where a peer is and what it wants, or why it does not want.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Particulars {
    /// For punching: both sides give one.
    pub(crate) rendezvous: Option<Vec<u8>>,
    /// Where its listeners may be reached straight.
    pub(crate) endpoints: Vec<(Scheme, SocketAddr)>,
    /// What the dialer's stream is for.
    pub(crate) label: ProtocolLabel,
    /// The receiver does not want, for a reason of the verdict's table.
    pub(crate) refusal: Option<u8>,
}

impl Particulars {
    /// A refusal and nothing else.
    pub(crate) fn refused(code: u8) -> Self {
        Self { refusal: Some(code), ..Self::default() }
    }

    /// The endpoints as those of `peer`.
    pub(crate) fn endpoints_of(&self, peer: PublicKey) -> impl Iterator<Item = Endpoint> {
        self.endpoints.iter().map(move |&(scheme, addr)| Endpoint::new(scheme, addr, peer))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        if let Some(info) = &self.rendezvous {
            push(&mut bytes, RENDEZVOUS, info);
        }
        for (scheme, addr) in self.endpoints.iter().take(MAX_ENDPOINTS) {
            let mut value = vec![scheme_code(*scheme)];
            let kind = match addr {
                SocketAddr::V4(addr) => {
                    value.extend(addr.ip().octets());
                    ENDPOINT_V4
                }
                SocketAddr::V6(addr) => {
                    value.extend(addr.ip().octets());
                    ENDPOINT_V6
                }
            };
            value.extend(addr.port().to_be_bytes());
            push(&mut bytes, kind, &value);
        }
        if self.label != ProtocolLabel::default() {
            push(&mut bytes, LABEL, self.label.as_str().as_bytes());
        }
        if let Some(code) = self.refusal {
            push(&mut bytes, REFUSAL, &[code]);
        }
        if let Some(missing @ 3..) = PADDED_BYTES.checked_sub(bytes.len()) {
            push(&mut bytes, PADDING, &vec![0; missing - 3]);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Flaw> {
        let (&version, rest) = bytes.split_first().ok_or(Flaw::Malformed)?;
        if version != VERSION {
            return Err(Flaw::Version { found: version });
        }
        let mut found = Self::default();
        for record in records(rest) {
            let (kind, value) = record?;
            match kind {
                RENDEZVOUS => {
                    found.rendezvous = Some(value.to_vec());
                }
                ENDPOINT_V4 | ENDPOINT_V6 => found.add_endpoint(kind, value)?,
                LABEL => {
                    let text = std::str::from_utf8(value).map_err(|_| Flaw::Malformed)?;
                    found.label = ProtocolLabel::new(text).map_err(|_| Flaw::Malformed)?;
                }
                REFUSAL => found.refusal = Some(*value.first().ok_or(Flaw::Malformed)?),
                _ => {}
            }
        }
        Ok(found)
    }

    fn add_endpoint(&mut self, kind: u8, value: &[u8]) -> Result<(), Flaw> {
        let (&[scheme], rest) = value.split_first_chunk::<1>().ok_or(Flaw::Malformed)?;
        let (address, port) = rest.split_last_chunk::<2>().ok_or(Flaw::Malformed)?;
        let port = u16::from_be_bytes(*port);
        let addr = if kind == ENDPOINT_V4 {
            <[u8; 4]>::try_from(address).ok().map(|octets| SocketAddr::from((octets, port)))
        } else {
            <[u8; 16]>::try_from(address).ok().map(|octets| SocketAddr::from((octets, port)))
        };
        let addr = addr.filter(|_| port != 0).ok_or(Flaw::Malformed)?;
        if self.endpoints.len() == MAX_ENDPOINTS {
            return Err(Flaw::Malformed);
        }
        if let Some(scheme) = scheme_of(scheme) {
            self.endpoints.push((scheme, addr));
        }
        Ok(())
    }
}

/// The records of a message, in order.
pub(super) fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), Flaw>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let record = bytes.split_first_chunk::<3>().and_then(|(&[kind, high, low], rest)| {
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
            bytes = rest;
            Some((kind, value))
        });
        if record.is_none() {
            bytes = &[];
        }
        Some(record.ok_or(Flaw::Malformed))
    })
}

fn push(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    bytes.push(kind);
    let length = u16::try_from(value.len()).expect("the longest record has a few hundred bytes");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
}

const VERSION: u8 = 1;
const PADDING: u8 = 0;
const RENDEZVOUS: u8 = 1;
const ENDPOINT_V4: u8 = 2;
const ENDPOINT_V6: u8 = 3;
const LABEL: u8 = 4;
const REFUSAL: u8 = 5;
/// What a host with several addresses needs, sixteen of IPv6 apart.
const PADDED_BYTES: usize = 512;
/// As many as a contact holds.
const MAX_ENDPOINTS: usize = 16;
