//! The byte and text form of a [`Contact`].
//!
//! ```text
//!  0         1                33
//! +---------+----------------+-------------------------------+----------+
//! | version | public key     | records until the checksum    | checksum |
//! | 1 byte  | 32 bytes       |                               | 4 bytes  |
//! +---------+----------------+-------------------------------+----------+
//!
//! record:   | type, 1 byte | length, 2 bytes | value |
//!
//!   type 1: endpoint, IPv4    scheme (1 byte), address (4), port (2)
//!   type 2: endpoint, IPv6    scheme (1 byte), address (16), port (2)
//!   type 3: endpoint by name  scheme (1 byte), port (2), name (ASCII)
//!   type 4: access token      16 bytes
//!   type 6: introducer        its key (32), its STUN port or 0 (2), the type of what follows (1), an endpoint as above
//! ```
//!
//! Numbers are in network order; scheme 0 is QUIC, 1 is TCP. Records of an unknown type and endpoints of an unknown
//! scheme are ignored. The checksum is the front of SHA-256 over all before it: it finds typing errors and protects
//! nothing. The text is `crust1` and the bytes in base32 (RFC 4648 §6) in lower case without padding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use data_encoding::BASE32_NOPAD;
use ring::digest::{SHA256, digest};
use transport::{AccessToken, Endpoint, NamedEndpoint, PublicKey, Scheme};

use crate::{
    Introducer,
    contact::{Contact, ParseContactError},
};

pub(crate) fn to_text(contact: &Contact) -> String {
    let mut text = String::with_capacity(MAX_TEXT_BYTES);
    text.push_str(PREFIX);
    text.push_str(&BASE32_NOPAD.encode(&encode(contact)).to_ascii_lowercase());
    text
}

pub(crate) fn from_text(text: &str) -> Result<Contact, ParseContactError> {
    let text = text.trim();
    if text.len() > MAX_TEXT_BYTES {
        return Err(ParseContactError::TooLong { length: text.len() });
    }
    let Some((prefix, rest)) = text.split_at_checked(PREFIX.len()) else {
        return Err(ParseContactError::Form);
    };
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return Err(ParseContactError::Form);
    }
    let bytes =
        BASE32_NOPAD.decode(rest.to_ascii_uppercase().as_bytes()).map_err(|_| ParseContactError::Damaged)?;
    decode(&bytes)
}

pub(crate) fn encode(contact: &Contact) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(contact.public_key().as_bytes());
    for endpoint in contact.endpoints() {
        push_endpoint(&mut bytes, endpoint);
    }
    for introducer in contact.introducers() {
        for endpoint in introducer.endpoints() {
            push_introducer(&mut bytes, introducer, endpoint);
        }
    }
    if let Some(token) = contact.token() {
        push_record(&mut bytes, TOKEN, &[token.as_bytes()]);
    }
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

fn push_endpoint(bytes: &mut Vec<u8>, endpoint: &NamedEndpoint) {
    let scheme = [scheme_code(endpoint.scheme())];
    let port = endpoint.port().to_be_bytes();
    match address_of(endpoint.host()) {
        Some(IpAddr::V4(address)) => push_record(bytes, ENDPOINT_V4, &[&scheme, &address.octets(), &port]),
        Some(IpAddr::V6(address)) => push_record(bytes, ENDPOINT_V6, &[&scheme, &address.octets(), &port]),
        None => push_record(bytes, ENDPOINT_NAMED, &[&scheme, &port, endpoint.host().as_bytes()]),
    }
}

fn push_introducer(bytes: &mut Vec<u8>, introducer: &Introducer, endpoint: &NamedEndpoint) {
    let mut inner = Vec::new();
    push_endpoint(&mut inner, endpoint);
    // What was written has a type, a length, which that of the whole gives, and a value.
    let (head, value) = inner.split_first_chunk::<3>().expect("a record has three bytes at least");
    let port = introducer.stun_port.unwrap_or_default().to_be_bytes();
    push_record(bytes, INTRODUCER, &[introducer.key().as_bytes(), &port, &head[..1], value]);
}

/// The address that a host is, without its scope.
fn address_of(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.split('%').next()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

pub(super) fn push_record(bytes: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    bytes.push(kind);
    bytes.extend_from_slice(
        &u16::try_from(length).expect("an endpoint's text has at most 512 bytes").to_be_bytes(),
    );
    for part in parts {
        bytes.extend_from_slice(part);
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Contact, ParseContactError> {
    let (covered, found) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(ParseContactError::Damaged)?;
    if checksum(covered) != *found {
        return Err(ParseContactError::Damaged);
    }
    let (&version, rest) = covered.split_first().ok_or(ParseContactError::Damaged)?;
    if version != VERSION {
        return Err(ParseContactError::Version { found: version, known: VERSION });
    }
    let (key, mut rest) =
        rest.split_first_chunk::<32>().ok_or(ParseContactError::Content { reason: "no key" })?;
    let mut contact = Contact::new(PublicKey::from_bytes(*key));
    while !rest.is_empty() {
        let (kind, value);
        (kind, value, rest) = next_record(rest).ok_or(CUT_SHORT)?;
        contact = add_record(contact, kind, value)?;
    }
    Ok(contact)
}

pub(super) fn next_record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    Some((kind, value, rest))
}

fn add_record(contact: Contact, kind: u8, value: &[u8]) -> Result<Contact, ParseContactError> {
    let endpoint = match kind {
        ENDPOINT_V4 | ENDPOINT_V6 => addressed(contact.public_key(), kind, value)?,
        ENDPOINT_NAMED => named(contact.public_key(), value)?,
        TOKEN => {
            let token = value
                .try_into()
                .map_err(|_| ParseContactError::Content { reason: "a token has 16 bytes" })?;
            return Ok(contact.access_token(AccessToken::from_bytes(token)));
        }
        INTRODUCER => return add_introducer(contact, value),
        _ => None,
    };
    let Some(endpoint) = endpoint else { return Ok(contact) };
    contact.endpoint(endpoint).map_err(|_| ParseContactError::Content { reason: "too many endpoints" })
}

fn add_introducer(contact: Contact, value: &[u8]) -> Result<Contact, ParseContactError> {
    let (key, rest) = value.split_first_chunk::<32>().ok_or(CUT_SHORT)?;
    let (&[high, low, kind], value) = rest.split_first_chunk::<3>().ok_or(CUT_SHORT)?;
    let key = PublicKey::from_bytes(*key);
    let endpoint = match kind {
        ENDPOINT_V4 | ENDPOINT_V6 => addressed(key, kind, value)?,
        ENDPOINT_NAMED => named(key, value)?,
        _ => None,
    };
    let Some(endpoint) = endpoint else { return Ok(contact) };
    let introducer = Introducer::new(endpoint).stun_port(u16::from_be_bytes([high, low]));
    contact.introducer(introducer).map_err(|_| ParseContactError::Content { reason: "too many introducers" })
}

fn addressed(key: PublicKey, kind: u8, value: &[u8]) -> Result<Option<NamedEndpoint>, ParseContactError> {
    let (&[scheme], rest) = value.split_first_chunk::<1>().ok_or(CUT_SHORT)?;
    let (address, port) = rest.split_last_chunk::<2>().ok_or(CUT_SHORT)?;
    let port = u16::from_be_bytes(*port);
    let addr = if kind == ENDPOINT_V4 {
        <[u8; 4]>::try_from(address).ok().map(|octets| SocketAddr::from((octets, port)))
    } else {
        <[u8; 16]>::try_from(address).ok().map(|octets| SocketAddr::from((octets, port)))
    };
    let addr = addr.ok_or(ParseContactError::Content { reason: "an address of a wrong length" })?;
    if port == 0 {
        return Err(ParseContactError::Content { reason: "an endpoint with port 0" });
    }
    Ok(scheme_of(scheme).map(|scheme| Endpoint::new(scheme, addr, key).into()))
}

fn named(key: PublicKey, value: &[u8]) -> Result<Option<NamedEndpoint>, ParseContactError> {
    let (&[scheme, high, low], host) = value.split_first_chunk::<3>().ok_or(CUT_SHORT)?;
    let Some(scheme) = scheme_of(scheme) else { return Ok(None) };
    let host = std::str::from_utf8(host).map_err(|_| BAD_HOST)?;
    // A host that is an address belongs into the other records; two forms of one contact would not compare equal.
    if address_of(host).is_some() {
        return Err(BAD_HOST);
    }
    let port = u16::from_be_bytes([high, low]);
    format!("{scheme}://{host}:{port}?pubkey={key}").parse().map(Some).map_err(|_| BAD_HOST)
}

pub(super) fn scheme_code(scheme: Scheme) -> u8 {
    match scheme {
        Scheme::Quic => 0,
        Scheme::Tcp => 1,
        _ => u8::MAX,
    }
}

pub(super) fn scheme_of(code: u8) -> Option<Scheme> {
    match code {
        0 => Some(Scheme::Quic),
        1 => Some(Scheme::Tcp),
        _ => None,
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = digest(&SHA256, bytes);
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

const PREFIX: &str = "crust1";
const VERSION: u8 = 1;
/// One wrong contact in four billion passes unnoticed, and the peer's key then is still proved in the handshake.
const CHECKSUM_BYTES: usize = 4;
/// Room for sixteen addresses, or a few names, a token, and records of later versions.
pub(crate) const MAX_BYTES: usize = 640;
/// Five bits a character.
pub(crate) const MAX_TEXT_BYTES: usize = PREFIX.len() + MAX_BYTES * 8 / 5;
pub(super) const ENDPOINT_V4: u8 = 1;
pub(super) const ENDPOINT_V6: u8 = 2;
const ENDPOINT_NAMED: u8 = 3;
const TOKEN: u8 = 4;
/// Type 5 is one of beacons.
const INTRODUCER: u8 = 6;
const CUT_SHORT: ParseContactError = ParseContactError::Content { reason: "a record is cut short" };
const BAD_HOST: ParseContactError = ParseContactError::Content { reason: "a host name that is none" };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use transport::Identity;

    use super::*;

    fn golden() -> (Contact, Vec<u8>) {
        let key = PublicKey::from_bytes([3; 32]);
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let contact = Contact::new(key)
            .endpoint(Endpoint::new(Scheme::Quic, at("192.0.2.1:345"), key))
            .and_then(|contact| contact.endpoint(Endpoint::new(Scheme::Tcp, at("[2001:db8::1]:2"), key)))
            .and_then(|contact| {
                contact.endpoint(format!("tcp://a.test:3?pubkey={key}").parse::<NamedEndpoint>().unwrap())
            })
            .unwrap()
            .access_token(AccessToken::from_bytes([9; 16]));
        let mut bytes = vec![1];
        bytes.extend([3; 32]);
        bytes.extend(b"\x01\x00\x07\x00\xc0\x00\x02\x01\x01\x59");
        bytes.extend(b"\x02\x00\x13\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x02");
        bytes.extend(b"\x03\x00\x09\x01\x00\x03a.test");
        bytes.extend(b"\x04\x00\x10");
        bytes.extend([9; 16]);
        (contact, bytes)
    }

    fn text_of(mut bytes: Vec<u8>) -> String {
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        format!("crust1{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    #[test]
    fn the_golden_bytes_read_and_write() {
        let (contact, bytes) = golden();
        assert_eq!(encode(&contact)[..bytes.len()], bytes);
        assert_eq!(from_text(&text_of(bytes)), Ok(contact));
    }

    #[test]
    fn introducers_read_and_write() {
        let (contact, mut bytes) = golden();
        let other = PublicKey::from_bytes([5; 32]);
        let by = |text: &str| format!("{text}?pubkey={other}").parse::<NamedEndpoint>().unwrap();
        let with = contact
            .introducer(Introducer::new(by("quic://192.0.2.9:7")).stun_port(3478))
            .and_then(|contact| contact.introducer(Introducer::new(by("tcp://b.test:8"))))
            .unwrap();
        assert_eq!((with.introducers().len(), with.introducers()[0].endpoints().len()), (1, 2));
        assert_eq!(from_text(&to_text(&with)), Ok(with));
        bytes.extend(b"\x06\x00\x2a");
        bytes.extend([5; 32]);
        bytes.extend(b"\x0d\x96\x01\x00\xc0\x00\x02\x09\x00\x07");
        let read = from_text(&text_of(bytes.clone())).unwrap();
        assert_eq!(read.introducers(), [Introducer::new(by("quic://192.0.2.9:7")).stun_port(3478)]);
        bytes.extend(b"\x06\x00\x23");
        bytes.extend([5; 32]);
        bytes.extend(b"\x0d\x96\x63");
        assert_eq!(from_text(&text_of(bytes)), Ok(read), "an endpoint of a later type is ignored");
    }

    #[test]
    fn the_text_of_docs_wire_is_this_one() {
        let document = include_str!("../../../docs/wire.md");
        assert!(document.contains(&to_text(&golden().0)), "{}", to_text(&golden().0));
    }

    #[test]
    fn a_pasted_contact_may_be_in_upper_case_and_in_blanks() {
        let (contact, _) = golden();
        assert_eq!(from_text(&format!("  {}\n", to_text(&contact).to_uppercase())), Ok(contact));
    }

    #[test]
    fn records_and_schemes_of_later_versions_are_ignored() {
        let (contact, mut bytes) = golden();
        bytes.extend(b"\xee\x00\x03abc");
        bytes.extend(b"\x01\x00\x07\x63\xc0\x00\x02\x01\x01\x59");
        assert_eq!(from_text(&text_of(bytes)), Ok(contact));
    }

    #[test]
    fn each_wrong_character_is_noticed() {
        let text = to_text(&golden().0);
        for at in PREFIX.len()..text.len() {
            let wrong = if &text[at..=at] == "q" { "r" } else { "q" };
            let damaged = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);
            assert_eq!(from_text(&damaged), Err(ParseContactError::Damaged), "at {at}");
        }
        assert_eq!(from_text(&text[..text.len() - 1]), Err(ParseContactError::Damaged));
    }

    #[test]
    fn says_what_else_is_wrong() {
        assert_eq!(from_text("quic://x"), Err(ParseContactError::Form));
        assert_eq!(from_text(""), Err(ParseContactError::Form));
        let (_, mut bytes) = golden();
        bytes[0] = 2;
        assert_eq!(
            from_text(&text_of(bytes.clone())),
            Err(ParseContactError::Version { found: 2, known: 1 })
        );
        bytes[0] = 1;
        bytes.truncate(bytes.len() - 1);
        assert_eq!(from_text(&text_of(bytes)), Err(CUT_SHORT));
        let long = format!("crust1{}", "a".repeat(MAX_TEXT_BYTES));
        assert_eq!(from_text(&long), Err(ParseContactError::TooLong { length: long.len() }));
    }

    #[test]
    fn a_name_that_is_an_address_or_carries_a_query_is_refused() {
        for host in ["127.0.0.1", "[::1]", "a?pubkey=b", "", "a b"] {
            let mut bytes = vec![1];
            bytes.extend([3; 32]);
            push_record(&mut bytes, ENDPOINT_NAMED, &[&[1, 0, 5], host.as_bytes()]);
            assert_eq!(from_text(&text_of(bytes)), Err(BAD_HOST), "{host}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(
            seed: [u8; 32],
            v4 in proptest::collection::vec((any::<bool>(), any::<[u8; 4]>(), 1_u16..), 0..8),
            v6 in proptest::collection::vec((any::<bool>(), any::<[u8; 16]>(), 1_u16..), 0..8),
            token: Option<[u8; 16]>,
        ) {
            let key = Identity::from_seed(seed).public_key();
            let mut contact = Contact::new(key);
            let scheme = |tcp| if tcp { Scheme::Tcp } else { Scheme::Quic };
            for (tcp, ip, port) in v4 {
                contact = contact.endpoint(Endpoint::new(scheme(tcp), (ip, port).into(), key)).unwrap();
            }
            for (tcp, ip, port) in v6 {
                contact = contact.endpoint(Endpoint::new(scheme(tcp), (ip, port).into(), key)).unwrap();
            }
            if let Some(token) = token {
                contact = contact.access_token(AccessToken::from_bytes(token));
            }
            prop_assert_eq!(from_text(&to_text(&contact)), Ok(contact));
        }

        #[test]
        fn no_text_panics(text in "(crust1)?.{0,300}") {
            let _ = from_text(&text);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = from_text(&text_of(bytes));
        }
    }
}
