use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use crate::protocol::turn::TurnCredentials;

mod uri;

/// A TURN server and who we are to it, as a URI of [RFC 7065](https://www.rfc-editor.org/rfc/rfc7065) names it:
///
/// | text | means |
/// | --- | --- |
/// | `turn:HOST` | UDP, port 3478 unless `:PORT` follows; an IPv6 address stands in brackets |
/// | `turn:HOST?transport=tcp` | TCP, port 3478 |
/// | `turns:HOST` | TLS over TCP, port 5349 |
///
/// Beyond RFC 7065, `USER:PASSWORD@` may stand before the host, and for `turns:` two more parameters say whom to trust
/// instead of the certificate authorities of the web: `ca=FILE` has certificates in PEM, `pin=SHA256` is the digest of the
/// server's public key, 64 hexadecimal digits:
///
/// ```text
/// openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | sha256sum
/// ```
///
/// A pin alone needs no authority and no name, since the key itself is known; with `ca=` as well both must hold. User,
/// password and file are percent-encoded where they have other than letters, digits and `-._~` (a file's `/` may stay).
///
/// `Debug` and `Display` leave the password out.
///
/// ```
/// use nat_traversal::{TurnServer, TurnTransport};
///
/// let server: TurnServer = "turns:alice:s%2Fcret@relay.example?pin=\
///     e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
/// assert_eq!((server.host(), server.port()), ("relay.example", 5349));
/// assert_eq!(server.transport(), TurnTransport::Tls);
/// assert!(!format!("{server} {server:?}").contains("cret"));
///
/// let server: TurnServer = "turn:[2001:db8::1]?transport=tcp".parse()?;
/// let server = server.with_credentials("alice", "s/cret");
/// # Ok::<(), nat_traversal::ParseTurnServerError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    host: String,
    port: u16,
    transport: TurnTransport,
    credentials: TurnCredentials,
    ca: Option<PathBuf>,
    pin: Option<[u8; 32]>,
}

/// How we talk to a TURN server; to peers it always talks UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnTransport {
    /// UDP: as quick as the network.
    Udp,
    /// TCP: where UDP does not pass.
    Tcp,
    /// TLS over TCP: where only the web passes, and where nobody on the way is to see with whom we talk.
    Tls,
}

/// Why a text names no TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseTurnServerError {
    /// It does not begin as it should.
    #[error("a TURN server begins with turn: or turns:, without slashes")]
    Scheme,
    /// The host is missing or has letters that no host has.
    #[error("the host is a name, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// The credentials have no form.
    #[error("credentials are USER:PASSWORD@, percent-encoded")]
    Credentials,
    /// An unknown parameter, or one that is there twice.
    #[error("parameters are transport, ca and pin, each at most once")]
    Parameter,
    /// A transport that does not exist, or not for this scheme.
    #[error("the transport is udp or tcp; turns: has tcp only")]
    Transport,
    /// The pin is no digest.
    #[error("pin is the SHA-256 of the server's public key, 64 hexadecimal digits")]
    Pin,
    /// What only TLS can make use of.
    #[error("ca and pin belong to turns:")]
    NotTls,
}

impl TurnServer {
    /// A server at this address, without credentials.
    #[must_use]
    pub fn new(address: SocketAddr, transport: TurnTransport) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
            transport,
            credentials: TurnCredentials::new("", ""),
            ca: None,
            pin: None,
        }
    }

    /// This server with these credentials instead.
    #[must_use]
    pub fn with_credentials(self, username: &str, password: &str) -> Self {
        Self { credentials: TurnCredentials::new(username, password), ..self }
    }

    /// This server with credentials such as [`RelaySecret`](crate::protocol::turn::RelaySecret) makes.
    #[must_use]
    pub fn with(self, credentials: &TurnCredentials) -> Self {
        Self { credentials: credentials.clone(), ..self }
    }

    /// This server, whose certificate is to come from an authority in this file (PEM). Only TLS looks at it.
    #[must_use]
    pub fn with_ca(self, file: impl Into<PathBuf>) -> Self {
        Self { ca: Some(file.into()), ..self }
    }

    /// This server, whose public key is to have this SHA-256 (of its SubjectPublicKeyInfo). Only TLS looks at it.
    #[must_use]
    pub fn with_pin(self, pin: [u8; 32]) -> Self {
        Self { pin: Some(pin), ..self }
    }

    /// Its name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How we talk to it.
    #[must_use]
    pub const fn transport(&self) -> TurnTransport {
        self.transport
    }

    /// Who we are to it; an empty name and password if nothing was said.
    #[must_use]
    pub const fn credentials(&self) -> &TurnCredentials {
        &self.credentials
    }

    /// The file with the authorities that are trusted instead of the web's.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The SHA-256 that its public key is to have.
    #[must_use]
    pub const fn pin(&self) -> Option<&[u8; 32]> {
        self.pin.as_ref()
    }

    /// Its address, if it needs no lookup.
    pub(crate) fn literal_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse::<IpAddr>().ok()?, self.port))
    }
}

impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) =
            if self.transport == TurnTransport::Tls { ("turns", uri::TLS_PORT) } else { ("turn", uri::PORT) };
        if self.host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "{scheme}:[{}]", self.host)?;
        } else {
            write!(f, "{scheme}:{}", self.host)?;
        }
        if self.port != default {
            write!(f, ":{}", self.port)?;
        }
        let mut separator = '?';
        let mut parameter = |name: &str, value: String| {
            let written = write!(f, "{separator}{name}={value}");
            separator = '&';
            written
        };
        if self.transport == TurnTransport::Tcp {
            parameter("transport", "tcp".to_owned())?;
        }
        if let Some(ca) = &self.ca {
            parameter("ca", uri::encode(&ca.to_string_lossy()))?;
        }
        if let Some(pin) = &self.pin {
            parameter("pin", data_encoding::HEXLOWER.encode(pin))?;
        }
        Ok(())
    }
}

impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TurnServer({self})")
    }
}

impl FromStr for TurnServer {
    type Err = ParseTurnServerError;

    fn from_str(text: &str) -> Result<Self, ParseTurnServerError> {
        uri::parse(text)
    }
}
