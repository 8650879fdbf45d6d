use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use beacon::BeaconError;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use transport::Endpoint;

use crate::io::lan::LanBeacon;

/// Whether and where a service uses the local network to be found and to find others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lan {
    /// On every interface; on loopback alone if all places where the service listens are there. The default. Nothing is
    /// sent until the service is announced, beacons are listened to, or a bare key is looked for.
    #[default]
    On,
    /// Only on this machine.
    Loopback,
    /// Not at all.
    Off,
}

/// Switches the announcements of a service on its local network on and off, of which there are none at first.
///
/// What is announced is the service's public key and where it listens; an access token is not. `State` can be known at
/// compile time: a function that takes a `ServiceBeaconState<Disabled>` is never called while the service is announced.
/// Dropping it changes nothing; the service's end is the announcements' end.
///
/// ```
/// use crust::{Config, Enabled, Service, ServiceBeaconState};
///
/// let config = Config::new().listen(["tcp://127.0.0.1:0".parse()?]).lan_port(0);
/// let service = Service::new_from_config(config)?;
/// assert!(!service.beacon_state.is_enabled());
///
/// let state: ServiceBeaconState<Enabled> = service.beacon_state.enable()?;
/// assert!(state.is_enabled());
/// let mut state = ServiceBeaconState::from(state.disable());
/// state.set_enabled(true)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The period of announcements that are known not to be made cannot be set:
///
/// ```compile_fail
/// fn wrong(mut state: crust::ServiceBeaconState<crust::Disabled>) {
///     state.set_period(std::time::Duration::from_secs(2));
/// }
/// ```
pub struct ServiceBeaconState<State: BeaconMarker = Dynamic> {
    lan: Arc<LanBeacon>,
    state: PhantomData<State>,
}

/// Announced or not: known at run time only.
#[derive(Debug, Clone, Copy)]
pub enum Dynamic {}

/// Announced.
#[derive(Debug, Clone, Copy)]
pub enum Enabled {}

/// Not announced.
#[derive(Debug, Clone, Copy)]
pub enum Disabled {}

/// What [`ServiceBeaconState`] can be marked with: [`Dynamic`], [`Enabled`] and [`Disabled`].
pub trait BeaconMarker: sealed::Sealed {}

impl BeaconMarker for Dynamic {}
impl BeaconMarker for Enabled {}
impl BeaconMarker for Disabled {}

mod sealed {
    #[expect(unnameable_types, reason = "that is how it is sealed")]
    pub trait Sealed {}

    impl Sealed for super::Dynamic {}
    impl Sealed for super::Enabled {}
    impl Sealed for super::Disabled {}
}

impl<State: BeaconMarker> ServiceBeaconState<State> {
    /// Whether the service is announced.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.lan.is_enabled()
    }

    /// Announces the service from now on. Takes milliseconds.
    ///
    /// # Errors
    ///
    /// [`EnableError`], which gives the state back.
    pub fn enable(self) -> Result<ServiceBeaconState<Enabled>, EnableError<State>> {
        match self.lan.set_enabled(true) {
            Ok(()) => Ok(self.marked()),
            Err(error) => Err(EnableError { state: self, error }),
        }
    }

    /// Says goodbye and announces the service no longer. Does not wait.
    #[must_use]
    pub fn disable(self) -> ServiceBeaconState<Disabled> {
        // Switching off starts nothing, so it cannot fail.
        let _ = self.lan.set_enabled(false);
        self.marked()
    }

    fn marked<Other: BeaconMarker>(self) -> ServiceBeaconState<Other> {
        ServiceBeaconState { lan: self.lan, state: PhantomData }
    }
}

impl ServiceBeaconState<Dynamic> {
    pub(crate) const fn new(lan: Arc<LanBeacon>) -> Self {
        Self { lan, state: PhantomData }
    }

    /// Sets the time between announcements: a second by default, taken as 20 ms if shorter and as an hour if longer.
    pub fn set_period(&mut self, period: Duration) {
        self.lan.set_period(period);
    }

    /// Announces the service from now on, or no longer.
    ///
    /// # Errors
    ///
    /// [`LanError`] when it is to be announced and cannot be; then it is not.
    pub fn set_enabled(&mut self, enabled: bool) -> Result<(), LanError> {
        self.lan.set_enabled(enabled)
    }
}

impl ServiceBeaconState<Enabled> {
    /// Sets the time between announcements, as for [`Dynamic`].
    pub fn set_period(&mut self, period: Duration) {
        self.lan.set_period(period);
    }
}

impl From<ServiceBeaconState<Enabled>> for ServiceBeaconState<Dynamic> {
    fn from(state: ServiceBeaconState<Enabled>) -> Self {
        state.marked()
    }
}

impl From<ServiceBeaconState<Disabled>> for ServiceBeaconState<Dynamic> {
    fn from(state: ServiceBeaconState<Disabled>) -> Self {
        state.marked()
    }
}

impl<State: BeaconMarker> fmt::Debug for ServiceBeaconState<State> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServiceBeaconState").field("is_enabled", &self.is_enabled()).finish()
    }
}

/// Hears who is announced on the local network.
///
/// What comes out of it are hints: anybody on the network can announce anything. The key is proved on connecting.
/// Listening begins with the first call; it asks who is there, and announces nothing.
///
/// ```
/// use std::time::{Duration, Instant};
/// use crust::{Config, Lan, Service};
///
/// let local = || Config::new().listen(["tcp://127.0.0.1:0".parse().expect("an endpoint")]);
/// let server = Service::new_from_config(local().lan_port(0))?;
/// let _announced = server.beacon_state.enable()?;
/// let port = server.controller.lan_port().expect("it is announced");
///
/// let mut client = Service::new_from_config(Config::new().listen([]).lan(Lan::Loopback).lan_port(port))?;
/// let soon = Instant::now() + Duration::from_secs(10);
/// let endpoint = client.beacon_receiver.next_deadline(soon)?;
/// assert_eq!(endpoint.public_key(), server.controller.public_key());
/// client.controller.connect(endpoint)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ServiceBeaconReceiver {
    lan: Arc<LanBeacon>,
}

impl ServiceBeaconReceiver {
    pub(crate) const fn new(lan: Arc<LanBeacon>) -> Self {
        Self { lan }
    }

    /// Waits for the next endpoint that is announced, for as long as it takes. Each is told when it is first heard, and
    /// again when it is back after it had gone; those of this very service are not.
    ///
    /// # Errors
    ///
    /// [`LanError::Closed`] when the service is shut down, also while waiting, or why listening cannot begin.
    #[expect(clippy::should_implement_trait, reason = "the RFC's name; it can fail")]
    pub fn next(&mut self) -> Result<Endpoint, LanError> {
        self.receiver()?.recv().map_err(|_| LanError::Closed)
    }

    /// Waits for the next endpoint until `deadline`.
    ///
    /// # Errors
    ///
    /// [`LanError::TimedOut`] at the deadline, and those of [`ServiceBeaconReceiver::next`].
    pub fn next_deadline(&mut self, deadline: Instant) -> Result<Endpoint, LanError> {
        self.receiver()?.recv_deadline(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => LanError::TimedOut,
            RecvTimeoutError::Disconnected => LanError::Closed,
        })
    }

    /// The endpoints one after the other, until the service is shut down; each step waits like
    /// [`ServiceBeaconReceiver::next`].
    pub const fn endpoints(&mut self) -> BeaconEndpoints<'_> {
        BeaconEndpoints { receiver: self }
    }

    /// The same as a channel, to wait for endpoints and for other things with one `select!`. It holds 512; when nobody
    /// reads, the oldest are dropped. It is disconnected when the service is shut down.
    ///
    /// # Errors
    ///
    /// [`LanError`] when listening cannot begin.
    pub fn receiver(&self) -> Result<&Receiver<Endpoint>, LanError> {
        self.lan.listen()?;
        Ok(self.lan.receiver())
    }
}

/// The iterator of [`ServiceBeaconReceiver::endpoints`].
#[derive(Debug)]
pub struct BeaconEndpoints<'a> {
    receiver: &'a mut ServiceBeaconReceiver,
}

impl Iterator for BeaconEndpoints<'_> {
    type Item = Endpoint;

    fn next(&mut self) -> Option<Endpoint> {
        self.receiver.next().ok()
    }
}

/// Why the local network cannot be used to be found or to find others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LanError {
    /// The service is shut down.
    #[error("the service is closed")]
    Closed,
    /// The configuration says that the local network is not to be used.
    #[error("the local network is not used: the configuration turns it off")]
    Off,
    /// The beacon cannot be started.
    #[error("the local network cannot be used")]
    Start(#[source] BeaconError),
    /// Nothing was heard before the deadline; waiting again is fine.
    #[error("nothing was heard on the local network before the deadline")]
    TimedOut,
}

/// Why a service is not announced, and its state, as it was before.
#[derive(Debug, thiserror::Error)]
#[error("the service is not announced")]
pub struct EnableError<State: BeaconMarker = Dynamic> {
    state: ServiceBeaconState<State>,
    #[source]
    error: LanError,
}

impl<State: BeaconMarker> EnableError<State> {
    /// The state, to try again with.
    #[must_use]
    pub fn into_state(self) -> ServiceBeaconState<State> {
        self.state
    }

    /// What went wrong.
    #[must_use]
    pub const fn error(&self) -> &LanError {
        &self.error
    }
}
