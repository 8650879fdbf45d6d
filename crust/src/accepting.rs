use std::{io, net::SocketAddr};

use transport::{Endpoint, ListenEndpoint};

use crate::shared::Shared;

/// The iterator of [`ServiceController::accepting_endpoints`](crate::ServiceController::accepting_endpoints).
#[derive(Debug)]
pub struct AcceptingEndpoints<'c> {
    shared: &'c Shared,
    places: std::vec::IntoIter<ListenEndpoint>,
}

/// A place where a service listens.
///
/// ```
/// use crust::{Config, Service};
///
/// let place = "tcp://127.0.0.1:0".parse()?;
/// let service = Service::new_from_config(Config::new().listen([place]))?;
/// for accepting in service.controller.accepting_endpoints() {
///     for known in accepting.known_endpoints()? {
///         println!("{} is reached at {}", accepting.local_endpoint(), known.endpoint);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AcceptingEndpoint<'c> {
    shared: &'c Shared,
    local: ListenEndpoint,
}

/// Where others reach a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedEndpoint {
    /// What to dial.
    pub endpoint: Endpoint,
    /// Whether a NAT lets only those in to whom something was sent before.
    pub nat_restricted: bool,
}

/// The iterator of [`AcceptingEndpoint::known_endpoints`].
#[derive(Debug)]
pub struct KnownEndpoints(std::vec::IntoIter<MappedEndpoint>);

/// The iterator of [`AcceptingEndpoint::mapped_endpoints`].
#[derive(Debug)]
pub struct MappedEndpoints(std::vec::IntoIter<MappedEndpoint>);

impl<'c> AcceptingEndpoints<'c> {
    pub(crate) fn new(shared: &'c Shared) -> Self {
        Self { shared, places: shared.listeners.local_endpoints().into_iter() }
    }
}

impl<'c> Iterator for AcceptingEndpoints<'c> {
    type Item = AcceptingEndpoint<'c>;

    fn next(&mut self) -> Option<AcceptingEndpoint<'c>> {
        self.places.next().map(|local| AcceptingEndpoint { shared: self.shared, local })
    }
}

impl AcceptingEndpoint<'_> {
    /// Where it listens.
    #[must_use]
    pub const fn local_endpoint(&self) -> &ListenEndpoint {
        &self.local
    }

    /// Where it is reached as far as that is known without asking anybody: this host's addresses, and what a router forwards
    /// already.
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn known_endpoints(&self) -> io::Result<KnownEndpoints> {
        let hosts = self.shared.mapping.host_endpoints(self.local.addr())?;
        let mut known: Vec<MappedEndpoint> = hosts.iter().map(|host| self.at(host.addr)).collect();
        // A firewall's hole leads to an address of this host's own.
        let forwarded = self.shared.forwarded.leads_to(&self.local).map(|addr| self.at(addr));
        known.extend(forwarded.filter(|forwarded| !known.contains(forwarded)));
        Ok(KnownEndpoints(known.into_iter()))
    }

    /// The same, after asking a router to forward the port, which it then does for as long as the service lives. Blocks
    /// until a router has answered, three seconds at most, about two if none does; not at all if one does so already, or
    /// [none may be asked](crate::Config::port_map).
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces. That no router helps is no error.
    pub fn mapped_endpoints(&self) -> io::Result<MappedEndpoints> {
        self.shared.map_listener(self.local);
        Ok(MappedEndpoints(self.known_endpoints()?.0))
    }

    fn at(&self, addr: SocketAddr) -> MappedEndpoint {
        let endpoint = Endpoint::new(self.local.scheme(), addr, self.shared.transport.public_key());
        MappedEndpoint { endpoint, nat_restricted: false }
    }
}

impl Iterator for KnownEndpoints {
    type Item = MappedEndpoint;

    fn next(&mut self) -> Option<MappedEndpoint> {
        self.0.next()
    }
}

impl Iterator for MappedEndpoints {
    type Item = MappedEndpoint;

    fn next(&mut self) -> Option<MappedEndpoint> {
        self.0.next()
    }
}
