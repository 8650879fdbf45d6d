#[cfg(feature = "turn")]
use std::net::IpAddr;
use std::{net::SocketAddr, sync::Arc, time::Duration};

use nat_traversal::{HolePunchServer, MappingContext};
#[cfg(feature = "turn")]
use nat_traversal::{
    RelayHost,
    protocol::turn::{RelayRules, RelaySecret, TargetPolicy},
};
use transport::{Admission, Identity, LabelListener, ListenEndpoint, Listener, ListenerSet, Transport};

#[cfg(feature = "turn")]
use crate::io::{entropy, worker::Lending};
use crate::{
    Config, IdentityFile, Introducer, ServiceBeaconReceiver, ServiceBeaconState, ServiceController,
    ServiceListener, StartError,
    controller::Dialling,
    io::{lan::LanBeacon, worker::Hosting},
    protocol::introducer::{Bounds, Switchboard},
    reloading::Reloading,
    shared::{INTRODUCE, Parts, Shared},
};
#[cfg(feature = "dht")]
use crate::{io::dht::Directory, protocol::published::CONTEXT};

/// A peer that is up: it listens, and it can dial.
///
/// It has public parts and no `Drop`, so that it can be taken apart and its parts given to different threads. Dropping
/// the controller is the shutdown: it closes every stream and socket and ends every blocked call of the other parts.
///
/// ```
/// use std::io::{Read, Write};
/// use crust::{Config, Service};
///
/// let local = || Config::new().listen(["tcp://127.0.0.1:0".parse().expect("an endpoint")]);
/// let Service { acceptor, controller, .. } = Service::new_from_config(local())?;
/// let contact = controller.contact()?;
///
/// let server = std::thread::spawn(move || acceptor.accept().expect("a stream").write_all(b"hello"));
/// let other = Service::new_from_config(local())?;
/// let mut text = String::new();
/// other.controller.connect(contact)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # server.join().expect("it does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Service {
    /// Gives the streams that peers open.
    pub acceptor: ServiceListener,
    /// Announces this service on the local network, or does not, as at first.
    pub beacon_state: ServiceBeaconState,
    /// Hears who is announced on the local network.
    pub beacon_receiver: ServiceBeaconReceiver,
    /// Does everything else; its drop is the shutdown.
    pub controller: ServiceController,
}

impl Service {
    /// Starts as the user's configuration file says, [`Config::default_file`], or with the defaults where there is none: a new
    /// key, both schemes, every address, ports chosen by the system.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the file is there and cannot be read or used, or the system gives no sockets or threads.
    pub fn new() -> Result<Self, StartError> {
        Self::new_from_config(Config::from_default_file()?)
    }

    /// Starts as `config` says. Blocks only for reading the key file and binding sockets.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the key file cannot be used or a place to listen cannot be bound.
    pub fn new_from_config(mut config: Config) -> Result<Self, StartError> {
        let reloading = Reloading::new(&mut config);
        let identity = match (config.take_identity(), config.key_file()) {
            (Some(identity), _) => identity,
            (None, Some(file)) => IdentityFile::new(file).load_or_create()?,
            (None, None) => Identity::generate(),
        };
        let mapping = MappingContext::new(config.mapping().map_timeout(MAPPING).port_map(false))?;
        let context = MappingContext::new(config.mapping())?;
        #[cfg(feature = "dht")]
        let dht =
            config.uses_dht().then(|| Directory::new(identity.blinded(CONTEXT), config.dht_nodes().to_vec()));
        let transport = Transport::new(identity, config.transport())?;
        let listeners = Arc::new(ListenerSet::new(&transport));
        for place in config.places() {
            let listener = if config.is_optional(place) {
                bind_beside(&transport, &listeners, place)
            } else {
                Some(Listener::bind(&transport, place)?)
            };
            if let Some(listener) = listener {
                listeners.add_listener(listener);
            }
        }
        let dialling = Dialling {
            schemes: config.schemes().to_vec(),
            deadline: config.dial_deadline(),
            attach: config.attaches(),
            roads: config.allowed_roads(),
            network: config.network().clone(),
            has_threads: config.has_threads(),
        };
        let lan = LanBeacon::new(config.beacon()?, transport.public_key(), Arc::clone(&listeners));
        let lan = Arc::new(lan);
        let hosting =
            config.introducing().map(|port| introduce(&transport, &listeners, port, &config)).transpose()?;
        let acceptor = ServiceListener::new(Arc::clone(&listeners));
        let beacon_state = ServiceBeaconState::new(Arc::clone(&lan));
        let beacon_receiver = ServiceBeaconReceiver::new(Arc::clone(&lan));
        let hole_punching = hosting.as_ref().map(Hosting::hole_punching).unwrap_or_default();
        let shared = Arc::new(Shared::new(Parts {
            transport,
            listeners,
            lan,
            dialling,
            gate: config.gate(),
            mapping,
            context,
            cache: config.cache_file().map(ToOwned::to_owned),
            #[cfg(feature = "turn")]
            relaying: crate::relaying::Relaying::new(config.turn_servers().to_vec()),
            hole_punching,
            #[cfg(feature = "dht")]
            dht,
            forwards_ports: config.forwards_ports(),
            names_router: config.named_router().is_some(),
        }));
        let introducers = Introducer::grouped(config.introducer_endpoints().iter().cloned());
        let controller = ServiceController::start(shared, introducers, hosting, reloading)?;
        Ok(Self { acceptor, beacon_state, beacon_receiver, controller })
    }
}

/// Listens on the other family as well, where the system has it: at the port that the scheme has already if that is free, since
/// some who describe a service have room for one port a scheme (DNS-SD).
fn bind_beside(transport: &Transport, listeners: &ListenerSet, place: ListenEndpoint) -> Option<Listener> {
    let known = listeners.local_endpoints().into_iter().find(|known| known.scheme() == place.scheme());
    let same_port = known.map(|known| {
        ListenEndpoint::new(place.scheme(), SocketAddr::new(place.addr().ip(), known.addr().port()))
    });
    let places: Vec<_> = same_port.into_iter().chain([place]).collect();
    match Listener::bind(transport, places) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::debug!(%error, %place, "this system does not listen there");
            None
        }
    }
}

/// A STUN server beside the listener at `local`. Who was told of it looks for it at the same port after a restart, so that unless one is set it is
/// the next to the listener's, if that is free.
fn bind_stun(local: SocketAddr, port: u16) -> Result<HolePunchServer, nat_traversal::ServerError> {
    let bind = |port| HolePunchServer::bind_pair(SocketAddr::new(local.ip(), port));
    let next = local.port().checked_add(1).filter(|_| port == 0);
    next.and_then(|next| bind(next).ok()).map_or_else(|| bind(port), Ok)
}

/// What an introducer needs: the streams of those who ask, and a STUN server beside its listeners.
fn introduce(
    transport: &Transport,
    listeners: &ListenerSet,
    stun_port: u16,
    config: &Config,
) -> Result<Hosting, StartError> {
    let listener = LabelListener::new(transport, INTRODUCE.clone(), Admission::default())
        .expect("nobody else of this service takes this label");
    let local = listeners.local_endpoints().first().map(ListenEndpoint::addr);
    let stun = local.map(|local| bind_stun(local, stun_port)).transpose()?;
    let port = stun.as_ref().and_then(|stun| stun.addresses().first()).map_or(0, |at| at.addr.port());
    #[cfg(feature = "turn")]
    let lending = match local {
        Some(local) => lend(local.ip(), config)?,
        None => None,
    };
    #[cfg(not(feature = "turn"))]
    let _ = config;
    let board = Switchboard::new(Bounds::default(), port);
    Ok(Hosting {
        listener,
        board,
        stun,
        #[cfg(feature = "turn")]
        lending,
    })
}

/// What a relay needs, if there is to be one.
#[cfg(feature = "turn")]
fn lend(local: IpAddr, config: &Config) -> Result<Option<Lending>, StartError> {
    let Some(terms) = config.lends() else { return Ok(None) };
    let known_as = terms.address.unwrap_or(local);
    if known_as.is_unspecified() {
        return Err(StartError::RelayAddress);
    }
    let secret = RelaySecret::new(entropy::secret());
    let rules = RelayRules::new(known_as).targets(TargetPolicy::strict().allow(terms.allow.iter().copied()));
    let relay = RelayHost::bind(SocketAddr::new(local, terms.port), secret.clone(), rules)?;
    Ok(Some(Lending::new(relay, secret)))
}

/// Two sendings to each server. One that does not answer, such as where UDP is blocked, keeps the peer waiting for so long.
const MAPPING: Duration = Duration::from_millis(1_200);
