#![doc = include_str!("../README.md")]

mod config;
mod contact;
mod io;
mod protocol;

pub use config::{Config, ConfigError, ParseDurationError, parse_duration};
pub use contact::{Contact, ContactError, ParseContactError};
pub use io::identity_file::{IdentityFile, IdentityFileError};
#[doc(no_inline)]
pub use transport::{
    AccessToken, Driver, Endpoint, Identity, ListenEndpoint, NamedEndpoint, ParseEndpointError,
    ProtocolLabel, PublicKey, Refusal, Scheme,
};
