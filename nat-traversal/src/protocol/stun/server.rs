use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::message::{Attribute, Class, Message, MessageBuilder, Method, attribute};
use crate::protocol::{Datagram, Machine, SocketIndex, Transmit};

/// Answers STUN Binding requests, and those of [RFC 5780](https://www.rfc-editor.org/rfc/rfc5780) where it has two
/// addresses.
///
/// It keeps no state about clients but a count of answers, and it cannot be used to flood others: an answer is at most
/// [`MAX_FACTOR`](Self::MAX_FACTOR) times as long as its request, and one address gets at most
/// [`MAX_ANSWERS`](Self::MAX_ANSWERS) a second, whichever of its ports the request names for the answer
/// (RFC 5780, section 7.5).
#[derive(Debug)]
pub struct StunServer {
    addresses: ServerAddresses,
    answered: BTreeMap<IpAddr, Answered>,
    transmits: VecDeque<Transmit>,
}

/// Where a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerAddresses {
    /// At one address and port, by the main socket.
    One,
    /// At two addresses with two ports each. Socket 0 has the first address and port, 1 the first address and the second
    /// port, 2 the second address and the first port, 3 the second of both.
    Four([SocketAddr; 4]),
}

impl StunServer {
    /// A server at these addresses.
    #[must_use]
    pub const fn new(addresses: ServerAddresses) -> Self {
        Self { addresses, answered: BTreeMap::new(), transmits: VecDeque::new() }
    }

    /// An answer has at most this many times the bytes of its request. A bare request of 20 bytes is answered with 32
    /// or 44, which RFC 8489 leaves no way around; more is added only within this bound.
    pub const MAX_FACTOR: usize = 3;

    /// Answers a second to one address. A host that learns all about its NAT asks some ten times.
    pub const MAX_ANSWERS: u32 = 20;

    /// Addresses whose answers are counted; when there are more, the count begins anew.
    pub const MAX_COUNTED: usize = 4_096;

    /// The answer to a request that came over TCP. `None` if it is no request.
    #[must_use]
    pub fn answer_stream(bytes: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
        let request = Message::decode(bytes).ok().filter(is_binding_request)?;
        // A change of address makes no sense within a connection (RFC 5780, section 6.1).
        let mut unknown = unknown_attributes(&request);
        let elsewhere = [attribute::CHANGE_REQUEST, attribute::RESPONSE_PORT];
        unknown.extend(elsewhere.into_iter().filter(|kind| request.find(*kind).is_some()));
        unknown.truncate(MAX_UNKNOWN);
        Some(if unknown.is_empty() {
            success(&request, source).fingerprint()
        } else {
            refusal(&request, &unknown)
        })
    }

    fn answer(&self, request: &Message<'_>, datagram: &Datagram<'_>) -> Option<(SocketIndex, Vec<u8>)> {
        let mut unknown = unknown_attributes(request);
        let change = request.find(attribute::CHANGE_REQUEST).map(|found| change_flags(&found));
        let ServerAddresses::Four(addresses) = &self.addresses else {
            if change.is_some() {
                unknown.push(attribute::CHANGE_REQUEST);
            }
            let bytes = if unknown.is_empty() {
                success(request, datagram.source).fingerprint()
            } else {
                refusal(request, &unknown)
            };
            return Some((datagram.socket, bytes));
        };
        if !unknown.is_empty() {
            return Some((datagram.socket, refusal(request, &unknown)));
        }
        let from = SocketIndex(datagram.socket.0 ^ change.unwrap_or(0));
        let origin = *addresses.get(usize::from(from.0))?;
        let other = *addresses.get(usize::from(datagram.socket.0 ^ (CHANGE_IP | CHANGE_PORT)))?;
        let mut builder = success(request, datagram.source);
        for (kind, address) in [(attribute::OTHER_ADDRESS, other), (attribute::RESPONSE_ORIGIN, origin)] {
            let with = builder.clone().address(kind, address);
            if with.length_bytes() + FINGERPRINT_BYTES <= datagram.bytes.len() * Self::MAX_FACTOR {
                builder = with;
            }
        }
        Some((from, builder.fingerprint()))
    }

    /// Counts an answer to `address`; false if it has had its share of this second.
    fn count(&mut self, now: Instant, address: IpAddr) -> bool {
        if self.answered.len() >= Self::MAX_COUNTED {
            // Beginning anew gives a flooded victim 20 more answers for 4,096 requests, which is no amplification.
            self.answered.clear();
        }
        let answered = self.answered.entry(address).or_insert(Answered { since: now, count: 0 });
        if now.saturating_duration_since(answered.since) >= SECOND {
            *answered = Answered { since: now, count: 0 };
        }
        answered.count += 1;
        answered.count <= Self::MAX_ANSWERS
    }
}

impl Machine for StunServer {
    type Event = std::convert::Infallible;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Some(request) = Message::decode(datagram.bytes).ok().filter(is_binding_request) else { return };
        // A source no reply can reach, or that would have another service of this host answer for ever.
        // Nor may one be named for the answer.
        let port = request.find(attribute::RESPONSE_PORT).map(|found| response_port(&found));
        let destination =
            SocketAddr::new(datagram.source.ip(), port.unwrap_or_else(|| datagram.source.port()));
        let answers = datagram.source.port() != 0 && destination.port() != 0;
        if !answers || !self.count(now, datagram.source.ip()) {
            return;
        }
        if let Some((socket, bytes)) = self.answer(&request, &datagram) {
            self.transmits.push_back(Transmit { socket, destination, bytes, hops: None });
        }
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<Self::Event> {
        None
    }
}

/// How many answers an address got since when.
#[derive(Debug)]
struct Answered {
    since: Instant,
    count: u32,
}

fn is_binding_request(message: &Message<'_>) -> bool {
    (message.class(), message.method()) == (Class::Request, Method::BINDING)
}

/// Attributes before the integrity that we ought to understand and do not.
fn unknown_attributes(request: &Message<'_>) -> Vec<u16> {
    let known = [
        attribute::CHANGE_REQUEST,
        attribute::USERNAME,
        attribute::MESSAGE_INTEGRITY,
        attribute::MESSAGE_INTEGRITY_SHA256,
        attribute::PADDING,
        attribute::RESPONSE_PORT,
    ];
    let required = request.attributes().filter(Attribute::is_required).map(|found| found.kind);
    required.filter(|kind| !known.contains(kind)).take(MAX_UNKNOWN).collect()
}

fn success(request: &Message<'_>, source: SocketAddr) -> MessageBuilder {
    let builder = MessageBuilder::new(Class::Success, Method::BINDING, request.transaction());
    builder.mapped_address(source)
}

/// "I do not understand these": RFC 8489, section 6.3.1.
fn refusal(request: &Message<'_>, unknown: &[u16]) -> Vec<u8> {
    let list: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    MessageBuilder::new(Class::Error, Method::BINDING, request.transaction())
        .error_code(420, "")
        .attribute(attribute::UNKNOWN_ATTRIBUTES, &list)
        .fingerprint()
}

/// The flags of CHANGE-REQUEST as the difference between socket numbers.
fn change_flags(found: &Attribute<'_>) -> u16 {
    let flags = found.value.last().copied().unwrap_or(0);
    (u16::from(flags & 0b100 != 0) * CHANGE_IP) | (u16::from(flags & 0b010 != 0) * CHANGE_PORT)
}

/// The port that an answer is to go to (RFC 5780, section 7.5); 0 if there is none in it.
fn response_port(found: &Attribute<'_>) -> u16 {
    found.value.first_chunk().map_or(0, |port| u16::from_be_bytes(*port))
}

/// Sockets of the other address are two further, those of the other port one further.
const CHANGE_IP: u16 = 2;
const CHANGE_PORT: u16 = 1;

/// Unknown attributes that a refusal lists; few enough that it is no longer than three times the request.
const MAX_UNKNOWN: usize = 4;

const FINGERPRINT_BYTES: usize = 8;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
