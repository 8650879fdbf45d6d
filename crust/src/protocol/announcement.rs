//! What a service puts into its beacon: its key, and where it listens.
//!
//! ```text
//!  0         1                33
//! +---------+----------------+------------------------+
//! | version | public key     | records until the end  |
//! | = 1     | 32 bytes       |                        |
//! +---------+----------------+------------------------+
//!
//! record:   | type, 1 byte | length, 2 bytes | value |
//!
//!   type 1: endpoint, IPv4    scheme (1 byte), address (4), port (2)
//!   type 2: endpoint, IPv6    scheme (1 byte), address (16), port (2)
//!   type 5: endpoint, here    scheme (1 byte), family (1): 4 or 6, port (2)
//! ```
//!
//! Records and schemes are those of a contact. "Here" is the address that the beacon came from: who listens on all
//! addresses need not list them, tells nothing about other networks, and need not say anew when one changes. Records of
//! an unknown type, schemes and families that are not known, and places after the sixteenth are ignored.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use transport::{Endpoint, ListenEndpoint, PublicKey, Scheme};

use super::contact_wire::{ENDPOINT_V4, ENDPOINT_V6, next_record, push_record, scheme_code, scheme_of};

/// A key, and where its holder listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    key: PublicKey,
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    At(Scheme, SocketAddr),
    /// At the address of this family from which the beacon came.
    Here {
        scheme: Scheme,
        is_ipv4: bool,
        port: u16,
    },
}

/// How a beacon came.
pub(crate) struct Arrival<'a> {
    /// The addresses that it came from, at most one a family.
    pub(crate) sources: &'a [SocketAddr],
    /// The number of the interface by which it came.
    pub(crate) interface_index: u32,
    /// Tells whether an address can be reached without a router on that interface.
    pub(crate) is_on_link: &'a dyn Fn(IpAddr) -> bool,
}

impl Announcement {
    /// Says who listens where; further places than there is room for are left out.
    pub(crate) fn new(key: PublicKey, places: impl IntoIterator<Item = ListenEndpoint>) -> Self {
        let places = places.into_iter().take(MAX_PLACES).map(|place| {
            let (scheme, addr) = (place.scheme(), place.addr());
            if addr.ip().is_unspecified() {
                Place::Here { scheme, is_ipv4: addr.is_ipv4(), port: addr.port() }
            } else {
                Place::At(scheme, addr)
            }
        });
        Self { key, places: places.collect() }
    }

    /// Whose it is, as far as it says.
    pub(crate) const fn key(&self) -> PublicKey {
        self.key
    }

    /// Whether its sender listens nowhere.
    pub(crate) const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(self.key.as_bytes());
        for place in &self.places {
            push_place(&mut bytes, *place);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, AnnouncementError> {
        if bytes.len() > MAX_BYTES {
            return Err(AnnouncementError::TooLong { bytes: bytes.len() });
        }
        let (&version, rest) = bytes.split_first().ok_or(AnnouncementError::Truncated)?;
        if version != VERSION {
            return Err(AnnouncementError::Version { found: version });
        }
        let (key, mut rest) = rest.split_first_chunk::<32>().ok_or(AnnouncementError::Truncated)?;
        let mut places = Vec::new();
        while !rest.is_empty() {
            let (kind, value);
            (kind, value, rest) = next_record(rest).ok_or(AnnouncementError::Truncated)?;
            places.extend(place(kind, value)?.filter(|_| places.len() < MAX_PLACES));
        }
        Ok(Self { key: PublicKey::from_bytes(*key), places })
    }

    /// Where to dial. An address that is not on the link by which the beacon came is left out: it was put there to send
    /// connections elsewhere, or is of another network.
    pub(crate) fn endpoints(&self, arrival: &Arrival<'_>) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for place in &self.places {
            let (scheme, addr) = match *place {
                Place::At(scheme, addr) => (scheme, arrival.scoped(addr)),
                Place::Here { scheme, is_ipv4, port } => {
                    let source = arrival.sources.iter().find(|source| source.is_ipv4() == is_ipv4);
                    let Some(mut addr) = source.copied() else { continue };
                    addr.set_port(port);
                    (scheme, addr)
                }
            };
            let endpoint = Endpoint::new(scheme, addr, self.key);
            if (arrival.is_on_link)(addr.ip()) && !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        endpoints
    }
}

impl Arrival<'_> {
    /// A link-local address means something together with an interface only: the one by which it was heard.
    const fn scoped(&self, addr: SocketAddr) -> SocketAddr {
        match addr {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
                SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, self.interface_index))
            }
            other => other,
        }
    }
}

fn push_place(bytes: &mut Vec<u8>, place: Place) {
    let (scheme, port) = match place {
        Place::At(scheme, addr) => (scheme, addr.port()),
        Place::Here { scheme, port, .. } => (scheme, port),
    };
    let (scheme, port) = ([scheme_code(scheme)], port.to_be_bytes());
    match place {
        Place::At(_, SocketAddr::V4(addr)) => {
            push_record(bytes, ENDPOINT_V4, &[&scheme, &addr.ip().octets(), &port]);
        }
        Place::At(_, SocketAddr::V6(addr)) => {
            push_record(bytes, ENDPOINT_V6, &[&scheme, &addr.ip().octets(), &port]);
        }
        Place::Here { is_ipv4, .. } => {
            push_record(bytes, ENDPOINT_HERE, &[&scheme, &[if is_ipv4 { 4 } else { 6 }], &port]);
        }
    }
}

/// What a record says; `None` if it is of a kind that is not known here.
fn place(kind: u8, value: &[u8]) -> Result<Option<Place>, AnnouncementError> {
    if !matches!(kind, ENDPOINT_V4 | ENDPOINT_V6 | ENDPOINT_HERE) {
        return Ok(None);
    }
    let (&[scheme], rest) = value.split_first_chunk::<1>().ok_or(AnnouncementError::Record { kind })?;
    let (address, port) = rest.split_last_chunk::<2>().ok_or(AnnouncementError::Record { kind })?;
    let port = u16::from_be_bytes(*port);
    let octets = match (kind, address) {
        _ if port == 0 => None,
        (ENDPOINT_V4, &[a, b, c, d]) => Some(Octets::At(IpAddr::from([a, b, c, d]))),
        (ENDPOINT_V6, address) => {
            <[u8; 16]>::try_from(address).ok().map(|octets| Octets::At(IpAddr::from(octets)))
        }
        (ENDPOINT_HERE, &[family]) => Some(Octets::Family(family)),
        _ => None,
    };
    let octets = octets.ok_or(AnnouncementError::Record { kind })?;
    let Some(scheme) = scheme_of(scheme) else { return Ok(None) };
    Ok(match octets {
        Octets::At(ip) => Some(Place::At(scheme, SocketAddr::new(ip, port))),
        Octets::Family(4) => Some(Place::Here { scheme, is_ipv4: true, port }),
        Octets::Family(6) => Some(Place::Here { scheme, is_ipv4: false, port }),
        Octets::Family(_) => None,
    })
}

/// What stands between scheme and port.
enum Octets {
    At(IpAddr),
    Family(u8),
}

/// Why a beacon's payload is no announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnnouncementError {
    #[error("{bytes} bytes are too long for an announcement, at most {MAX_BYTES} are read")]
    TooLong { bytes: usize },
    #[error("an announcement of version {found}, only {VERSION} is known here")]
    Version { found: u8 },
    #[error("the announcement is cut off")]
    Truncated,
    #[error("a record of type {kind} with a wrong length or port 0")]
    Record { kind: u8 },
}

const VERSION: u8 = 1;

/// As many as a contact has: four addresses with both schemes, twice.
const MAX_PLACES: usize = 16;

/// One datagram of the least size that every link carries (1,280 bytes), less all headers and what hides a beacon.
const MAX_BYTES: usize = 1_100;

/// Beside the types of a contact's records.
const ENDPOINT_HERE: u8 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes in `docs/wire.md`.
    const GOLDEN: &str = "01 0303030303030303030303030303030303030303030303030303030303030303 \
        05 0004 00 04 0159 05 0004 01 06 0002 \
        01 0007 00 c0000201 0159 02 0013 01 20010db8000000000000000000000001 0002";

    fn key() -> PublicKey {
        PublicKey::from_bytes([3; 32])
    }

    fn golden() -> (Announcement, Vec<u8>) {
        let places = ["quic://0.0.0.0:345", "tcp://[::]:2", "quic://192.0.2.1:345", "tcp://[2001:db8::1]:2"];
        let announcement = Announcement::new(key(), places.map(|place| place.parse().unwrap()));
        let digits: String = GOLDEN.split_whitespace().collect();
        (announcement, data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap())
    }

    #[test]
    fn the_golden_bytes_of_the_documents_are_what_is_written_and_read() {
        let (announcement, bytes) = golden();
        assert_eq!(announcement.encode(), bytes);
        assert_eq!(Announcement::decode(&bytes), Ok(announcement));
        let document = include_str!("../../../docs/wire.md");
        let digits = |text: &str| text.split_whitespace().collect::<String>();
        assert!(digits(document).contains(&digits(GOLDEN)), "docs/wire.md shows other bytes");
    }

    fn endpoints(announcement: &Announcement, sources: &[&str], on_link: &[&str]) -> Vec<String> {
        let sources: Vec<SocketAddr> = sources.iter().map(|source| source.parse().unwrap()).collect();
        let on_link: Vec<IpAddr> = on_link.iter().map(|address| address.parse().unwrap()).collect();
        let is_on_link = |address| on_link.contains(&address);
        let arrival = Arrival { sources: &sources, interface_index: 7, is_on_link: &is_on_link };
        let text = |endpoint: Endpoint| format!("{}://{}", endpoint.scheme(), endpoint.addr());
        announcement.endpoints(&arrival).into_iter().map(text).collect()
    }

    #[test]
    fn here_is_where_the_beacon_came_from_and_other_addresses_must_be_on_the_link() {
        let (announcement, _) = golden();
        assert_eq!(
            endpoints(&announcement, &["10.0.0.1:9"], &["10.0.0.1"]),
            ["quic://10.0.0.1:345"],
            "the family that was not heard is not there, nor is what is off the link"
        );
        assert_eq!(
            endpoints(&announcement, &["[fe80::1%7]:9", "192.0.2.1:9"], &["fe80::1", "192.0.2.1"]),
            ["quic://192.0.2.1:345", "tcp://[fe80::1%7]:2"],
            "each once"
        );
        assert_eq!(endpoints(&announcement, &[], &["2001:db8::1"]), ["tcp://[2001:db8::1]:2"]);
    }

    #[test]
    fn a_link_local_address_gets_the_interface_by_which_it_was_heard() {
        let announcement = Announcement::new(key(), ["tcp://[fe80::5]:2".parse().unwrap()]);
        assert_eq!(endpoints(&announcement, &[], &["fe80::5"]), ["tcp://[fe80::5%7]:2"]);
    }

    #[test]
    fn it_fits_into_one_beacon_whatever_is_listened_on_and_so_does_what_is_read() {
        let places = (1..=100).map(|port| format!("tcp://[2001:db8::1]:{port}").parse().unwrap());
        let announcement = Announcement::new(key(), places);
        assert_eq!(announcement.places.len(), MAX_PLACES);
        let bytes = announcement.encode();
        assert!(bytes.len() <= MAX_BYTES, "{} bytes", bytes.len());
        let mut more = bytes.clone();
        push_place(&mut more, Place::Here { scheme: Scheme::Tcp, is_ipv4: true, port: 1 });
        assert_eq!(Announcement::decode(&more), Ok(announcement));
        assert_eq!(Announcement::decode(&[1; 1_101]), Err(AnnouncementError::TooLong { bytes: 1_101 }));
    }

    #[test]
    fn what_is_damaged_is_refused_with_its_reason_and_what_is_newer_is_skipped() {
        let (announcement, bytes) = golden();
        for length in 1..bytes.len() {
            let cut = Announcement::decode(&bytes[..length]);
            assert!(cut.as_ref().is_ok_and(|cut| cut.places.len() < 4) || cut.is_err(), "{length}");
        }
        assert_eq!(Announcement::decode(&[2]), Err(AnnouncementError::Version { found: 2 }));
        assert_eq!(Announcement::decode(&[]), Err(AnnouncementError::Truncated));
        for record in
            [&[1, 0, 7, 0, 1, 2, 3, 4, 0, 0][..], &[1, 0, 3, 0, 0, 1], &[5, 0, 3, 0, 0, 1], &[2, 0, 1, 0]]
        {
            let bad = [&bytes, record].concat();
            assert_eq!(Announcement::decode(&bad), Err(AnnouncementError::Record { kind: record[0] }));
        }
        for record in [&[77, 0, 1, 9][..], &[1, 0, 7, 99, 1, 2, 3, 4, 0, 9], &[5, 0, 4, 0, 5, 0, 9]] {
            let newer = [&bytes, record].concat();
            assert_eq!(Announcement::decode(&newer).as_ref(), Ok(&announcement));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_is_written_the_same(
            rest in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            let bytes = [&[VERSION], &[3; 32][..], &rest].concat();
            let _ = Announcement::decode(&rest);
            if let Ok(announcement) = Announcement::decode(&bytes) {
                prop_assert_eq!(Announcement::decode(&announcement.encode()), Ok(announcement));
            }
        }
    }
}
