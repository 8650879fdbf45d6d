#![doc = include_str!("../README.md")]

mod accepting;
mod beacon;
mod config;
mod connect_options;
mod contact;
mod controller;
mod destination;
mod dial;
mod endpoint_cache;
mod error;
mod event;
mod forwarded;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod improving;
mod introduced;
mod introducer;
mod io;
mod listener;
#[cfg(feature = "dht")]
mod looked_up;
mod protocol;
mod reachable;
#[cfg(feature = "turn")]
mod relaying;
mod reloading;
mod remembered;
mod rendezvous;
mod road;
mod scope;
mod service;
mod shared;
#[cfg(all(test, feature = "turn"))]
mod simulation;
mod trace;

pub use crate::beacon::{
    BeaconEndpoints, BeaconMarker, Disabled, Dynamic, EnableError, Enabled, Lan, LanError,
    ServiceBeaconReceiver, ServiceBeaconState,
};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use crate::protocol::fuzz_announcement;
#[doc(no_inline)]
pub use ::beacon::{BeaconError, GroupSecret, SecretTooShort, Warning as LanWarning};
pub use accepting::{AcceptingEndpoint, AcceptingEndpoints, KnownEndpoints, MappedEndpoint, MappedEndpoints};
pub use config::{Config, ConfigError, ParseDurationError, parse_duration};
pub use connect_options::ConnectOptions;
pub use contact::{Contact, ContactError, ParseContactError};
pub use controller::ServiceController;
pub use destination::Destination;
pub use endpoint_cache::{CachedEndpoint, EndpointCacheIterator};
pub use error::{Attempt, AttemptError, ConnectError, StartError};
pub use event::ServiceEvent;
pub use introducer::Introducer;
#[cfg(feature = "dht")]
pub use io::dht::DhtError;
pub use io::identity_file::{IdentityFile, IdentityFileError};
pub use io::introduce::IntroductionError;
pub use listener::{Incoming, ServiceListener};
#[doc(no_inline)]
pub use nat_traversal::{
    HolePunchServerAddr, MapError, MappedUdpSocket, MappingContext, PortMapMethod, PrivRendezvousInfo,
    PubRendezvousInfo as UdpRendezvousInfo, PunchOptions, gen_rendezvous_info,
};
#[cfg(feature = "turn")]
#[doc(no_inline)]
pub use nat_traversal::{
    ParseTurnServerError, TurnServer,
    protocol::turn::{Cidr, ParseCidrError},
};
pub use rendezvous::Rendezvous;
pub use road::{ParseRoadError, Road};
pub use scope::{Scoped, ScopedService, scope};
pub use service::Service;
pub use trace::{ConnectTrace, TraceStep, error_chain};
#[doc(no_inline)]
pub use transport::{
    AcceptError, AccessToken, AddError, BindError, Connection, Driver, Endpoint, ExportError, Identity,
    LabelError, ListenEndpoint, NamedEndpoint, NetworkName, NetworkNameError, ParseEndpointError,
    ParsePublicKeyError, Path, PathKind, ProtocolLabel, PublicKey, ReadStream, Readiness, Refusal,
    RendezvousError, RendezvousFailure, RendezvousOffer, Scheme, SetWaker, Stream, StreamError, StreamKey,
    StreamSet, StreamStats, TransportStats, TurnError, WriteStream,
};

/// The programs of the repository's README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
