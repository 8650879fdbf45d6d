#![doc = include_str!("../README.md")]

mod admission;
mod config;
mod endpoint;
mod error;
mod identity;
mod io;
mod protocol;

pub use admission::{AccessToken, Admission, LabelError, ParseTokenError, ProtocolLabel, Refusal};
pub use config::{Driver, Limits, TransportConfig};
pub use endpoint::{
    Endpoint, ListenEndpoint, NamedEndpoint, ParseEndpointError, Scheme, ToEndpoints, ToListenEndpoints,
};
pub use error::{AcceptError, BindError, ConnectAttempt, ConnectError, StartError, StreamError};
pub use identity::{Identity, IdentityError, ParsePublicKeyError, PublicKey};
