//! What a meeting needs of ours, as far as it takes no time.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use nat_traversal::{MappedSocketAddr, MappingConfig, MappingContext};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Hold,
    half::{Half, OpenHole, PunchSocket},
};
use crate::{
    PathKind, Scheme,
    io::udp::UdpSocket,
    protocol::offer::Hole,
    rendezvous::{Listening, RendezvousError, RendezvousOptions},
    transport::Shared,
};

/// Opens the sockets to punch from. Does not wait for anything.
pub(crate) fn open(
    shared: &Arc<Shared>,
    listening: &Listening,
    options: &RendezvousOptions,
) -> Result<Arc<Half>, RendezvousError> {
    if shared.is_closed() {
        return Err(RendezvousError::Closed);
    }
    let hosts = MappingContext::new(MappingConfig::new()).map_err(io::Error::other)?;
    let punches = options.ways.contains(PathKind::Punched);
    // The peer's relay is reached from a socket of ours, and lets in whom it was told of.
    let has_relay = options.relay_follows || !options.relays.is_empty();
    let reaches_relays = options.ways.contains(PathKind::Relayed) && !has_relay;
    let is_direct = options.udp && (punches || reaches_relays);
    let mut holes = Vec::new();
    for (hole, hold) in udp_sockets(shared, listening)? {
        let local = hold.socket().local();
        // One that is only for relays tells nothing of its own.
        let mut own =
            OpenHole { hole, socket: PunchSocket::Udp(hold), is_direct, hosts: Vec::new(), seen: Vec::new() };
        if is_direct {
            own.hosts = addresses(&hosts, local)?;
            let known = options.known.iter().filter(|(socket, _)| *socket == local);
            own.seen = known.map(|(_, endpoint)| *endpoint).collect();
        }
        holes.push(own);
    }
    if options.tcp && punches {
        holes.extend(tcp_holes(listening, &hosts)?);
    }
    // Where this host has no address of a family, nobody is met by it, unless over a relay.
    holes.retain(|hole| hole.hole == Hole::UdpV4 || !hole.hosts.is_empty());
    let listeners = told_listeners(listening, &holes, &hosts, options)?;
    let half = Half::new(shared, holes, listeners, options);
    for (socket, endpoint) in &options.relays {
        half.add_relay(socket, *endpoint);
    }
    Ok(half)
}

/// Where the peer may come to us, unless we want nobody at our listeners.
fn told_listeners(
    listening: &Listening,
    holes: &[OpenHole],
    hosts: &MappingContext,
    options: &RendezvousOptions,
) -> io::Result<Vec<(Scheme, SocketAddr)>> {
    if ![PathKind::Lan, PathKind::Direct].into_iter().any(|kind| options.ways.contains(kind)) {
        return Ok(Vec::new());
    }
    let mut listeners = options.also_at.clone();
    if options.listeners {
        listeners.extend(listener_addrs(listening, holes, hosts)?);
    }
    Ok(listeners)
}

fn tcp_holes(listening: &Listening, hosts: &MappingContext) -> io::Result<Vec<OpenHole>> {
    let families: [(Hole, IpAddr); 2] =
        [(Hole::TcpV4, Ipv4Addr::UNSPECIFIED.into()), (Hole::TcpV6, Ipv6Addr::UNSPECIFIED.into())];
    let bound = local_ip(listening);
    let mut holes = Vec::new();
    for (hole, unspecified) in families {
        let ip = bound.filter(|ip| ip.is_ipv4() == unspecified.is_ipv4()).unwrap_or(unspecified);
        let socket = match reusable_tcp(SocketAddr::new(ip, 0)) {
            Ok(socket) => socket,
            // A host without that family, mostly.
            Err(error) => {
                tracing::debug!(%error, ?hole, "no TCP socket to punch from");
                continue;
            }
        };
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        let (socket, hosts, seen) = (PunchSocket::Tcp(socket), addresses(hosts, local)?, Vec::new());
        holes.push(OpenHole { hole, socket, is_direct: true, hosts, seen });
    }
    Ok(holes)
}

/// Where a socket is reached on this host's networks; where there is none, by those on this host.
fn addresses(hosts: &MappingContext, local: SocketAddr) -> io::Result<Vec<MappedSocketAddr>> {
    let found = hosts.host_endpoints(local)?;
    if !found.is_empty() || !local.ip().is_unspecified() || !hosts.host_endpoints(ANYWHERE)?.is_empty() {
        return Ok(found);
    }
    let loopback: IpAddr =
        if local.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    hosts.host_endpoints(SocketAddr::new(loopback, local.port()))
}

/// One socket a family: a listener's, one for all interfaces before others; else the one for dialling.
fn udp_sockets(shared: &Arc<Shared>, listening: &Listening) -> io::Result<Vec<(Hole, Hold)>> {
    let mut sockets = Vec::new();
    let families: [(Hole, IpAddr); 2] =
        [(Hole::UdpV4, Ipv4Addr::UNSPECIFIED.into()), (Hole::UdpV6, Ipv6Addr::UNSPECIFIED.into())];
    for (hole, unspecified) in families {
        let of_family = |socket: &&Arc<UdpSocket>| socket.local().is_ipv4() == unspecified.is_ipv4();
        let mut candidates: Vec<_> = listening.udp.iter().filter(of_family).collect();
        candidates.sort_by_key(|socket| !socket.local().ip().is_unspecified());
        if let Some(socket) = candidates.first() {
            sockets.push((hole, Hold::new(shared, (*socket).clone())));
        } else if listening.udp.is_empty() {
            match shared.quic.dialling_socket(shared, SocketAddr::new(unspecified, 0), None) {
                Ok(socket) => sockets.push((hole, Hold::new(shared, socket))),
                Err(error) if hole == Hole::UdpV6 => tracing::debug!(%error, "no IPv6 here"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(sockets)
}

/// If all listeners are bound to one address, so is what is opened beside them.
fn local_ip(listening: &Listening) -> Option<IpAddr> {
    let ips = listening.udp.iter().map(|socket| socket.local().ip());
    let mut ips = ips.chain(listening.tcp.iter().map(SocketAddr::ip));
    let first = ips.next()?;
    ips.all(|ip| ip == first).then_some(first)
}

/// A socket whose port others can share, as TCP punching needs.
fn reusable_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Where streams can simply be dialled; not where we punch from, whose addresses the peer has already.
fn listener_addrs(
    listening: &Listening,
    punching: &[OpenHole],
    hosts: &MappingContext,
) -> io::Result<Vec<(Scheme, SocketAddr)>> {
    let is_punching = |addr: SocketAddr| {
        punching.iter().any(|hole| match &hole.socket {
            PunchSocket::Udp(hold) => hole.is_direct && hold.socket().local() == addr,
            PunchSocket::Tcp(_) => false,
        })
    };
    let udp = listening.udp.iter().map(|socket| (Scheme::Quic, socket.local()));
    let udp = udp.filter(|(_, addr)| !is_punching(*addr));
    let mut addrs = Vec::new();
    for (scheme, local) in udp.chain(listening.tcp.iter().map(|addr| (Scheme::Tcp, *addr))) {
        let endpoints = addresses(hosts, local)?;
        addrs.extend(endpoints.into_iter().map(|endpoint| (scheme, endpoint.addr)));
    }
    Ok(addrs)
}

const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);
