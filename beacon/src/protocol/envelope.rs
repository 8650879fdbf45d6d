//! What a private datagram holds beside the packet: what proves that it is fresh, and that it comes from where it says.
//!
//! ```text
//! +---------------------------+---------------------------+
//! | time, 8 bytes             | challenge, 8 bytes        |
//! +---------------------------+---------------------------+
//! | count, 1 | echoes, 8 each                             |
//! +----------+--------------------------------------------+
//! | count, 1 | addresses: family 4 or 6 (1), 4 or 16      |
//! +----------+--------------------------------------------+
//! | packet of version 1, and zeros                        |
//! +-------------------------------------------------------+
//! ```
//!
//! The time is in milliseconds since 1970 by the sender's clock, all ones if it has none. Echoes are the challenges that it
//! has heard of late. The addresses are those of the sender on the link.

use std::net::IpAddr;
use std::time::Duration;

use super::packet::HEADER_BYTES;
use super::seal::OVERHEAD_BYTES;
use super::{ASK_BYTES, MAX_ID_BYTES, MAX_PACKET_BYTES, Packet, TooLarge};

/// Eight bytes that nobody could foretell: who repeats them has spoken after they were said.
pub(super) type Challenge = [u8; 8];

/// An opened private datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    /// Since 1970, by the sender's clock.
    pub(super) time: Option<Duration>,
    pub(super) challenge: Challenge,
    pub(super) echoes: Vec<Challenge>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) packet: &'a [u8],
}

/// What goes around a packet.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    pub(super) time: Option<Duration>,
    pub(super) challenge: Challenge,
    /// The latest first; as many are sent as there is room for.
    pub(super) echoes: Vec<Challenge>,
    pub(super) addresses: Vec<IpAddr>,
}

impl Cover {
    /// Writes the envelope of a packet, filled to a size that tells little: questions have one size, and all else that of
    /// the data rounded up.
    pub(super) fn encode(&self, packet: &Packet<'_>, data_length: usize) -> Result<Vec<u8>, TooLarge> {
        let addresses: Vec<IpAddr> = self.addresses.iter().copied().take(MAX_ADDRESSES).collect();
        let addresses_bytes: usize =
            addresses.iter().map(|address| 1 + if address.is_ipv4() { 4 } else { 16 }).sum();
        let fixed = 8 + 8 + 1 + 1 + addresses_bytes;
        let limit = MAX_PACKET_BYTES - OVERHEAD_BYTES;
        // What the packet needs, then as many echoes as there is room for.
        let needed = fixed + packet.bytes_with(data_length);
        let echoes = self.echoes.len().min(MAX_ECHOES).min(limit.saturating_sub(needed) / 8);
        let filled = if packet.kind.asks() {
            (ASK_BYTES - OVERHEAD_BYTES).max(needed + echoes * 8)
        } else {
            (needed + echoes * 8).next_multiple_of(SIZE_STEP_BYTES).min(limit)
        };
        let mut bytes = Vec::with_capacity(filled);
        let time = self.time.and_then(|time| u64::try_from(time.as_millis()).ok()).unwrap_or(NO_TIME);
        bytes.extend_from_slice(&time.to_be_bytes());
        bytes.extend_from_slice(&self.challenge);
        bytes.push(u8::try_from(echoes).expect("at most MAX_ECHOES"));
        bytes.extend_from_slice(self.echoes[..echoes].as_flattened());
        bytes.push(u8::try_from(addresses.len()).expect("at most MAX_ADDRESSES"));
        for address in addresses {
            match address {
                IpAddr::V4(address) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&address.octets());
                }
                IpAddr::V6(address) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&address.octets());
                }
            }
        }
        let room = filled.saturating_sub(bytes.len());
        bytes.extend_from_slice(&packet.encode_within(max_data_bytes(packet.id.len()), room)?);
        bytes.resize(bytes.len().max(filled), 0);
        Ok(bytes)
    }
}

impl<'a> Envelope<'a> {
    /// Reads an envelope; `None` if it makes no sense, which a member's never does.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let (challenge, rest) = rest.split_first_chunk::<8>()?;
        let (&count, rest) = rest.split_first()?;
        let (echoes, rest) = rest.split_at_checked(usize::from(count) * size_of::<Challenge>())?;
        let (&count, mut rest) = rest.split_first()?;
        let mut addresses = Vec::new();
        for _ in 0..count {
            let (address, more) = match rest.split_first()? {
                (4, rest) => {
                    rest.split_first_chunk::<4>().map(|(octets, rest)| (IpAddr::from(*octets), rest))?
                }
                (6, rest) => {
                    rest.split_first_chunk::<16>().map(|(octets, rest)| (IpAddr::from(*octets), rest))?
                }
                _ => return None,
            };
            addresses.push(address);
            rest = more;
        }
        let time = u64::from_be_bytes(*time);
        Some(Self {
            time: (time != NO_TIME).then(|| Duration::from_millis(time)),
            challenge: *challenge,
            echoes: echoes.as_chunks().0.to_vec(),
            addresses,
            packet: rest,
        })
    }
}

/// How many bytes of data fit into a private datagram beside an identity of `id_bytes`, and a few echoes.
pub(super) const fn max_data_bytes(id_bytes: usize) -> usize {
    let cover = 8 + 8 + 1 + MIN_ECHOES * 8 + 1 + MAX_ADDRESSES_BYTES;
    MAX_PACKET_BYTES.saturating_sub(OVERHEAD_BYTES + cover + HEADER_BYTES + id_bytes)
}

/// Less would tell beacons apart by the length of what they say.
const SIZE_STEP_BYTES: usize = 256;

const NO_TIME: u64 = u64::MAX;

/// A beacon speaks from at most four IPv4 addresses of a link and one IPv6 address.
const MAX_ADDRESSES: usize = 5;
const MAX_ADDRESSES_BYTES: usize = 4 * 5 + 17;

/// As many newcomers are given their proof at once. Further ones ask again.
pub(super) const MAX_ECHOES: usize = 32;

/// However much data there is, a few newcomers are given theirs.
const MIN_ECHOES: usize = 4;

const _: () = assert!(max_data_bytes(MAX_ID_BYTES) > 1000, "the limit that the documents name");

#[cfg(test)]
mod tests {
    use super::super::seal::Seal;
    use super::super::{GroupSecret, Kind, Seed};
    use super::*;

    #[test]
    fn the_golden_bytes_of_the_documents_are_what_is_written_and_read() {
        let seed = Seed::new([2; 32]);
        let addresses = vec!["192.0.2.1".parse().expect("an address")];
        let cover = Cover {
            time: Some(Duration::from_secs(1_700_000_000)),
            challenge: [4; 8],
            echoes: vec![[5; 8]],
            addresses,
        };
        let envelope = cover.encode(&packet(Kind::Announce, b"x"), 1).expect("small");
        let document = include_str!("../../../docs/wire.md");
        let section = document.split("## Private beacon").nth(1).expect("it has a section");
        let block = |number: usize| -> Vec<u8> {
            let block = section.split("```text").nth(number).and_then(|rest| rest.split("```").next());
            let digits: String = block.expect("each stands in a block").split_whitespace().collect();
            let pairs = digits.as_bytes().chunks(2);
            pairs
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex"))
                .collect()
        };

        let mut seal = Seal::new(GroupSecret::new([1; 32]), &seed);
        let mut golden = block(3);
        golden.resize(256, 0);
        assert_eq!(envelope, golden);
        assert_eq!(seal.seal(&envelope), block(4));
        assert_eq!(seal.open(&block(4)), Some(golden));
    }

    #[test]
    fn what_is_written_is_read() {
        let (cover, packet) = (cover(3), packet(Kind::Announce, b"data"));

        let bytes = cover.encode(&packet, 4).expect("small");

        let read = Envelope::decode(&bytes).expect("our own");
        assert_eq!((read.time, read.challenge), (cover.time, cover.challenge));
        assert_eq!((read.echoes, read.addresses), (cover.echoes, cover.addresses));
        assert_eq!(Packet::decode(read.packet), Ok(packet));
    }

    #[test]
    fn sizes_tell_questions_from_the_rest_and_data_by_steps_of_256_bytes_only() {
        let data = [7; 1200];
        let most = max_data_bytes(16);
        let mut sizes = Vec::new();
        for length in 0..=most {
            let size = |kind| cover(0).encode(&packet(kind, &data[..length]), length).expect("fits").len();
            let (announce, answer, ask) = (size(Kind::Announce), size(Kind::Answer), size(Kind::Ask));
            assert_eq!(announce, answer);
            assert!(announce + OVERHEAD_BYTES <= MAX_PACKET_BYTES);
            assert!(announce <= ask + 64, "an answer of {announce} to a question of {ask}");
            sizes.extend([announce, ask]);
            let goodbye = cover(0).encode(&packet(Kind::Goodbye, b""), length).expect("fits").len();
            assert_eq!(goodbye, announce);
        }
        sizes.sort_unstable();
        sizes.dedup();
        sizes.retain(|size| *size <= ASK_BYTES - OVERHEAD_BYTES);
        assert_eq!(sizes, [256, 512, 768, 1024, 1124]);
        assert!(cover(0).encode(&packet(Kind::Announce, &data[..=most]), most + 1).is_err());
    }

    #[test]
    fn echoes_take_the_room_that_the_data_leaves() {
        let data = [7; 1200];
        for (length, echoes) in [(0, 32), (max_data_bytes(16), 4)] {
            let packet = packet(Kind::Answer, &data[..length]);
            let bytes = cover(100).encode(&packet, length).expect("fits");
            assert_eq!(Envelope::decode(&bytes).map(|read| read.echoes.len()), Some(echoes));
        }
    }

    #[test]
    fn nothing_that_is_cut_off_panics() {
        let bytes = cover(3).encode(&packet(Kind::Ask, b"data"), 4).expect("small");

        for length in 0..bytes.len() {
            if let Some(read) = Envelope::decode(&bytes[..length]) {
                let _ = Packet::decode(read.packet);
            }
        }
        assert_eq!(Envelope::decode(&[9; 400]), None);
    }

    fn cover(echoes: usize) -> Cover {
        let v4 = (1..=4).map(|host| IpAddr::from([10, 0, 0, host]));
        Cover {
            time: Some(Duration::from_millis(1_700_000_000_000)),
            challenge: [1; 8],
            echoes: vec![[2; 8]; echoes],
            addresses: v4.chain(["fe80::1".parse().expect("an address")]).collect(),
        }
    }

    fn packet(kind: Kind, data: &[u8]) -> Packet<'_> {
        Packet { kind, sequence: 1, interval: Duration::from_secs(1), id: &[3; 16], data, known: &[] }
    }
}
