//! UPnP by the library `igd`, whose calls block: at most ten seconds and 1 MiB an answer, no redirects, and only the
//! address that answered the search is talked to. All of this runs on the worker of [`slow`](super::slow).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::thread;
use std::time::Duration;

use igd::{AddPortError, Gateway, PinholeError, PortMappingProtocol, RequestError, SearchOptions};

use super::interfaces::{self, Interface};
use crate::protocol::port_map::{PortMapRequest, PortProtocol, UpnpAnswer};

/// A router that speaks UPnP, and the address of ours that it is to forward to.
#[derive(Debug, Clone)]
pub(crate) struct UpnpRouter {
    gateway: Kind,
    local: SocketAddr,
    protocol: PortMappingProtocol,
    /// Number of the pinhole in an IPv6 firewall, once there is one.
    pinhole: Option<u16>,
}

#[derive(Debug, Clone)]
enum Kind {
    Nat(Box<Gateway>),
    Firewall(igd::Ipv6FirewallGateway),
}

/// Whom to ask, and where to search.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    /// Routers that the user named.
    pub(crate) known: Vec<Gateway>,
    /// The one router to ask instead of searching all networks.
    pub(crate) router: Option<IpAddr>,
}

impl UpnpRouter {
    /// Searches on every interface at once; the router of the interface that our port is on is preferred.
    pub(crate) fn find(search: &Search, request: PortMapRequest) -> Result<Self, Cow<'static, str>> {
        let own = |ip: IpAddr| SocketAddr::new(ip, request.local.port());
        let protocol = match request.protocol {
            PortProtocol::Udp => PortMappingProtocol::UDP,
            PortProtocol::Tcp => PortMappingProtocol::TCP,
        };
        let found = |gateway, local| Self { gateway, local, protocol, pinhole: None };
        if request.local.is_ipv4()
            && let Some(gateway) = search.known.first()
        {
            let local = interfaces::local_towards(gateway.addr).unwrap_or_else(|| request.local.ip());
            return Ok(found(Kind::Nat(Box::new(gateway.clone())), own(local)));
        }
        let interfaces = interfaces_to_search(search, request.local.ip())?;
        let results: Vec<_> = thread::scope(|scope| {
            let searches: Vec<_> = interfaces
                .iter()
                .map(|interface| {
                    thread::Builder::new()
                        .name("nat-slow".into())
                        .spawn_scoped(scope, move || (interface, search_one(search, interface)))
                })
                .collect();
            searches.into_iter().flatten().filter_map(|search| search.join().ok()).collect()
        });
        let mut reason = Cow::Borrowed("no interface to search on");
        for (interface, result) in results {
            match result {
                Ok(gateway) => return Ok(found(gateway, own(interface.ip))),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    /// Where the router is.
    pub(crate) fn address(&self) -> IpAddr {
        match &self.gateway {
            Kind::Nat(gateway) => gateway.addr.ip(),
            Kind::Firewall(gateway) => gateway.addr.ip(),
        }
    }

    /// Has the port forwarded, by the wanted number if that is free.
    pub(crate) fn add(&mut self, wanted: u16, lifetime: Duration) -> UpnpAnswer {
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let added = match self.gateway.clone() {
            Kind::Nat(gateway) => self.add_to_nat(&gateway, wanted, seconds),
            Kind::Firewall(gateway) => self.add_to_firewall(&gateway, seconds),
        };
        match added {
            Ok((external, lifetime)) => UpnpAnswer::Added { external, lifetime },
            Err(reason) => UpnpAnswer::Refused(reason),
        }
    }

    /// Ends the forwarding.
    pub(crate) fn remove(&mut self, external_port: u16) {
        let outcome = match (&self.gateway, self.pinhole) {
            (Kind::Nat(gateway), _) => {
                gateway.remove_port(self.protocol, external_port).map_err(|e| e.to_string())
            }
            (Kind::Firewall(gateway), Some(number)) => {
                gateway.remove_pinhole(number).map_err(|e| e.to_string())
            }
            (Kind::Firewall(_), None) => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::debug!(router = %self.address(), external_port, error, "the router keeps a port");
        }
    }

    fn add_to_nat(&self, gateway: &Gateway, wanted: u16, seconds: u32) -> Result<Added, Cow<'static, str>> {
        let external = gateway.get_external_ip().map_err(|error| shown(&error))?;
        if external.is_unspecified() {
            return Err("it has no outside address itself".into());
        }
        let mut lease = seconds;
        let mut result = gateway.add_port(self.protocol, wanted, self.local, lease, DESCRIPTION);
        if matches!(result, Err(AddPortError::OnlyPermanentLeasesSupported)) {
            lease = 0;
            result = gateway.add_port(self.protocol, wanted, self.local, lease, DESCRIPTION);
        }
        let port = match result {
            Ok(()) => wanted,
            Err(error) if is_about_the_port(&error) => gateway
                .add_any_port(self.protocol, self.local, lease, DESCRIPTION)
                .map_err(|error| shown(&error))?,
            Err(error) => return Err(shown(&error)),
        };
        let lifetime = (lease > 0).then(|| Duration::from_secs(u64::from(lease)));
        Ok((SocketAddr::new(external, port), lifetime))
    }

    fn add_to_firewall(
        &mut self,
        gateway: &igd::Ipv6FirewallGateway,
        seconds: u32,
    ) -> Result<Added, Cow<'static, str>> {
        let SocketAddr::V6(local) = self.local else { return Err("it is asked for IPv6 only".into()) };
        let seconds = seconds.clamp(1, MAX_PINHOLE_S);
        let lifetime = Some(Duration::from_secs(u64::from(seconds)));
        if let Some(number) = self.pinhole {
            match gateway.update_pinhole(number, seconds) {
                Ok(()) => return Ok((self.local, lifetime)),
                // Forgotten by a router that has restarted, perhaps.
                Err(_) => self.pinhole = None,
            }
        }
        let number = gateway
            .add_pinhole(self.protocol, local, seconds)
            .map_err(|error: PinholeError| shown(&error))?;
        self.pinhole = Some(number);
        Ok((self.local, lifetime))
    }
}

type Added = (SocketAddr, Option<Duration>);

/// Another port may do where this one does not.
fn is_about_the_port(error: &AddPortError) -> bool {
    match error {
        AddPortError::PortInUse
        | AddPortError::ExternalPortZeroInvalid
        | AddPortError::SamePortValuesRequired => true,
        // 729, ConflictWithOtherMechanisms: another protocol than UPnP has given it to someone (IGD 2, table 2-30).
        AddPortError::RequestError(RequestError::ErrorCode(code, _)) => *code == 729,
        _ => false,
    }
}

fn interfaces_to_search(search: &Search, local: IpAddr) -> Result<Vec<Interface>, Cow<'static, str>> {
    let mut interfaces = interfaces::all().map_err(|error| shown(&error))?;
    interfaces.retain(|interface| interface.ip.is_ipv4() == local.is_ipv4());
    if search.router.is_some() {
        interfaces.retain(|interface| interface.ip == local);
        if interfaces.is_empty() {
            // An address such as 127.0.0.5, which is of the interface of 127.0.0.1 without being listed.
            interfaces.push(Interface { ip: local, prefix_bits: 128, index: None });
        }
    } else {
        interfaces.retain(|interface| !interface.ip.is_loopback());
    }
    interfaces.sort_by_key(|interface| interface.ip != local);
    interfaces.truncate(MAX_INTERFACES);
    Ok(interfaces)
}

fn search_one(search: &Search, interface: &Interface) -> Result<Kind, Cow<'static, str>> {
    let mut options = match interface.ip {
        IpAddr::V4(_) => SearchOptions::default(),
        IpAddr::V6(_) => SearchOptions::ipv6(interface.index.unwrap_or(0)),
    };
    options.timeout = Some(SEARCH_TIME);
    options.single_search_timeout = Some(SEARCH_TIME);
    if let Some(router) = search.router {
        // UPnP 1.1, section 1.3.2: one device may be asked alone.
        options.broadcast_address = SocketAddr::new(router, SSDP_PORT);
        options.allowed_gateway_ips.extend(router.is_loopback().then_some(router));
    }
    options.bind_addr = match interface.ip {
        IpAddr::V4(ip) => SocketAddr::from((ip, 0)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, 0, 0, interface.index.unwrap_or(0)).into(),
    };
    let (found, address) = if interface.ip.is_ipv4() {
        let gateway = igd::search_gateway(options).map_err(|error| shown(&error))?;
        let address = gateway.addr.ip();
        (Kind::Nat(Box::new(gateway)), address)
    } else {
        let gateway = igd::search_ipv6_firewall_gateway(options).map_err(|error| shown(&error))?;
        let address = gateway.addr.ip();
        (Kind::Firewall(gateway), address)
    };
    // Whoever is on the link may answer, but nobody from elsewhere.
    let is_near = search.router == Some(address)
        || interface.has_neighbour(address)
        || matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if is_near {
        Ok(found)
    } else {
        Err(format!("{address} answered, which is not on the network of {}", interface.ip).into())
    }
}

/// The text of an error, which may carry what the router sent, in bounds.
fn shown(error: &dyn std::fmt::Display) -> Cow<'static, str> {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    Cow::Owned(error.to_string().chars().take(MAX_REASON_CHARS).map(printable).collect())
}

/// What routers show in their lists.
const DESCRIPTION: &str = "nat-traversal";

/// A router on the link answers within the second that the request allows; its descriptions take two requests more.
const SEARCH_TIME: Duration = Duration::from_millis(1_500);

/// Each has a thread while it is searched.
const MAX_INTERFACES: usize = 8;

/// Longest life of a pinhole (WANIPv6FirewallControl, section 2.3.4).
const MAX_PINHOLE_S: u32 = 86_400;

/// UPnP's port for searches.
const SSDP_PORT: u16 = 1_900;

/// Longer reasons are not for people.
const MAX_REASON_CHARS: usize = 200;
