//! The service's one beacon: started when first needed, told what to announce, and asked where a key is.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use beacon::{Beacon, BeaconConfig, BeaconController, GroupSecret, Interfaces, Message, News, Warning};
use crossbeam::channel::Receiver;
use transport::{Endpoint, ListenerSet, PublicKey};

#[cfg(feature = "mdns")]
use crate::io::mdns::{Found, Mdns};
use crate::{
    Lan, LanError,
    io::{clock, latest::Latest},
    protocol::{
        announcement::{Announcement, Arrival},
        neighbours::{Neighbours, Speaker},
    },
};

/// How a service uses the local network.
#[derive(Debug)]
pub(crate) struct LanConfig {
    pub(crate) lan: Lan,
    pub(crate) port: u16,
    pub(crate) secret: Option<GroupSecret>,
    #[cfg(feature = "mdns")]
    pub(crate) mdns: bool,
}

/// Shared by the parts of a service.
#[derive(Debug)]
pub(crate) struct LanBeacon {
    lan: Lan,
    secret: Option<GroupSecret>,
    #[cfg(feature = "mdns")]
    uses_mdns: bool,
    own: PublicKey,
    listeners: Arc<ListenerSet>,
    heard: Arc<Heard>,
    endpoints: Receiver<Endpoint>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: Option<Running>,
    enabled: bool,
    port: u16,
    period: Duration,
    /// Gone when the service is closed, so that who waits on the channel learns that no more will come.
    feed: Option<Feed>,
}

#[derive(Debug)]
struct Running {
    controller: BeaconController,
    interfaces: Interfaces,
    #[cfg(feature = "mdns")]
    mdns: Option<Mdns>,
}

/// What the beacon's thread and the callers share.
#[derive(Debug, Default)]
struct Heard {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    neighbours: Neighbours,
    closed: bool,
}

/// The way of endpoints to the application.
type Feed = Latest<Endpoint>;

impl LanBeacon {
    pub(crate) fn new(config: LanConfig, own: PublicKey, listeners: Arc<ListenerSet>) -> Self {
        let LanConfig { lan, port, secret, .. } = config;
        let (feed, endpoints) = Latest::new(QUEUE_ENDPOINTS);
        let state = State { running: None, enabled: false, port, period: PERIOD, feed: Some(feed) };
        Self {
            lan,
            secret,
            #[cfg(feature = "mdns")]
            uses_mdns: config.mdns,
            own,
            listeners,
            heard: Arc::default(),
            endpoints,
            state: Mutex::new(state),
        }
    }

    /// Hears others from now on.
    pub(crate) fn listen(&self) -> Result<(), LanError> {
        self.start(&mut lock(&self.state))
    }

    pub(crate) fn is_enabled(&self) -> bool {
        lock(&self.state).enabled
    }

    /// Announces this service, or stops doing so.
    pub(crate) fn set_enabled(&self, enabled: bool) -> Result<(), LanError> {
        let mut state = lock(&self.state);
        let before = std::mem::replace(&mut state.enabled, enabled);
        let started = if enabled { self.start(&mut state) } else { Ok(()) };
        if started.is_err() {
            state.enabled = before;
        }
        self.announce(&mut state);
        started
    }

    pub(crate) fn set_period(&self, period: Duration) {
        let mut state = lock(&self.state);
        state.period = period;
        if let Some(running) = &state.running {
            running.controller.set_period(period);
        }
    }

    /// The places where the service listens have changed.
    pub(crate) fn places_changed(&self) {
        let mut state = lock(&self.state);
        if state.running.is_none() {
            return;
        }
        if let Err(error) = self.start(&mut state) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the beacon has ended");
        }
        self.announce(&mut state);
    }

    /// Where beacons say that a key is.
    pub(crate) fn lookup(&self, key: PublicKey) -> Vec<Endpoint> {
        lock(&self.heard.table).neighbours.lookup(key)
    }

    /// The same; if nobody has said it, asks and waits until somebody does.
    /// Ends early when `given_up` says so, which [`LanBeacon::nudge`] has it asked.
    pub(crate) fn find(
        &self,
        key: PublicKey,
        deadline: Instant,
        given_up: impl Fn() -> bool,
    ) -> Result<Vec<Endpoint>, LanError> {
        self.listen()?;
        let mut asked = false;
        let mut table = lock(&self.heard.table);
        loop {
            let found = table.neighbours.lookup(key);
            if !found.is_empty() {
                return Ok(found);
            }
            if table.closed {
                return Err(LanError::Closed);
            }
            if !asked {
                drop(table);
                tracing::trace!(peer = %key, "asking the local network");
                self.search();
                asked = true;
                table = lock(&self.heard.table);
                continue;
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() || given_up() {
                return Err(LanError::TimedOut);
            }
            table = self.heard.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has everybody who waits in `find` ask whether to go on.
    pub(crate) fn nudge(&self) {
        drop(lock(&self.heard.table));
        self.heard.changed.notify_all();
    }

    /// The keys that beacons name.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        lock(&self.heard.table).neighbours.keys()
    }

    /// The port that is shared with other beacons, once one is running.
    pub(crate) fn port(&self) -> Option<u16> {
        lock(&self.state).running.as_ref().map(|running| running.controller.port())
    }

    pub(crate) fn warnings(&self) -> Vec<Warning> {
        lock(&self.state).running.as_ref().map(|running| running.controller.warnings()).unwrap_or_default()
    }

    pub(crate) const fn receiver(&self) -> &Receiver<Endpoint> {
        &self.endpoints
    }

    /// Whether it is, for good.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.heard.table).closed
    }

    /// Says goodbye and ends every wait.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        lock(&self.heard.table).closed = true;
        self.heard.changed.notify_all();
        state.running = None;
        state.feed = None;
    }

    fn search(&self) {
        if let Some(running) = &lock(&self.state).running {
            running.controller.search();
        }
    }

    /// Has a beacon run on the interfaces on which it is of use.
    fn start(&self, state: &mut State) -> Result<(), LanError> {
        let Some(feed) = &state.feed else { return Err(LanError::Closed) };
        let interfaces = self.interfaces().ok_or(LanError::Off)?;
        if state.running.as_ref().is_some_and(|running| running.interfaces == interfaces) {
            return Ok(());
        }
        // Its thread has ended when this returns, and with it what it might still have said.
        state.running = None;
        lock(&self.heard.table).neighbours.clear();
        let config = BeaconConfig::new(state.port)
            .period(state.period)
            .secret(self.secret.clone())
            .interfaces(interfaces.clone());
        let (heard, to, own) = (Arc::clone(&self.heard), feed.clone(), self.own);
        let controller = Beacon::listen_with(config, move |message| heard.take(&message, own, &to))
            .map_err(LanError::Start)?;
        state.port = controller.port();
        state.running = Some(Running {
            #[cfg(feature = "mdns")]
            mdns: self.start_mdns(&interfaces, feed),
            controller,
            interfaces,
        });
        self.announce(state);
        Ok(())
    }

    /// Where beacons make sense: not beyond this machine if the service cannot be reached from there.
    fn interfaces(&self) -> Option<Interfaces> {
        let places = self.listeners.local_endpoints();
        let is_local =
            !places.is_empty() && places.iter().all(|place| place.addr().ip().to_canonical().is_loopback());
        match self.lan {
            Lan::Off => None,
            Lan::Loopback => Some(Interfaces::Loopback),
            Lan::On if is_local => Some(Interfaces::Loopback),
            Lan::On => Some(Interfaces::Lan),
        }
    }

    /// Not beside a private beacon, as it would tell everybody, nor where only this machine is to know.
    #[cfg(feature = "mdns")]
    fn start_mdns(&self, interfaces: &Interfaces, feed: &Feed) -> Option<Mdns> {
        if !self.uses_mdns || self.secret.is_some() || *interfaces == Interfaces::Loopback {
            return None;
        }
        let (heard, feed) = (Arc::clone(&self.heard), feed.clone());
        let started = Mdns::start(self.own, move |found| match found {
            Found::Service { address, key, endpoints } => {
                heard.note(Speaker::by_mdns(address), key, endpoints, &feed);
            }
            Found::Gone { address } => lock(&heard.table).neighbours.left(Speaker::by_mdns(address)),
        });
        started.inspect_err(|error| tracing::warn!(%error, "no multicast DNS")).ok()
    }

    fn announce(&self, state: &mut State) {
        let Some(running) = &mut state.running else { return };
        let places = if state.enabled { self.listeners.local_endpoints() } else { Vec::new() };
        #[cfg(feature = "mdns")]
        if let Some(mdns) = &mut running.mdns {
            mdns.announce(&places);
        }
        let announcement = Announcement::new(self.own, places);
        if announcement.is_empty() {
            return running.controller.hide();
        }
        if let Err(error) = running.controller.set_data(announcement.encode()) {
            tracing::warn!(%error, "this service is not announced");
        }
    }
}

impl Heard {
    fn take(&self, message: &Message, own: PublicKey, feed: &Feed) {
        let speaker = Speaker {
            interface_index: message.interface_index(),
            source: message.source(),
            other_source: message.other_source(),
        };
        if matches!(message.news(), News::Left(_)) {
            return lock(&self.table).neighbours.left(speaker);
        }
        let announcement = match Announcement::decode(message.payload()) {
            Ok(announcement) => announcement,
            Err(error) => return tracing::debug!(source = %message.source(), %error, "a beacon of others"),
        };
        if announcement.key() == own {
            return;
        }
        let sources: Vec<_> = [Some(speaker.source), speaker.other_source].into_iter().flatten().collect();
        let endpoints = announcement.endpoints(&Arrival {
            sources: &sources,
            interface_index: speaker.interface_index,
            is_on_link: &|address| message.is_on_link(address),
        });
        self.note(speaker, announcement.key(), endpoints, feed);
    }

    fn note(&self, speaker: Speaker, key: PublicKey, endpoints: Vec<Endpoint>, feed: &Feed) {
        let new = lock(&self.table).neighbours.heard(speaker, key, endpoints);
        if !new.is_empty() {
            self.changed.notify_all();
        }
        new.into_iter().for_each(|endpoint| feed.put(endpoint));
    }
}

/// What is inside is whole at every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enough for every peer of a crowded network while the application is busy.
const QUEUE_ENDPOINTS: usize = 512;

/// A peer that vanished is forgotten after a few seconds.
const PERIOD: Duration = Duration::from_secs(1);
