#![doc = include_str!("../README.md")]

mod admission;
#[cfg(feature = "blinding")]
mod blinding;
mod chore;
mod config;
mod connect;
mod connect_options;
mod connection;
mod endpoint;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod interrupter;
mod io;
mod label_listener;
mod listener;
mod listener_set;
mod path;
mod path_watch;
mod protocol;
#[cfg(feature = "turn")]
mod relay;
mod rendezvous;
mod stats;
mod stream;
mod stream_set;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod transport_stats;

pub use admission::{
    AccessToken, Admission, LabelError, NetworkName, NetworkNameError, ParseTokenError, ProtocolLabel,
    Refusal,
};
#[cfg(feature = "blinding")]
pub use blinding::BlindedIdentity;
pub use chore::Chore;
pub use config::{Driver, Limits, TransportConfig};
pub use connect::SingleCall;
pub use connect_options::ConnectOptions;
pub use connection::Connection;
pub use endpoint::{
    Endpoint, ListenEndpoint, NamedEndpoint, ParseEndpointError, Scheme, ToEndpoints, ToListenEndpoints,
};
pub use error::{
    AcceptError, BindError, ConnectAttempt, ConnectError, ExportError, StartError, StreamError, TurnError,
};
pub use identity::{Identity, IdentityError, ParsePublicKeyError, PublicKey};
pub use interrupter::Interrupter;
pub use label_listener::{LabelListener, LabelTaken};
pub use listener::{EndpointIterator, Incoming, Listener};
pub use listener_set::ListenerSet;
pub use path::{Path, PathKind};
pub use path_watch::PathWatch;
pub use protocol::offer::OfferError;
#[cfg(feature = "turn")]
pub use relay::Relay;
pub use rendezvous::{
    Rendezvous, RendezvousChannel, RendezvousError, RendezvousFailure, RendezvousOffer, RendezvousOptions,
    RendezvousRoad,
};
pub use stats::StreamStats;
pub use stream::{ReadStream, Stream, WriteStream};
pub use stream_set::{AddError, Readiness, SetWaker, StreamKey, StreamSet};
pub use transport::Transport;
pub use transport_stats::TransportStats;
