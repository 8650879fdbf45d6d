use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use thiserror::Error;

use super::message::{Class, Message, MessageBuilder, Method, TransactionId, attribute};
use crate::protocol::{Datagram, Due, Machine, Random, Retry, Seed, SocketIndex, Transmit};

/// Asks several STUN servers at once which address they see us under.
///
/// For each server there is exactly one event.
#[derive(Debug)]
pub struct StunClient {
    queries: Vec<Query>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<StunEvent>,
}

/// What became of the question to one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StunEvent {
    /// It answered.
    Mapped {
        /// The server.
        server: SocketAddr,
        /// The address it sees us under.
        address: SocketAddr,
        /// Its other address and port, by which NATs can be told apart further (RFC 5780).
        other: Option<SocketAddr>,
    },
    /// It did not help.
    Failed {
        /// The server.
        server: SocketAddr,
        /// Why.
        failure: StunFailure,
    },
}

/// Why a server did not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StunFailure {
    /// It did not answer any of the requests.
    #[error("no answer to {0} requests")]
    NoAnswer(u32),
    /// It refused.
    #[error("refused with error {0}")]
    Refused(u16),
    /// Its answer makes no sense.
    #[error("the answer has no address of ours")]
    BadAnswer,
}

impl StunClient {
    /// A client that begins to ask at `now`, from its main socket. Servers beyond [`MAX_SERVERS`](Self::MAX_SERVERS)
    /// and repeated ones are left out.
    #[must_use]
    pub fn new(now: Instant, servers: &[SocketAddr], seed: Seed) -> Self {
        let mut random = Random::new(seed);
        let mut queries: Vec<Query> = Vec::new();
        for server in servers {
            if queries.len() < Self::MAX_SERVERS && queries.iter().all(|query| query.server != *server) {
                let transaction = TransactionId::draw(&mut random);
                queries.push(Query { server: *server, transaction, retry: Retry::new(now), done: false });
            }
        }
        Self { queries, transmits: VecDeque::new(), events: VecDeque::new() }
    }

    /// More servers than that tell nothing that fewer do not.
    pub const MAX_SERVERS: usize = 8;
}

impl Machine for StunClient {
    type Event = StunEvent;

    fn handle_datagram(&mut self, _now: Instant, datagram: Datagram<'_>) {
        let Ok(message) = Message::decode(datagram.bytes) else { return };
        let asked = |query: &&mut Query| {
            !query.done && query.server == datagram.source && query.transaction == message.transaction()
        };
        if message.method() != Method::BINDING || datagram.socket != SocketIndex::MAIN {
            return;
        }
        let Some(query) = self.queries.iter_mut().find(asked) else { return };
        let Some(outcome) = read_answer(&message) else { return };
        query.done = true;
        let server = query.server;
        self.events.push_back(match outcome {
            Ok(address) => StunEvent::Mapped { server, address, other: message.other_address() },
            Err(failure) => StunEvent::Failed { server, failure },
        });
    }

    fn handle_timeout(&mut self, now: Instant) {
        for query in self.queries.iter_mut().filter(|query| !query.done) {
            match query.retry.poll(now) {
                Due::Nothing => {}
                Due::Send => self.transmits.push_back(Transmit {
                    socket: SocketIndex::MAIN,
                    destination: query.server,
                    bytes: binding_request(query.transaction, None),
                    hops: None,
                }),
                Due::GiveUp => {
                    query.done = true;
                    let failure = StunFailure::NoAnswer(query.retry.sent());
                    self.events.push_back(StunEvent::Failed { server: query.server, failure });
                }
            }
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.queries.iter().filter(|query| !query.done).map(|query| query.retry.timeout()).min()
    }

    fn poll_event(&mut self) -> Option<StunEvent> {
        self.events.pop_front()
    }
}

/// A Binding request, padded so that no server's answer is longer than it; `change` is the value of CHANGE-REQUEST.
pub(crate) fn binding_request(transaction: TransactionId, change: Option<u32>) -> Vec<u8> {
    let mut builder = MessageBuilder::new(Class::Request, Method::BINDING, transaction);
    if let Some(flags) = change {
        builder = builder.attribute(attribute::CHANGE_REQUEST, &flags.to_be_bytes());
    }
    padded(builder)
}

/// A Binding request whose answer is to go to this port of the address that the server sees (RFC 5780, section 7.5).
pub(crate) fn request_to_port(transaction: TransactionId, port: u16) -> Vec<u8> {
    let builder = MessageBuilder::new(Class::Request, Method::BINDING, transaction);
    padded(builder.attribute(attribute::RESPONSE_PORT, &port.to_be_bytes()))
}

fn padded(builder: MessageBuilder) -> Vec<u8> {
    let padding = REQUEST_BYTES - FINGERPRINT_BYTES - ATTRIBUTE_HEADER_BYTES - builder.length_bytes();
    builder.attribute(attribute::SOFTWARE, &SOFTWARE_NAME[..padding]).fingerprint()
}

/// What an answer to a Binding request says; `None` if the message is no answer.
pub(crate) fn read_answer(message: &Message<'_>) -> Option<Result<SocketAddr, StunFailure>> {
    match message.class() {
        Class::Success => Some(message.mapped_address().ok_or(StunFailure::BadAnswer)),
        Class::Error => Some(Err(message.error_code().map_or(StunFailure::BadAnswer, StunFailure::Refused))),
        Class::Request | Class::Indication => None,
    }
}

/// The question to one server.
#[derive(Debug)]
struct Query {
    server: SocketAddr,
    transaction: TransactionId,
    retry: Retry,
    done: bool,
}

/// As long as the longest answer of a server like ours: three IPv6 addresses, of which two may be in full.
const REQUEST_BYTES: usize = 100;

/// The padding goes into SOFTWARE, which every server knows; many refuse PADDING, whose understanding is required.
const SOFTWARE_NAME: [u8; 68] = *b"nat-traversal                                                       ";

const ATTRIBUTE_HEADER_BYTES: usize = 4;
const FINGERPRINT_BYTES: usize = 8;

#[cfg(test)]
mod tests;
