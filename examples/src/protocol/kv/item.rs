use std::time::Duration;

use crust::PublicKey;

use super::{
    message::{Message, Mode},
    onion::{Announcement, OnionError, Packet},
    record::{Record, RecordError},
    reference::{Change, Handles, Pack, Packed, Reference, Unpack},
};
use crate::protocol::mesh::LinkId;

/// Another node, as it has proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub key: PublicKey,
    /// How it is reached.
    pub contact: String,
}

/// What to look for, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The name of the value.
    pub key: String,
    /// How the answer comes home.
    pub mode: Mode,
    /// How far to ask; 0 looks here only.
    pub hops: u8,
    /// How many peers each node asks.
    pub fan_out: u8,
    /// How many values to wait for; of each author there is one.
    pub wanted: u8,
}

/// What services and their surroundings tell each other. Whatever answers a `request` repeats it.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each says it")]
pub enum Item<F: Handles> {
    Gate(GateInput),
    Router(RouterInput<F>),
    Store(StoreInput<F>),
    Api(ApiInput<F>),
    Onion(OnionInput),
    /// For whoever has the streams.
    Network(NetworkOutput),
    /// A line for the user.
    User(String),
}

/// For the [`Gate`](super::Gate).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each says it")]
pub enum GateInput {
    /// A stream is there. `binding` is what its two ends alone know; `neighbour` is whether this node wants it for more than an answer.
    Up {
        peer: PublicKey,
        link: LinkId,
        binding: [u8; 32],
        neighbour: bool,
    },
    Down {
        peer: PublicKey,
        link: LinkId,
    },
    Received {
        peer: PublicKey,
        link: LinkId,
        bytes: Vec<u8>,
    },
    Count {
        request: u64,
    },
}

/// For the [`Router`](super::Router).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each says it")]
pub enum RouterInput<F: Handles> {
    Online(F::To<Peer>),
    Offline(PublicKey),
    /// Of a peer who is online; its records are their authors'.
    Message {
        from: PublicKey,
        message: Message<F>,
    },
    Find {
        request: u64,
        query: Query,
    },
    /// Gives a value to so many nodes, of those that the route prefers; this one may be among them.
    Put {
        request: u64,
        record: F::To<Record>,
        copies: usize,
    },
    /// What the store has.
    Looked {
        ticket: u64,
        records: Vec<F::To<Record>>,
    },
    Peers {
        request: u64,
    },
    Count {
        request: u64,
    },
}

/// For the [`Store`](super::Store). Records must be their authors'.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each says it")]
pub enum StoreInput<F: Handles> {
    Keep {
        record: F::To<Record>,
        request: Option<u64>,
    },
    /// Keeps a copy for a while.
    Cache {
        record: F::To<Record>,
        time: Duration,
    },
    Look {
        ticket: u64,
        key: String,
        wanted: usize,
    },
    Count {
        request: u64,
    },
}

/// For the [`Api`](super::Api).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each says it")]
pub enum ApiInput<F: Handles> {
    /// What the user says, or what is wrong with it. `micros` is the time since 1970, for versions of values.
    Line {
        line: Result<String, String>,
        micros: u64,
    },
    /// The user has nothing more to say.
    End,
    Kept {
        request: u64,
        result: Result<(), RecordError>,
    },
    Found {
        request: u64,
        records: Vec<F::To<Record>>,
    },
    Peers {
        request: u64,
        peers: Vec<F::To<Peer>>,
    },
    /// What one service has counted.
    Counted {
        request: u64,
        counts: Vec<(&'static str, u64)>,
    },
    OnionDone {
        request: u64,
        result: Result<OnionOutcome, OnionError>,
    },
    /// Somebody has written to this node; with the number he can be answered.
    Heard {
        number: Option<u64>,
        text: Vec<u8>,
    },
    /// Who has announced himself, and how many neighbours he has.
    Nodes {
        request: u64,
        nodes: Vec<(PublicKey, usize)>,
    },
}

/// For the [`Onion`](super::Onion).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each says it")]
pub enum OnionInput {
    Online(PublicKey),
    Offline(PublicKey),
    /// Of a peer who is online.
    Packet {
        from: PublicKey,
        packet: Packet,
    },
    /// Of a peer who is online; what it says of a node is not verified.
    Announced {
        from: PublicKey,
        announcement: Box<Announcement>,
    },
    Send {
        request: u64,
        to: PublicKey,
        over: Over,
        text: Vec<u8>,
        /// Whether an answer is wanted.
        answered: bool,
    },
    Answer {
        request: u64,
        number: u64,
        text: Vec<u8>,
    },
    Nodes {
        request: u64,
    },
    Count {
        request: u64,
    },
}

/// Which nodes a message and its answer go over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says it")]
pub enum Over {
    /// So many, drawn by chance each way.
    Drawn(u8),
    /// These; back the same ones, unless others are named.
    Named { there: Vec<PublicKey>, back: Option<Vec<PublicKey>> },
}

/// What became of a message or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says it")]
pub enum OnionOutcome {
    Sent { relays: usize },
    Answered { text: Vec<u8> },
    AnswerSent,
}

/// For whoever has the streams.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says it")]
pub enum NetworkOutput {
    /// With a contact the receiver may be no neighbour, and must be dialled if it is not online.
    Send {
        to: PublicKey,
        contact: Option<String>,
        bytes: Vec<u8>,
    },
    /// The peer has proved who it is: messages may go to it.
    Online {
        peer: PublicKey,
        link: LinkId,
    },
    /// The peer is not who it should be, or does not behave.
    Refuse {
        peer: PublicKey,
        link: LinkId,
        why: String,
    },
    /// The peer has sent something strange, which is left out.
    Odd {
        peer: PublicKey,
        what: String,
    },
    /// The user wants this neighbour.
    Connect(String),
    Count {
        request: u64,
    },
    /// The user has said everything and has every answer.
    Done,
}

impl<R: Reference> Item<R> {
    /// Makes it fit to leave its thread.
    #[must_use]
    pub fn pack(self) -> Item<Packed<R>> {
        self.change(&Pack)
    }

    /// Undoes [`Item::pack`].
    #[must_use]
    pub fn unpack(packed: Item<Packed<R>>) -> Self {
        packed.change(&Unpack)
    }
}

impl<F: Handles> Item<F> {
    fn change<G: Handles>(self, how: &impl Change<F, G>) -> Item<G> {
        match self {
            Self::Gate(input) => Item::Gate(input),
            Self::Router(input) => Item::Router(input.change(how)),
            Self::Store(input) => Item::Store(input.change(how)),
            Self::Api(input) => Item::Api(input.change(how)),
            Self::Onion(input) => Item::Onion(input),
            Self::Network(output) => Item::Network(output),
            Self::User(line) => Item::User(line),
        }
    }
}

impl<F: Handles> RouterInput<F> {
    fn change<G: Handles>(self, how: &impl Change<F, G>) -> RouterInput<G> {
        match self {
            Self::Online(peer) => RouterInput::Online(how.change(peer)),
            Self::Offline(peer) => RouterInput::Offline(peer),
            Self::Message { from, message } => RouterInput::Message { from, message: message.change(how) },
            Self::Find { request, query } => RouterInput::Find { request, query },
            Self::Put { request, record, copies } => {
                RouterInput::Put { request, record: how.change(record), copies }
            }
            Self::Looked { ticket, records } => RouterInput::Looked { ticket, records: all(records, how) },
            Self::Peers { request } => RouterInput::Peers { request },
            Self::Count { request } => RouterInput::Count { request },
        }
    }
}

impl<F: Handles> StoreInput<F> {
    fn change<G: Handles>(self, how: &impl Change<F, G>) -> StoreInput<G> {
        match self {
            Self::Keep { record, request } => StoreInput::Keep { record: how.change(record), request },
            Self::Cache { record, time } => StoreInput::Cache { record: how.change(record), time },
            Self::Look { ticket, key, wanted } => StoreInput::Look { ticket, key, wanted },
            Self::Count { request } => StoreInput::Count { request },
        }
    }
}

impl<F: Handles> ApiInput<F> {
    fn change<G: Handles>(self, how: &impl Change<F, G>) -> ApiInput<G> {
        match self {
            Self::Line { line, micros } => ApiInput::Line { line, micros },
            Self::End => ApiInput::End,
            Self::Kept { request, result } => ApiInput::Kept { request, result },
            Self::Found { request, records } => ApiInput::Found { request, records: all(records, how) },
            Self::Peers { request, peers } => {
                ApiInput::Peers { request, peers: peers.into_iter().map(|peer| how.change(peer)).collect() }
            }
            Self::Counted { request, counts } => ApiInput::Counted { request, counts },
            Self::OnionDone { request, result } => ApiInput::OnionDone { request, result },
            Self::Heard { number, text } => ApiInput::Heard { number, text },
            Self::Nodes { request, nodes } => ApiInput::Nodes { request, nodes },
        }
    }
}

/// Changes each of some records.
pub(super) fn all<F: Handles, G: Handles>(
    records: Vec<F::To<Record>>,
    how: &impl Change<F, G>,
) -> Vec<G::To<Record>> {
    records.into_iter().map(|record| how.change(record)).collect()
}
