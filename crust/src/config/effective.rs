//! What the rest of the crate asks of a configuration.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use nat_traversal::MappingConfig;
#[cfg(feature = "turn")]
use nat_traversal::TurnServer;
use transport::{Driver, Identity, Limits, ListenEndpoint, NamedEndpoint, TransportConfig};

#[cfg(feature = "turn")]
use super::RelayTerms;
use super::{Config, ConfigError, settings};
use crate::{
    StartError,
    gate::Gate,
    io::{lan::LanConfig, lan_secret},
    road::Roads,
};

impl Config {
    /// What a configuration file says, whatever it is.
    pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
        let read = || {
            let mut text = String::new();
            std::fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|source| ConfigError::Read { path: path.to_owned(), source })
    }

    /// The same as settings.
    pub(crate) fn from_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        settings::read(text, &path.display().to_string())
    }

    /// The file that this came from, if changes of it are to be taken over.
    pub(crate) fn take_source(&mut self) -> Option<(PathBuf, Box<Self>)> {
        self.source.take().filter(|_| self.reload)
    }

    /// The names of the settings in which two configurations differ.
    pub(crate) fn differences(one: &Self, other: &Self) -> Vec<&'static str> {
        settings::differences(one, other)
    }

    /// Where to listen, with the schemes in use only.
    pub(crate) fn places(&self) -> impl Iterator<Item = ListenEndpoint> {
        self.listen.iter().copied().filter(|place| self.schemes.contains(&place.scheme()))
    }

    /// Whether the service may do without that place: nobody has asked for it by name, and the system may have no IPv6.
    pub(crate) fn is_optional(&self, place: ListenEndpoint) -> bool {
        place.addr().is_ipv6() && self.listen == super::everywhere()
    }

    pub(crate) fn beacon(&self) -> Result<LanConfig, StartError> {
        let secret = match (&self.lan_secret, &self.lan_secret_file) {
            (Some(secret), _) => Some(secret.clone()),
            (None, Some(path)) => Some(lan_secret::read(path)?),
            (None, None) => None,
        };
        Ok(LanConfig {
            lan: self.lan,
            port: self.lan_port,
            secret,
            #[cfg(feature = "mdns")]
            mdns: self.mdns,
        })
    }

    pub(crate) const fn allowed_roads(&self) -> Roads {
        self.roads
    }

    pub(crate) fn dial_deadline(&self) -> Duration {
        self.times.deadline
    }

    pub(crate) fn take_identity(&mut self) -> Option<Identity> {
        self.identity.take()
    }

    pub(crate) fn introducing(&self) -> Option<u16> {
        self.introduces.then_some(self.stun_port)
    }

    /// Whether the service has threads of its own.
    pub(crate) fn has_threads(&self) -> bool {
        self.driver == Driver::Background
    }

    /// How addresses are learned: the servers that were named, and the router.
    pub(crate) fn mapping(&self) -> MappingConfig {
        let config = self.stun.iter().fold(MappingConfig::new(), |config, &server| config.server(server));
        let config = config.port_map(self.port_map);
        self.router.into_iter().fold(config, MappingConfig::router)
    }

    /// Whether listeners' ports are to be forwarded without being asked for.
    pub(crate) fn forwards_ports(&self) -> bool {
        self.port_map && self.has_threads()
    }

    pub(crate) fn attaches(&self) -> bool {
        self.attach
    }

    #[cfg(feature = "turn")]
    pub(crate) fn lends(&self) -> Option<&RelayTerms> {
        self.lends.then_some(&self.terms)
    }

    #[cfg(feature = "turn")]
    pub(crate) fn turn_servers(&self) -> &[TurnServer] {
        &self.relays
    }

    pub(crate) fn introducer_endpoints(&self) -> &[NamedEndpoint] {
        &self.introducers
    }

    /// Who may connect.
    pub(crate) fn gate(&self) -> Gate {
        Gate {
            open: true,
            allowed: self.allow.as_ref().map(|keys| keys.iter().copied().collect()),
            blocked: self.blocked.iter().copied().collect(),
            protocols: self.protocols.iter().cloned().collect(),
            token: self.token.clone(),
            network: self.network.clone(),
        }
    }

    pub(crate) fn transport(&self) -> TransportConfig {
        let bounds = self.bounds;
        let number = |bound: u32| usize::try_from(bound).unwrap_or(usize::MAX);
        let limits = Limits::default()
            .pending_handshakes(number(bounds.pending_handshakes))
            .pending_handshakes_per_prefix(number(bounds.pending_handshakes_per_prefix))
            .accept_queue(number(bounds.accept_queue))
            .streams_per_connection(bounds.streams_per_connection)
            .stream_receive_bytes(bounds.stream_receive_bytes)
            .connection_receive_bytes(bounds.connection_receive_bytes)
            .receive_bytes(bounds.receive_bytes);
        TransportConfig::default()
            .driver(self.driver)
            .admission(self.gate().admission())
            .connect_timeout(self.times.deadline)
            .handshake_timeout(self.times.handshake)
            .dead_after(self.times.dead_after)
            .linger(self.times.linger)
            .max_mtu(self.max_mtu)
            .limits(limits)
    }
}

/// Nobody writes so much by hand.
const MAX_FILE_BYTES: u64 = 1 << 20;
