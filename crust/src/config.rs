#[cfg(feature = "dht")]
mod dht;
mod effective;
mod error;
mod nearest;
mod settings;
mod text;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use etcetera::BaseStrategy as _;
#[cfg(feature = "turn")]
use nat_traversal::{TurnServer, protocol::turn::Cidr};
use transport::{
    AccessToken, Driver, Identity, ListenEndpoint, NamedEndpoint, NetworkName, ProtocolLabel, PublicKey,
    Scheme,
};

use crate::{GroupSecret, Lan, Road, road::Roads};

pub use error::ConfigError;
pub use text::{ParseDurationError, parse_duration};

/// How a [`Service`](crate::Service) behaves: set by these methods, by a TOML file, or by both, the later one winning.
///
/// ```
/// use std::time::Duration;
/// use crust::{Config, Scheme};
///
/// let config = Config::from_toml("deadline = \"5s\"\nonly = [\"tcp\"]")?.deadline(Duration::from_secs(2));
/// assert_eq!(config.schemes(), [Scheme::Tcp]);
/// assert!(config.to_toml().contains("deadline = \"2s\""));
/// # Ok::<(), crust::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Config {
    /// The file that this came from, and what it said.
    source: Option<(PathBuf, Box<Self>)>,
    reload: bool,
    identity: Option<Identity>,
    key: Option<PathBuf>,
    listen: Vec<ListenEndpoint>,
    schemes: Vec<Scheme>,
    allow: Option<Vec<PublicKey>>,
    protocols: Vec<ProtocolLabel>,
    token: Option<AccessToken>,
    blocked: Vec<PublicKey>,
    network: NetworkName,
    roads: Roads,
    introducers: Vec<NamedEndpoint>,
    attach: bool,
    introduces: bool,
    stun_port: u16,
    stun: Vec<SocketAddr>,
    port_map: bool,
    router: Option<IpAddr>,
    cache: Option<PathBuf>,
    #[cfg(feature = "turn")]
    relays: Vec<TurnServer>,
    #[cfg(feature = "turn")]
    lends: bool,
    #[cfg(feature = "turn")]
    terms: RelayTerms,
    driver: Driver,
    lan: Lan,
    lan_port: u16,
    lan_secret: Option<GroupSecret>,
    lan_secret_file: Option<PathBuf>,
    #[cfg(feature = "mdns")]
    mdns: bool,
    #[cfg(feature = "dht")]
    dht: bool,
    #[cfg(feature = "dht")]
    dht_bootstrap: Vec<String>,
    times: Times,
    max_mtu: u16,
    bounds: Bounds,
}

/// How an introducer relays.
#[cfg(feature = "turn")]
#[derive(Debug, Default)]
pub(crate) struct RelayTerms {
    pub(crate) port: u16,
    pub(crate) address: Option<IpAddr>,
    pub(crate) allow: Vec<Cidr>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    deadline: Duration,
    handshake: Duration,
    dead_after: Option<Duration>,
    linger: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    pending_handshakes: u32,
    pending_handshakes_per_prefix: u32,
    accept_queue: u32,
    streams_per_connection: u32,
    stream_receive_bytes: u64,
    connection_receive_bytes: u64,
    receive_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: None,
            reload: true,
            identity: None,
            key: None,
            listen: everywhere().into(),
            schemes: vec![Scheme::Quic, Scheme::Tcp],
            allow: None,
            protocols: vec![ProtocolLabel::default()],
            token: None,
            blocked: Vec::new(),
            network: NetworkName::default(),
            roads: Roads::ALL,
            introducers: Vec::new(),
            attach: true,
            introduces: false,
            stun_port: 0,
            stun: Vec::new(),
            port_map: true,
            router: None,
            cache: None,
            #[cfg(feature = "turn")]
            relays: Vec::new(),
            #[cfg(feature = "turn")]
            lends: false,
            #[cfg(feature = "turn")]
            terms: RelayTerms::default(),
            driver: Driver::Background,
            lan: Lan::On,
            lan_port: LAN_PORT,
            lan_secret: None,
            lan_secret_file: None,
            #[cfg(feature = "mdns")]
            mdns: false,
            #[cfg(feature = "dht")]
            dht: false,
            #[cfg(feature = "dht")]
            dht_bootstrap: dht::public_nodes(),
            times: Times {
                deadline: Duration::from_secs(10),
                handshake: Duration::from_secs(10),
                dead_after: Some(Duration::from_secs(30)),
                linger: Duration::from_secs(1),
            },
            max_mtu: 65_500,
            bounds: Bounds {
                pending_handshakes: 1_024,
                pending_handshakes_per_prefix: 64,
                accept_queue: 128,
                streams_per_connection: 128,
                stream_receive_bytes: 12_500_000,
                connection_receive_bytes: 512 << 10,
                receive_bytes: 256 << 20,
            },
        }
    }
}

impl Config {
    /// The defaults, each of which serves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a TOML file; [`Config::to_toml`] prints every setting with its meaning.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the file cannot be read, or names an unknown setting or a wrong value, with the line.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = Self::read_text(path)?;
        let source = Some((path.to_owned(), Box::new(Self::from_text(&text, path)?)));
        Ok(Self { source, ..Self::from_text(&text, path)? })
    }

    /// The user's own configuration, or the defaults where there is no such file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the file is there and is no good.
    pub fn from_default_file() -> Result<Self, ConfigError> {
        match Self::default_file() {
            Some(file) if file.exists() => Self::from_file(file),
            _ => Ok(Self::new()),
        }
    }

    /// Where the user's own configuration is looked for: `crust/config.toml` in the folder that the system has for such files,
    /// such as `~/.config`. `None` without a home.
    #[must_use]
    pub fn default_file() -> Option<PathBuf> {
        let folders = etcetera::choose_base_strategy().ok()?;
        Some(folders.config_dir().join("crust").join("config.toml"))
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] as [`Config::from_file`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        settings::read(text, "configuration")
    }

    /// The settings as a commented TOML file that reads as this configuration. Secrets are not in it: the key is named
    /// by its file, an access token and an identity given in memory are left out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        settings::write(self)
    }

    /// Who this peer is. Default: the file of [`Config::key`], else a new key that is forgotten at the end.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The file with the identity, made on first use (see [`IdentityFile`](crate::IdentityFile)). Default: none.
    #[must_use]
    pub fn key(mut self, file: impl Into<PathBuf>) -> Self {
        self.key = Some(file.into());
        self
    }

    /// Where to listen; an empty list listens nowhere. Places of a scheme that [`Config::only`] leaves out are skipped.
    /// Default: QUIC and TCP on every IPv4 and every IPv6 address, the ports chosen by the system; where it has no IPv6, on
    /// IPv4 only.
    #[must_use]
    pub fn listen(mut self, places: impl IntoIterator<Item = ListenEndpoint>) -> Self {
        self.listen = places.into_iter().collect();
        self
    }

    /// The schemes to use, for listening and for dialling, the preferred one first. Default: QUIC, then TCP.
    #[must_use]
    pub fn only(mut self, schemes: impl IntoIterator<Item = Scheme>) -> Self {
        self.schemes = schemes.into_iter().collect();
        self
    }

    /// Admits these keys only. Default: every key.
    #[must_use]
    pub fn allow(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.allow = Some(keys.into_iter().collect());
        self
    }

    /// Admits every key, which is the default.
    #[must_use]
    pub fn allow_any(mut self) -> Self {
        self.allow = None;
        self
    }

    /// The protocol labels spoken here. Default: the empty one.
    #[must_use]
    pub fn protocols(mut self, labels: impl IntoIterator<Item = ProtocolLabel>) -> Self {
        self.protocols = labels.into_iter().collect();
        self
    }

    /// Asks every dialer for this token, and puts it into the contact. Default: none.
    #[must_use]
    pub fn access_token(mut self, token: AccessToken) -> Self {
        self.token = Some(token);
        self
    }

    /// Turns these keys away, also if they are allowed. Default: none.
    #[must_use]
    pub fn block(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.blocked = keys.into_iter().collect();
        self
    }

    /// The network that this peer belongs to: peers of different networks refuse each other, so that a test never talks to the real
    /// thing. It is no secret. Introducers serve all networks. Default: the empty name.
    #[must_use]
    pub fn network_name(mut self, name: NetworkName) -> Self {
        self.network = name;
        self
    }

    /// The roads by which peers may be reached, and told to reach us when they are introduced; see
    /// [`ConnectOptions::roads`](crate::ConnectOptions::roads). Who knows an address of ours may still dial it. Default: all.
    #[must_use]
    pub fn roads(mut self, roads: impl IntoIterator<Item = Road>) -> Self {
        self.roads = roads.into_iter().collect();
        self
    }

    /// Who introduces others to this peer, and this peer to others: it stays in touch with up to four of them, and names them
    /// in its contact. Endpoints of one key are one introducer. Costs a thread and, for each introducer, a stream. Default:
    /// none.
    #[must_use]
    pub fn introducers(mut self, endpoints: impl IntoIterator<Item = NamedEndpoint>) -> Self {
        self.introducers = endpoints.into_iter().collect();
        self
    }

    /// Whether to stay in touch with the introducers, so that others find this peer there; if not, they are only asked for
    /// others. Default: yes.
    #[must_use]
    pub fn attach(mut self, attach: bool) -> Self {
        self.attach = attach;
        self
    }

    /// Introduces others to each other, whoever asks: carries their sealed messages and tells them their outside addresses
    /// (STUN over UDP and TCP). For a peer that others can reach without help. Costs two threads. Default: no.
    #[must_use]
    pub fn introduce(mut self, willing: bool) -> Self {
        self.introduces = willing;
        self
    }

    /// Where an introducer answers STUN: at this port and the next. Default: 0, the two ports after that of its first listener, so that it is
    /// found there again after a restart; if they are taken, two chosen by the system.
    #[must_use]
    pub fn stun_port(mut self, port: u16) -> Self {
        self.stun_port = port;
        self
    }

    /// STUN servers that tell this peer its outside addresses, besides its introducers. Default: none.
    #[must_use]
    pub fn stun(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.stun = servers.into_iter().collect();
        self
    }

    /// Whether routers are asked, by PCP, NAT-PMP or UPnP, to forward the ports at which this service listens, so that peers outside reach
    /// it without help. That goes on in the background and holds nothing up; the outside addresses are then among
    /// [`endpoints`](crate::ServiceController::endpoints), in contacts, and told to peers that are met, and
    /// [`ServiceEvent`](crate::ServiceEvent) tells. Routers are asked again when the network changes, after five minutes if none did it,
    /// then ever more rarely; ports are given back at the end. Costs a thread while a router forwards something. With
    /// [`Driver::Caller`] nobody is asked but by [`mapped_endpoints`](crate::AcceptingEndpoint::mapped_endpoints). False: no router is
    /// asked for anything. Default: yes.
    #[must_use]
    pub const fn port_map(mut self, port_map: bool) -> Self {
        self.port_map = port_map;
        self
    }

    /// The router to ask for ports. Default: the system's default gateway, which only Linux tells, and the one that UPnP finds; elsewhere
    /// PCP and NAT-PMP need this.
    #[must_use]
    pub fn router(mut self, router: impl Into<Option<IpAddr>>) -> Self {
        self.router = router.into();
        self
    }

    /// TURN servers over which a peer that was introduced is met when nothing direct works within 300 ms: the first that gives
    /// an address is used. They see ciphertext between proved keys. Default: none.
    #[cfg(feature = "turn")]
    #[must_use]
    pub fn relays(mut self, servers: impl IntoIterator<Item = TurnServer>) -> Self {
        self.relays = servers.into_iter().collect();
        self
    }

    /// Whether an [introducer](Config::introduce) also relays: it is a TURN server, over UDP and TCP, for peers that are attached to it and for
    /// nobody else. They get credentials for a day at a time over their stream. There are quotas for each key and address and for
    /// all, and only the public internet is reached. Costs a thread, and a socket for each address lent. Default: no.
    #[cfg(feature = "turn")]
    #[must_use]
    pub const fn relay(mut self, willing: bool) -> Self {
        self.lends = willing;
        self
    }

    /// Where an introducer answers TURN. Default: 0, a port chosen by the system.
    #[cfg(feature = "turn")]
    #[must_use]
    pub const fn relay_port(mut self, port: u16) -> Self {
        self.terms.port = port;
        self
    }

    /// The address at which peers reach what the relay lends. Default: the one where the service listens, which must be one then.
    #[cfg(feature = "turn")]
    #[must_use]
    pub const fn relay_address(mut self, address: IpAddr) -> Self {
        self.terms.address = Some(address);
        self
    }

    /// Networks that are reached by the relay although they are not public: for tests and closed networks. Default: none.
    #[cfg(feature = "turn")]
    #[must_use]
    pub fn relay_allow(mut self, networks: impl IntoIterator<Item = Cidr>) -> Self {
        self.terms.allow = networks.into_iter().collect();
        self
    }

    /// The file in which to remember where peers were reached; several processes may share one. Default: none, they are
    /// remembered until the service ends.
    #[must_use]
    pub fn cache(mut self, file: impl Into<PathBuf>) -> Self {
        self.cache = Some(file.into());
        self
    }

    /// Who waits for the network. Default: one background thread.
    #[must_use]
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// Whether and where the local network is used to be found and to find others. Default: [`Lan::On`], with which
    /// nothing is sent unless it is asked for.
    #[must_use]
    pub fn lan(mut self, lan: Lan) -> Self {
        self.lan = lan;
        self
    }

    /// The UDP port of beacons, which all who want to find each other share; 0 lets the system choose, which
    /// [`ServiceController::lan_port`](crate::ServiceController::lan_port) tells. Default: 28322.
    #[must_use]
    pub fn lan_port(mut self, port: u16) -> Self {
        self.lan_port = port;
        self
    }

    /// Makes beacons private: only services with the same secret find this one, and are found; others do not learn its key.
    /// Default: none, or that of [`Config::lan_secret_file`].
    #[must_use]
    pub fn lan_secret(mut self, secret: GroupSecret) -> Self {
        self.lan_secret = Some(secret);
        self
    }

    /// The same with a secret from a file, which holds at least 16 random bytes, such as 32 of `/dev/urandom`, and is the same
    /// for all members. It is read when the service starts. Default: none.
    #[must_use]
    pub fn lan_secret_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.lan_secret_file = Some(file.into());
        self
    }

    /// Whether the service is announced by multicast DNS beside its beacon (as `_crust._udp`, RFC 6763), and hears who is, so
    /// that it shows in tools such as `avahi-browse`. Costs two threads while the local network is used. Not with a secret, and not
    /// on loopback. Default: no.
    #[cfg(feature = "mdns")]
    #[must_use]
    pub fn mdns(mut self, mdns: bool) -> Self {
        self.mdns = mdns;
        self
    }

    /// Whether changes of the file that this configuration was [read](Config::from_file) from are taken over while the service runs;
    /// what this program has set itself stays. The file is looked at every two seconds, on the thread for introducers, which a
    /// service then has in any case. Who may connect (`allow`, `block`, `network_name`), `roads`, `deadline`, and new `introducers`, `stun` and
    /// `turn` servers are taken at once, other settings at the next start; [`ServiceEvent`](crate::ServiceEvent) tells. A file that is no
    /// good changes nothing. Default: yes.
    #[must_use]
    pub const fn reload(mut self, reload: bool) -> Self {
        self.reload = reload;
        self
    }

    /// How long a `connect` may take, all roads together. Default: 10 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.times.deadline = deadline;
        self
    }

    /// How long a peer may be silent before its streams end; `None` is never. Default: 30 s.
    #[must_use]
    pub fn dead_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.times.dead_after = silence.into();
        self
    }

    /// How long the end waits for streams that are still ending. Default: 1 s.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.times.linger = linger;
        self
    }

    /// The schemes in use.
    #[must_use]
    pub fn schemes(&self) -> &[Scheme] {
        &self.schemes
    }

    /// Where the identity is kept, if it is.
    #[must_use]
    pub fn key_file(&self) -> Option<&Path> {
        self.key.as_deref()
    }

    /// The keys that are admitted; `None` is all.
    #[must_use]
    pub fn allowed(&self) -> Option<&[PublicKey]> {
        self.allow.as_deref()
    }

    /// The network that this peer belongs to.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        &self.network
    }

    /// Where endpoints are remembered, if they are.
    #[must_use]
    pub fn cache_file(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    /// Whether routers are asked to forward ports.
    #[must_use]
    pub const fn maps_ports(&self) -> bool {
        self.port_map
    }

    /// The router to ask, if it was named.
    #[must_use]
    pub const fn named_router(&self) -> Option<IpAddr> {
        self.router
    }

    /// The STUN servers besides the introducers.
    #[must_use]
    pub fn stun_servers(&self) -> &[SocketAddr] {
        &self.stun
    }
}

/// Both schemes on all addresses, those of IPv4 first. A socket a family, as one for both would show the peers of one under
/// addresses of the other.
fn everywhere() -> [ListenEndpoint; 4] {
    let [v4, v6] = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    [(Scheme::Quic, v4), (Scheme::Tcp, v4), (Scheme::Quic, v6), (Scheme::Tcp, v6)]
        .map(|(scheme, ip)| ListenEndpoint::new(scheme, SocketAddr::new(ip, 0)))
}

/// Not assigned to anybody, below the range from which systems choose by themselves, and not the default of the library
/// `beacon`, so that others' programs are not heard for nothing.
const LAN_PORT: u16 = 28_322;

#[cfg(test)]
mod tests {
    use transport::TransportConfig;

    use super::*;

    #[test]
    fn the_defaults_are_the_transports() {
        assert_eq!(format!("{:?}", Config::new().transport()), format!("{:?}", TransportConfig::default()));
    }

    #[test]
    fn a_scheme_that_is_left_out_is_not_listened_on() {
        let config = Config::new().only([Scheme::Tcp]);
        assert_eq!(config.places().map(|place| place.scheme()).collect::<Vec<_>>(), [Scheme::Tcp; 2]);
    }

    #[test]
    fn only_ipv6_that_nobody_asked_for_may_be_missing() {
        let all = Config::new();
        let optional: Vec<_> = all.places().filter(|place| all.is_optional(*place)).collect();
        assert!(optional.len() == 2 && optional.iter().all(|place| place.addr().is_ipv6()), "{optional:?}");
        let asked = Config::new().listen(optional.clone());
        assert!(optional.iter().all(|place| !asked.is_optional(*place)));
    }
}
