use std::sync::Arc;

use transport::{Identity, Listener, ListenerSet, Transport};

use crate::{
    Config, IdentityFile, ServiceBeaconReceiver, ServiceBeaconState, ServiceController, ServiceListener,
    StartError, controller::Dialling, io::lan::LanBeacon,
};

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
    /// Starts with the defaults: a new key, both schemes, every IPv4 address, ports chosen by the system.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the system gives no sockets or threads.
    pub fn new() -> Result<Self, StartError> {
        Self::new_from_config(Config::new())
    }

    /// Starts as `config` says. Blocks only for reading the key file and binding sockets.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the key file cannot be used or a place to listen cannot be bound.
    pub fn new_from_config(mut config: Config) -> Result<Self, StartError> {
        let identity = match (config.take_identity(), config.key_file()) {
            (Some(identity), _) => identity,
            (None, Some(file)) => IdentityFile::new(file).load_or_create()?,
            (None, None) => Identity::generate(),
        };
        let transport = Transport::new(identity, config.transport())?;
        let listeners = Arc::new(ListenerSet::new(&transport));
        for place in config.places() {
            listeners.add_listener(Listener::bind(&transport, place)?);
        }
        let dialling = Dialling { schemes: config.schemes().to_vec(), deadline: config.dial_deadline() };
        let token = config.token().cloned();
        let (lan, port) = config.beacon();
        let lan = Arc::new(LanBeacon::new(lan, port, transport.public_key(), Arc::clone(&listeners)));
        Ok(Self {
            acceptor: ServiceListener::new(Arc::clone(&listeners)),
            beacon_state: ServiceBeaconState::new(Arc::clone(&lan)),
            beacon_receiver: ServiceBeaconReceiver::new(Arc::clone(&lan)),
            controller: ServiceController::new(transport, listeners, lan, dialling, token),
        })
    }
}
