//! What two peers tell each other before they meet; `docs/wire.md` draws it.
//!
//! ```text
//! | version (1) | public key (32) | records: type (1), length (2), value; until the end; unknown types are skipped |
//!
//! 1  for the agreement on keys: rendezvous information without addresses; must be there
//! 2  UDP over IPv4: rendezvous information     3  UDP over IPv6
//! 4  TCP over IPv4: rendezvous information     5  TCP over IPv6
//! 6  listeners, each: scheme and family (1): 0 quic 1 tcp, + 2 for IPv6 | address (4 or 16) | port (2)
//! 7  flags (1): 1 more addresses follow, 2 the sender gets the other's offer last, 4 relays are used at once; 0 if the record is missing
//! ```
//!
//! What is learned after an offer was given follows as another offer with the same keys and more addresses.

use std::net::{IpAddr, SocketAddr};

use nat_traversal::{AddrKind, MappedSocketAddr, PubRendezvousInfo};

use super::wire::{Reader, WireError};
use crate::{PublicKey, Scheme};

/// An offer as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) public_key: PublicKey,
    /// No addresses, only the key for the agreement.
    pub(crate) meeting: PubRendezvousInfo,
    /// What can be punched, by [`Hole`]; at most one of each.
    pub(crate) holes: [Option<PubRendezvousInfo>; Hole::ALL.len()],
    /// Where streams can simply be dialled.
    pub(crate) listeners: Vec<(Scheme, SocketAddr)>,
    /// More addresses follow.
    pub(crate) more: bool,
    /// The sender gets the other's offer last, so that the other has begun by then.
    pub(crate) second: bool,
    /// The sender knows that a relay is needed, and does not wait for anything better.
    pub(crate) relay_at_once: bool,
}

/// A kind of hole to punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hole {
    UdpV4,
    UdpV6,
    TcpV4,
    TcpV6,
}

impl Hole {
    pub(crate) const ALL: [Self; 4] = [Self::UdpV4, Self::UdpV6, Self::TcpV4, Self::TcpV6];

    pub(crate) fn is_udp(self) -> bool {
        matches!(self, Self::UdpV4 | Self::UdpV6)
    }
}

impl Offer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.public_key.as_bytes());
        push_record(&mut bytes, MEETING, &self.meeting.to_bytes());
        for (kind, hole) in (FIRST_HOLE..).zip(&self.holes) {
            if let Some(hole) = hole {
                push_record(&mut bytes, kind, &hole.to_bytes());
            }
        }
        let mut listeners = Vec::new();
        for (scheme, addr) in self.listeners.iter().take(MAX_LISTENERS) {
            push_listener(&mut listeners, *scheme, *addr);
        }
        if !listeners.is_empty() {
            push_record(&mut bytes, LISTENERS, &listeners);
        }
        let flags = [(self.more, MORE), (self.second, SECOND), (self.relay_at_once, RELAY_AT_ONCE)];
        let flags = flags.iter().fold(0, |all, (set, flag)| all | (u8::from(*set) * flag));
        if flags != 0 {
            push_record(&mut bytes, FLAGS, &[flags]);
        }
        bytes
    }

    /// Whether the other is the same offer with what its sender has learned since.
    pub(crate) fn is_continued_by(&self, other: &Self) -> bool {
        let same = |ours: &Option<PubRendezvousInfo>, theirs: &Option<PubRendezvousInfo>| match (ours, theirs)
        {
            (Some(ours), Some(theirs)) => ours.is_same_meeting(theirs),
            _ => true,
        };
        self.public_key == other.public_key
            && self.meeting.is_same_meeting(&other.meeting)
            && self.holes.iter().zip(&other.holes).all(|(ours, theirs)| same(ours, theirs))
    }

    /// The sender's addresses for one kind of hole.
    pub(crate) fn endpoints(&self, hole: Hole) -> &[MappedSocketAddr] {
        self.holes[hole as usize].as_ref().map_or(&[][..], PubRendezvousInfo::endpoints)
    }

    /// Whether the sender has that address at a relay.
    pub(crate) fn is_relayed(&self, addr: SocketAddr) -> bool {
        let all = self.holes.iter().flatten().flat_map(PubRendezvousInfo::endpoints);
        all.into_iter().any(|endpoint| endpoint.addr == addr && endpoint.kind == AddrKind::Relayed)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, OfferError> {
        if bytes.len() > MAX_BYTES {
            return Err(OfferError::TooLong { length: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(OfferError::Version { theirs: version });
        }
        let public_key = PublicKey::from_bytes(reader.array()?);
        let (mut meeting, mut holes, mut listeners) = (None, [const { None }; Hole::ALL.len()], Vec::new());
        let mut flags = 0;
        while !reader.is_empty() {
            let (kind, length) = (reader.u8()?, reader.u16()?);
            let value = reader.take(usize::from(length))?;
            let info = || PubRendezvousInfo::from_bytes(value).map_err(|_| OfferError::Content);
            match kind {
                MEETING => meeting = Some(info()?),
                LISTENERS => listeners = read_listeners(value)?,
                FLAGS => flags = *value.first().ok_or(OfferError::Content)?,
                kind => {
                    let index = usize::from(kind).checked_sub(usize::from(FIRST_HOLE));
                    if let Some(hole) = index.and_then(|index| holes.get_mut(index)) {
                        *hole = Some(info()?);
                    }
                }
            }
        }
        let meeting = meeting.ok_or(OfferError::Content)?;
        let [more, second, relay_at_once] = [MORE, SECOND, RELAY_AT_ONCE].map(|flag| flags & flag != 0);
        Ok(Self { public_key, meeting, holes, listeners, more, second, relay_at_once })
    }
}

fn push_record(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    bytes.push(kind);
    bytes.extend(u16::try_from(value.len()).expect("each value has at most 400 bytes").to_be_bytes());
    bytes.extend(value);
}

fn push_listener(bytes: &mut Vec<u8>, scheme: Scheme, addr: SocketAddr) {
    let scheme = match scheme {
        Scheme::Quic => 0,
        Scheme::Tcp => 1,
    };
    match addr.ip() {
        IpAddr::V4(ip) => {
            bytes.push(scheme);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(scheme | IS_V6);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(addr.port().to_be_bytes());
}

fn read_listeners(bytes: &[u8]) -> Result<Vec<(Scheme, SocketAddr)>, OfferError> {
    let mut reader = Reader::new(bytes);
    let mut listeners = Vec::new();
    while !reader.is_empty() {
        let flags = reader.u8()?;
        let scheme = match flags & !IS_V6 {
            0 => Scheme::Quic,
            1 => Scheme::Tcp,
            _ => return Err(OfferError::Content),
        };
        let ip: IpAddr =
            if flags & IS_V6 == 0 { reader.array::<4>()?.into() } else { reader.array::<16>()?.into() };
        let addr = SocketAddr::new(ip, reader.u16()?);
        // What cannot be dialled is left out; what is too much would be a port scan.
        let dialable = addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast();
        if dialable && listeners.len() < MAX_LISTENERS {
            listeners.push((scheme, addr));
        }
    }
    Ok(listeners)
}

/// Why bytes are no offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// It was written by another version of this software.
    #[error("an offer of version {theirs}; version {VERSION} is read here")]
    Version {
        /// The version it says it has.
        theirs: u8,
    },
    /// It is longer than any offer.
    #[error("an offer of {length} bytes; at most {MAX_BYTES} are read")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Some of it is missing or makes no sense.
    #[error("the offer is cut short or damaged")]
    Content,
}

impl From<WireError> for OfferError {
    fn from(_: WireError) -> Self {
        Self::Content
    }
}

const VERSION: u8 = 1;
const MEETING: u8 = 1;
const FIRST_HOLE: u8 = 2;
const LISTENERS: u8 = 6;
const FLAGS: u8 = 7;
const MORE: u8 = 1;
const SECOND: u8 = 2;
const RELAY_AT_ONCE: u8 = 4;
const IS_V6: u8 = 2;
/// As many as are in a rendezvous information.
pub(crate) const MAX_LISTENERS: usize = 16;
/// Five rendezvous informations of at most 370 bytes, sixteen listeners of at most 19, and some for what comes one day.
const MAX_BYTES: usize = 3 << 10;

#[cfg(test)]
mod tests {
    use nat_traversal::gen_rendezvous_info;
    use proptest::prelude::*;

    use super::*;

    /// `docs/wire.md` has these bytes.
    fn golden() -> (Offer, Vec<u8>) {
        let mut info = vec![1];
        info.extend([7; 32]);
        info.push(0);
        let meeting = PubRendezvousInfo::from_bytes(&info).unwrap();
        let listeners = vec![(Scheme::Tcp, "192.0.2.1:443".parse().unwrap())];
        let holes = [const { None }; Hole::ALL.len()];
        let offer = Offer {
            public_key: PublicKey::from_bytes([9; 32]),
            meeting,
            holes,
            listeners,
            more: false,
            second: false,
            relay_at_once: false,
        };
        let mut bytes = vec![1];
        bytes.extend([9; 32]);
        bytes.extend([1, 0, 34]);
        bytes.extend(info);
        bytes.extend([6, 0, 7, 1, 192, 0, 2, 1, 1, 187]);
        (offer, bytes)
    }

    #[test]
    fn the_golden_bytes_read_and_write() {
        let (offer, bytes) = golden();
        assert_eq!(offer.encode(), bytes);
        assert_eq!(Offer::decode(&bytes), Ok(offer));
    }

    #[test]
    fn holes_and_both_families_survive_the_way() {
        let (mut offer, _) = golden();
        for (port, hole) in (1_000..).zip(&mut offer.holes) {
            let endpoint = MappedSocketAddr::host(SocketAddr::new([192, 0, 2, 7].into(), port));
            *hole = Some(gen_rendezvous_info(vec![endpoint]).1);
        }
        offer.listeners.push((Scheme::Quic, "[2001:db8::1]:7".parse().unwrap()));
        assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
    }

    #[test]
    fn what_follows_an_offer_has_its_keys_and_more_addresses() {
        let (mut offer, _) = golden();
        (offer.more, offer.second, offer.relay_at_once) = (true, true, true);
        let told = gen_rendezvous_info(Vec::new()).1;
        offer.holes[0] = Some(told.clone());
        assert_eq!(Offer::decode(&offer.encode()).as_ref(), Ok(&offer));
        let mut later = Offer { more: false, ..offer.clone() };
        let endpoint = MappedSocketAddr::host("192.0.2.7:1".parse().unwrap());
        later.holes[0] = Some(told.with_endpoints(vec![endpoint]));
        assert!(offer.is_continued_by(&later));
        later.holes[0] = Some(gen_rendezvous_info(vec![endpoint]).1);
        assert!(!offer.is_continued_by(&later), "of another meeting");
    }

    #[test]
    fn unknown_records_are_skipped_and_cut_ones_refused() {
        let (offer, mut bytes) = golden();
        bytes.extend([99, 0, 2, 1, 1]);
        assert_eq!(Offer::decode(&bytes), Ok(offer));
        bytes.pop();
        assert_eq!(Offer::decode(&bytes), Err(OfferError::Content));
        assert_eq!(Offer::decode(&[2]), Err(OfferError::Version { theirs: 2 }));
        assert_eq!(Offer::decode(&bytes[..33]), Err(OfferError::Content), "nothing to agree on keys with");
    }

    #[test]
    fn what_cannot_be_dialled_and_what_is_too_much_is_left_out() {
        let mut listeners = Vec::new();
        push_listener(&mut listeners, Scheme::Tcp, "0.0.0.0:1".parse().unwrap());
        push_listener(&mut listeners, Scheme::Tcp, "192.0.2.1:0".parse().unwrap());
        push_listener(&mut listeners, Scheme::Tcp, "[ff02::1]:9".parse().unwrap());
        for port in 1..=20 {
            push_listener(&mut listeners, Scheme::Quic, SocketAddr::new([192, 0, 2, 1].into(), port));
        }
        let read = read_listeners(&listeners).unwrap();
        assert_eq!((read.len(), read[0].1.port()), (MAX_LISTENERS, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_reads_writes_the_same_meaning(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (_, mut golden) = golden();
            golden.extend(bytes);
            if let Ok(offer) = Offer::decode(&golden) {
                prop_assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
            }
        }
    }
}
