use transport::{Endpoint, Stream};

use crate::{ConnectError, ServiceController};

/// The iterator of [`ServiceController::iter_endpoint_cache`], the endpoint that worked last first.
#[derive(Debug)]
pub struct EndpointCacheIterator<'c> {
    controller: &'c ServiceController,
    endpoints: std::vec::IntoIter<Endpoint>,
}

/// An endpoint that led to a peer before.
///
/// ```
/// use crust::{Config, Service};
///
/// let local = || Config::new().listen(["tcp://127.0.0.1:0".parse().expect("an endpoint")]);
/// let server = Service::new_from_config(local())?;
/// let client = Service::new_from_config(local())?;
/// client.controller.connect(server.controller.contact()?)?;
///
/// let cached = client.controller.iter_endpoint_cache().next().expect("it was reached a moment ago");
/// assert_eq!(cached.endpoint().public_key(), server.controller.public_key());
/// let _stream = cached.connect()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CachedEndpoint<'c> {
    controller: &'c ServiceController,
    endpoint: Endpoint,
}

impl<'c> EndpointCacheIterator<'c> {
    pub(crate) fn new(controller: &'c ServiceController, endpoints: Vec<Endpoint>) -> Self {
        Self { controller, endpoints: endpoints.into_iter() }
    }
}

impl<'c> Iterator for EndpointCacheIterator<'c> {
    type Item = CachedEndpoint<'c>;

    fn next(&mut self) -> Option<CachedEndpoint<'c>> {
        self.endpoints.next().map(|endpoint| CachedEndpoint { controller: self.controller, endpoint })
    }
}

impl CachedEndpoint<'_> {
    /// The endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Forgets it.
    pub fn remove(self) {
        self.controller.forget(&self.endpoint);
    }

    /// Dials it, and forgets it if that fails. Blocks as [`ServiceController::connect`] does.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] as there.
    pub fn connect(self) -> Result<Stream, ConnectError> {
        let connected = self.controller.connect(self.endpoint);
        if connected.is_err() {
            self.controller.forget(&self.endpoint);
        }
        connected
    }
}
