//! The same as the beacon by DNS-SD over multicast DNS, for tools that know nothing of beacons.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    thread::JoinHandle,
    time::Duration,
};

use beacon::protocol::Network;
use get_if_addrs::IfAddr;
use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use transport::{Endpoint, ListenEndpoint, PublicKey};

use crate::protocol::dns_sd::{self, SERVICE_TYPE};

/// A daemon of its own thread, and a thread that takes what it finds.
pub(crate) struct Mdns {
    daemon: ServiceDaemon,
    own: PublicKey,
    registered: Option<String>,
    thread: Option<JoinHandle<()>>,
}

/// What was found.
pub(crate) enum Found {
    /// A service of this name is there. Its address stands for it, as a beacon's source does.
    Service { address: SocketAddr, key: PublicKey, endpoints: Vec<Endpoint> },
    /// The service that was at this address is gone.
    Gone { address: SocketAddr },
}

impl Mdns {
    /// Asks for services from now on, and hands to `take` what is found.
    pub(crate) fn start(
        own: PublicKey,
        take: impl FnMut(Found) + Send + 'static,
    ) -> Result<Self, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let events = daemon.browse(SERVICE_TYPE)?;
        let mut finder = Finder { own, names: BTreeMap::new(), take };
        let thread = std::thread::Builder::new().name("crust-mdns".into()).spawn(move || {
            // Ends when the daemon does.
            while let Ok(event) = events.recv() {
                finder.handle(event);
            }
        });
        let thread = thread.map_err(|error| mdns_sd::Error::Msg(error.to_string()))?;
        Ok(Self { daemon, own, registered: None, thread: Some(thread) })
    }

    /// Describes the service at these places from now on; without any it is not described.
    pub(crate) fn announce(&mut self, places: &[ListenEndpoint]) {
        if let Err(error) = self.register(places) {
            tracing::warn!(%error, "this service is not announced by multicast DNS");
        }
    }

    fn register(&mut self, places: &[ListenEndpoint]) -> Result<(), mdns_sd::Error> {
        if let Some(name) = self.registered.take() {
            // Its answer says that the goodbye was sent; nothing waits for that.
            drop(self.daemon.unregister(&name)?);
        }
        let Some(description) = dns_sd::describe(self.own, places) else { return Ok(()) };
        let host = format!("{}.local.", description.instance);
        let (instance, addresses) = (&description.instance, &description.addresses[..]);
        let properties = &description.properties[..];
        let mut info =
            ServiceInfo::new(SERVICE_TYPE, instance, &host, addresses, description.port, properties)?;
        if addresses.is_empty() {
            info = info.enable_addr_auto();
        }
        let name = info.get_fullname().to_owned();
        self.daemon.register(info)?;
        self.registered = Some(name);
        Ok(())
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        let ended = self.daemon.shutdown();
        // It says goodbye first.
        if ended.is_ok_and(|ended| ended.recv_timeout(PARTING).is_ok())
            && let Some(thread) = self.thread.take()
        {
            // A panic of the thread has ended it, which is all that is wanted here.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Mdns {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Mdns").field("registered", &self.registered).finish_non_exhaustive()
    }
}

struct Finder<T> {
    own: PublicKey,
    /// The address that stands for each service.
    names: BTreeMap<String, SocketAddr>,
    take: T,
}

impl<T: FnMut(Found)> Finder<T> {
    fn handle(&mut self, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => self.resolved(&service),
            ServiceEvent::ServiceRemoved(_, name) => {
                if let Some(address) = self.names.remove(&name) {
                    (self.take)(Found::Gone { address });
                }
            }
            _ => {}
        }
    }

    fn resolved(&mut self, service: &ResolvedService) {
        let addresses = on_link(service);
        let property = |name: &str| service.get_property_val_str(name);
        let found = dns_sd::endpoints(property, &addresses);
        let Some((key, endpoints)) = found.filter(|(key, _)| *key != self.own) else { return };
        let Some(&address) = addresses.first() else { return };
        let name = service.get_fullname().to_owned();
        if self.names.len() >= MAX_NAMES && !self.names.contains_key(&name) {
            return;
        }
        if let Some(before) = self.names.insert(name, address).filter(|before| *before != address) {
            (self.take)(Found::Gone { address: before });
        }
        (self.take)(Found::Service { address, key, endpoints });
    }
}

/// A service's addresses that can be reached without a router on the interface by which they were heard.
fn on_link(service: &ResolvedService) -> Vec<SocketAddr> {
    let interfaces = get_if_addrs::get_if_addrs().unwrap_or_default();
    let is_near = |index: u32, address: IpAddr| {
        interfaces.iter().filter(|interface| interface.index == Some(index)).any(|interface| {
            let prefix_bits = match &interface.addr {
                IfAddr::V4(v4) => v4.prefixlen,
                IfAddr::V6(v6) => v6.prefixlen,
            };
            Network { address: interface.ip(), prefix_bits }.contains(address)
        })
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in service.get_addresses() {
        match address {
            ScopedIp::V4(v4) => {
                let ip = IpAddr::V4(*v4.addr());
                if v4.interface_ids().iter().any(|interface| is_near(interface.index, ip)) {
                    addresses.push(SocketAddr::new(ip, service.get_port()));
                }
            }
            ScopedIp::V6(v6) => {
                let (ip, index) = (*v6.addr(), v6.scope_id().index);
                if is_near(index, ip.into()) {
                    let scope = if ip.is_unicast_link_local() { index } else { 0 };
                    addresses.push(SocketAddrV6::new(ip, service.get_port(), 0, scope).into());
                }
            }
            _ => {}
        }
    }
    addresses.sort();
    addresses
}

/// As many as of beacons.
const MAX_NAMES: usize = 1024;

/// The goodbye is one datagram an interface.
const PARTING: Duration = Duration::from_secs(1);
