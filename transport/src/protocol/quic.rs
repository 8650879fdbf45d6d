//! QUIC, with its engine behind our verbs: [`QuicEndpoint`] finds a datagram's connection, [`QuicConnection`] is one.
//!
//! The contract of both: after any `handle_*` and any call that changes something, drain `poll_event` and
//! `poll_endpoint_event`, then `poll_transmit`, then read `poll_timeout`. `now` never goes back. No file outside this
//! module names the engine, so that it can be changed.
//!
//! ```text
//!  datagram ─► QuicEndpoint ──► QuicConnection ──► events: connected, preface, verdict, readable, writable, ended
//!                 ▲  answers        │    ▲
//!                 └── identifiers ──┘    └── open, answer, read, write, finish, reset (one stream each)
//! ```

mod connection;
mod endpoint;
mod gather;
mod receive_budget;
mod settings;
mod stream;
mod tail;
mod window;

#[cfg(any(test, fuzzing))]
pub(crate) mod operations;
#[cfg(any(test, fuzzing))]
mod pair;
#[cfg(test)]
mod tests;

pub(crate) use connection::{ConnectionEnd, Outgoing, QuicConnection, QuicEvent, Rest};
pub(crate) use endpoint::{DialError, QuicEndpoint, Routed};
pub(crate) use settings::{PathMtu, QuicSettings};
pub(crate) use stream::{ReadEnd, WriteEnd};

/// What an endpoint hands to a connection.
pub(crate) use quinn_proto::ConnectionEvent as ToConnection;
/// Names a connection as long as it is not drained.
pub(crate) use quinn_proto::ConnectionHandle as QuicHandle;
/// Congestion marks of the IP header (RFC 3168).
pub(crate) use quinn_proto::EcnCodepoint as QuicEcn;
/// What a connection hands to its endpoint.
pub(crate) use quinn_proto::EndpointEvent as ToEndpoint;
/// Names a stream within its connection.
pub(crate) use quinn_proto::StreamId as QuicStreamId;
