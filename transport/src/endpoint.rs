use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::identity::{ParsePublicKeyError, PublicKey};

/// How the bytes of a stream travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// QUIC (RFC 9000): UDP, one connection a peer, many streams.
    Quic,
    /// TCP under TLS 1.3 (RFC 8446): one connection a stream.
    Tcp,
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        })
    }
}

impl FromStr for Scheme {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "quic" => Ok(Self::Quic),
            "tcp" => Ok(Self::Tcp),
            other => Err(ParseEndpointError::Scheme { found: other.chars().take(16).collect() }),
        }
    }
}

/// Where a peer is reached, and the key it must show there.
///
/// As text: `quic://[::1]:345?pubkey=…`; a `/` before the `?` is read as well. Safe to print and to pass on: there
/// is nothing secret in it.
///
/// ```
/// use transport::{Endpoint, Identity, Scheme};
///
/// let key = Identity::from_seed([1; 32]).public_key();
/// let endpoint = Endpoint::new(Scheme::Quic, "[::1]:345".parse()?, key);
/// assert_eq!(endpoint.to_string(), format!("quic://[::1]:345?pubkey={key}"));
/// assert_eq!(endpoint.to_string().parse::<Endpoint>()?, endpoint);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    addr: SocketAddr,
    public_key: PublicKey,
}

impl Endpoint {
    /// Names a peer at an address.
    #[must_use]
    pub const fn new(scheme: Scheme, addr: SocketAddr, public_key: PublicKey) -> Self {
        Self { scheme, addr, public_key }
    }

    /// How its bytes travel.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Where it is.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The key it must show.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}?pubkey={}", self.scheme, self.addr, self.public_key)
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named: NamedEndpoint = text.parse()?;
        named.to_endpoint().ok_or(ParseEndpointError::Host { found: named.host })
    }
}

/// An [`Endpoint`] whose host may be a name, which each dial resolves anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedEndpoint {
    scheme: Scheme,
    host: String,
    port: u16,
    public_key: PublicKey,
}

impl NamedEndpoint {
    /// How its bytes travel.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The name or address, an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The key it must show.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// The endpoint, if the host is an address and needs no resolver.
    #[must_use]
    pub fn to_endpoint(&self) -> Option<Endpoint> {
        let host = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host);
        // A scope (`fe80::1%3`) is part of a socket address, not of an IP address.
        let addr = if host.contains(':') {
            format!("[{host}]:{}", self.port).parse()
        } else {
            format!("{host}:{}", self.port).parse()
        };
        addr.ok().map(|addr| Endpoint::new(self.scheme, addr, self.public_key))
    }
}

impl fmt::Display for NamedEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}:{}?pubkey={}", self.scheme, self.host, self.port, self.public_key)
    }
}

impl FromStr for NamedEndpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(ParseEndpointError::TooLong { length: text.len() });
        }
        let (scheme, rest) = text.split_once("://").ok_or(ParseEndpointError::Form)?;
        let scheme = scheme.parse()?;
        let (place, query) = rest.split_once('?').ok_or(ParseEndpointError::NoKey)?;
        let place = place.strip_suffix('/').unwrap_or(place);
        let key = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("pubkey="))
            .ok_or(ParseEndpointError::NoKey)?;
        let (host, port) = place.rsplit_once(':').ok_or(ParseEndpointError::Port)?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or(ParseEndpointError::Port)?;
        let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !bracketed && (host.is_empty() || !host.chars().all(plain)) {
            return Err(ParseEndpointError::Host { found: host.chars().take(64).collect() });
        }
        Ok(Self { scheme, host: host.to_owned(), port, public_key: key.parse()? })
    }
}

impl From<Endpoint> for NamedEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        let host = match endpoint.addr {
            SocketAddr::V4(addr) => addr.ip().to_string(),
            SocketAddr::V6(addr) if addr.scope_id() != 0 => format!("[{}%{}]", addr.ip(), addr.scope_id()),
            SocketAddr::V6(addr) => format!("[{}]", addr.ip()),
        };
        Self { scheme: endpoint.scheme, host, port: endpoint.addr.port(), public_key: endpoint.public_key }
    }
}

/// Where to listen: a scheme and a local address; port 0 lets the system choose.
///
/// ```
/// let listen: transport::ListenEndpoint = "quic://0.0.0.0:0".parse()?;
/// assert_eq!(listen.to_string(), "quic://0.0.0.0:0");
/// # Ok::<(), transport::ParseEndpointError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenEndpoint {
    scheme: Scheme,
    addr: SocketAddr,
}

impl ListenEndpoint {
    /// Names a place to listen.
    #[must_use]
    pub const fn new(scheme: Scheme, addr: SocketAddr) -> Self {
        Self { scheme, addr }
    }

    /// What is spoken there.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The local address.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl fmt::Display for ListenEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme, self.addr)
    }
}

impl FromStr for ListenEndpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, place) = text.split_once("://").ok_or(ParseEndpointError::Form)?;
        let place = place.strip_suffix('/').unwrap_or(place);
        let (_, port) = place.rsplit_once(':').ok_or(ParseEndpointError::Port)?;
        port.parse::<u16>().map_err(|_| ParseEndpointError::Port)?;
        let addr = place
            .parse()
            .map_err(|_| ParseEndpointError::Host { found: place.chars().take(64).collect() })?;
        Ok(Self::new(scheme.parse()?, addr))
    }
}

/// What can be dialled: endpoints, or text that names them.
///
/// Nothing is resolved here; a dial looks names up itself, within its deadline.
pub trait ToEndpoints {
    /// The endpoints, best first.
    ///
    /// # Errors
    ///
    /// [`ParseEndpointError`] when a text is no endpoint.
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError>;
}

impl ToEndpoints for Endpoint {
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError> {
        Ok(vec![(*self).into()])
    }
}

impl ToEndpoints for NamedEndpoint {
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError> {
        Ok(vec![self.clone()])
    }
}

impl ToEndpoints for str {
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError> {
        Ok(vec![self.parse()?])
    }
}

impl ToEndpoints for String {
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError> {
        self.as_str().to_endpoints()
    }
}

impl<T: ToEndpoints> ToEndpoints for [T] {
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError> {
        let mut all = Vec::with_capacity(self.len());
        for one in self {
            all.extend(one.to_endpoints()?);
        }
        Ok(all)
    }
}

impl<T: ToEndpoints> ToEndpoints for Vec<T> {
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError> {
        self.as_slice().to_endpoints()
    }
}

impl<T: ToEndpoints + ?Sized> ToEndpoints for &T {
    fn to_endpoints(&self) -> Result<Vec<NamedEndpoint>, ParseEndpointError> {
        (**self).to_endpoints()
    }
}

/// Where one can listen: [`ListenEndpoint`]s, or text that names them.
pub trait ToListenEndpoints {
    /// The places; [`Listener::bind`](crate::Listener::bind) takes the first that works.
    ///
    /// # Errors
    ///
    /// [`ParseEndpointError`] when a text is no listen endpoint.
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError>;
}

impl ToListenEndpoints for ListenEndpoint {
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError> {
        Ok(vec![*self])
    }
}

impl ToListenEndpoints for (Scheme, SocketAddr) {
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError> {
        Ok(vec![ListenEndpoint::new(self.0, self.1)])
    }
}

impl ToListenEndpoints for (Scheme, IpAddr, u16) {
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError> {
        Ok(vec![ListenEndpoint::new(self.0, SocketAddr::new(self.1, self.2))])
    }
}

impl ToListenEndpoints for str {
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError> {
        Ok(vec![self.parse()?])
    }
}

impl ToListenEndpoints for String {
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError> {
        self.as_str().to_listen_endpoints()
    }
}

impl<T: ToListenEndpoints> ToListenEndpoints for [T] {
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError> {
        let mut all = Vec::with_capacity(self.len());
        for one in self {
            all.extend(one.to_listen_endpoints()?);
        }
        Ok(all)
    }
}

impl<T: ToListenEndpoints> ToListenEndpoints for Vec<T> {
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError> {
        self.as_slice().to_listen_endpoints()
    }
}

impl<T: ToListenEndpoints + ?Sized> ToListenEndpoints for &T {
    fn to_listen_endpoints(&self) -> Result<Vec<ListenEndpoint>, ParseEndpointError> {
        (**self).to_listen_endpoints()
    }
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseEndpointError {
    /// It does not look like `quic://HOST:PORT?pubkey=KEY`.
    #[error("not of the form quic://HOST:PORT?pubkey=KEY")]
    Form,
    /// Neither `quic` nor `tcp`.
    #[error("unknown scheme `{found}`, known are quic and tcp")]
    Scheme {
        /// What stands there, cut at 16 characters.
        found: String,
    },
    /// Not an address where one is needed, or not a name.
    #[error("`{found}` is not a host; IPv6 addresses stand in brackets")]
    Host {
        /// What stands there, cut at 64 characters.
        found: String,
    },
    /// The port is missing, 0, or no number.
    #[error("the port is missing or not a number from 1 to 65535")]
    Port,
    /// `?pubkey=` is missing.
    #[error("the peer's key is missing: add ?pubkey=KEY")]
    NoKey,
    /// The key is not one.
    #[error("the peer's key cannot be read")]
    Key(#[from] ParsePublicKeyError),
    /// Longer than any endpoint.
    #[error("{length} bytes are too long for an endpoint, at most {MAX_TEXT_BYTES} are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// A DNS name has at most 253 characters; the rest is scheme, port and key with room to spare.
const MAX_TEXT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    #[test]
    fn reads_what_it_prints_and_the_form_with_a_slash() {
        let key = Identity::from_seed([3; 32]).public_key();
        for addr in ["127.0.0.1:1", "[::1]:345", "[fe80::1%3]:65535"] {
            let endpoint = Endpoint::new(Scheme::Tcp, addr.parse().unwrap(), key);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            assert_eq!(endpoint.to_string().replace('?', "/?").parse(), Ok(endpoint));
            assert_eq!(NamedEndpoint::from(endpoint).to_string(), endpoint.to_string());
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_text() {
        let key = Identity::from_seed([3; 32]).public_key();
        let error = |text: &str| text.parse::<NamedEndpoint>().unwrap_err();
        assert_eq!(error("localhost:1"), ParseEndpointError::Form);
        assert_eq!(error("utp://h:1?pubkey="), ParseEndpointError::Scheme { found: "utp".into() });
        assert_eq!(error("tcp://h:1"), ParseEndpointError::NoKey);
        assert_eq!(error(&format!("tcp://h:0?pubkey={key}")), ParseEndpointError::Port);
        assert_eq!(
            error(&format!("tcp://a b:1?pubkey={key}")),
            ParseEndpointError::Host { found: "a b".into() }
        );
        assert!(matches!(error("tcp://h:1?pubkey=x"), ParseEndpointError::Key(_)));
        assert!(matches!(
            format!("tcp://h:1?pubkey={key}").parse::<Endpoint>(),
            Err(ParseEndpointError::Host { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,600}") {
            let _ = text.parse::<NamedEndpoint>();
            let _ = text.parse::<Endpoint>();
            let _ = text.parse::<ListenEndpoint>();
        }
    }

    #[test]
    fn a_place_to_listen_says_what_is_wrong_with_it() {
        let error = |text: &str| text.parse::<ListenEndpoint>().unwrap_err();
        for text in ["tcp://127.0.0.1:70000", "tcp://127.0.0.1:", "quic://[::1]:x", "tcp://127.0.0.1"] {
            assert_eq!(error(text), ParseEndpointError::Port, "{text}");
        }
        assert!(matches!(error("tcp://localhost:1"), ParseEndpointError::Host { .. }));
        assert!("tcp://127.0.0.1:0".parse::<ListenEndpoint>().is_ok(), "the system chooses");
    }
}
