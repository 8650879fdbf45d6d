#![doc = include_str!("../README.md")]

mod beacon;
mod config;
mod connect_options;
mod contact;
mod controller;
mod error;
mod io;
mod listener;
mod protocol;
mod road;
mod scope;
mod service;

pub use crate::beacon::{
    BeaconEndpoints, BeaconMarker, Disabled, Dynamic, EnableError, Enabled, Lan, LanError,
    ServiceBeaconReceiver, ServiceBeaconState,
};
#[doc(no_inline)]
pub use ::beacon::{BeaconError, Warning as LanWarning};
pub use config::{Config, ConfigError, ParseDurationError, parse_duration};
pub use connect_options::ConnectOptions;
pub use contact::{Contact, ContactError, ParseContactError};
pub use controller::ServiceController;
pub use error::{Attempt, ConnectError, StartError};
pub use io::identity_file::{IdentityFile, IdentityFileError};
pub use listener::{Incoming, ServiceListener};
pub use road::Road;
pub use scope::{Scoped, ScopedService, scope};
pub use service::Service;
#[doc(no_inline)]
pub use transport::{
    AcceptError, AccessToken, BindError, Driver, Endpoint, Identity, LabelError, ListenEndpoint,
    NamedEndpoint, ParseEndpointError, ParsePublicKeyError, Path, PathKind, ProtocolLabel, PublicKey,
    ReadStream, Refusal, Scheme, Stream, StreamError, StreamStats, TransportStats, TurnError, WriteStream,
};

/// The programs of the repository's README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
