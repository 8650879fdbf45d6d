use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::ControlFlow,
    sync::Arc,
    thread,
};

use nat_traversal::{
    MapError, MapFailure, MappedSocketAddr, MappedTcpSocket, MappingContext, PortLease,
    protocol::{Mapper, Mapping},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::Hold;
use crate::{
    PathKind, Scheme,
    io::{
        clock,
        crank::Waited,
        slot::Slot,
        udp::{SharedMachine, UdpSocket},
    },
    protocol::offer::Hole,
    rendezvous::{Listening, RendezvousError, RendezvousOptions},
    transport::Shared,
};

/// What a meeting needs of ours.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) sockets: Vec<(Hole, PunchSocket, Vec<MappedSocketAddr>)>,
    pub(crate) listeners: Vec<(Scheme, SocketAddr)>,
    pub(crate) failures: Vec<MapFailure>,
    pub(crate) leases: Vec<PortLease>,
    /// Servers were asked by UDP, and none answered.
    pub(crate) udp_silent: bool,
}

/// What was learned about one socket.
struct MappedHole {
    endpoints: Vec<MappedSocketAddr>,
    failures: Vec<MapFailure>,
    /// Whether a server answered, if one was asked.
    answered: Option<bool>,
}

/// A socket to punch from.
#[derive(Debug)]
pub(crate) enum PunchSocket {
    Udp(Hold),
    Tcp(Socket),
}

pub(crate) fn prepare(
    shared: &Arc<Shared>,
    listening: Listening,
    context: &MappingContext,
    options: &RendezvousOptions,
) -> Result<Prepared, RendezvousError> {
    if shared.is_closed() {
        return Err(RendezvousError::Closed);
    }
    let relayed = options.ways.contains(PathKind::Relayed);
    let relays = if relayed { &options.relays[..] } else { &[] };
    let punches = options.ways.contains(PathKind::Punched);
    // The peer's relay is reached from a socket of ours, and lets in whom it was told of.
    let udp = if options.udp && (punches || relayed && relays.is_empty()) {
        udp_sockets(shared, &listening)?
    } else {
        Vec::new()
    };
    let (mapped_udp, mapped_tcp) = thread::scope(|scope| {
        let tcp = (options.tcp && punches).then(|| {
            let families =
                [(Hole::TcpV4, Ipv4Addr::UNSPECIFIED.into()), (Hole::TcpV6, Ipv6Addr::UNSPECIFIED.into())];
            let bound = local_ip(&listening);
            families.map(|(hole, unspecified)| {
                let ip =
                    bound.filter(|ip: &IpAddr| ip.is_ipv4() == (hole == Hole::TcpV4)).unwrap_or(unspecified);
                (hole, scope.spawn(move || map_tcp(ip, context)))
            })
        });
        let udp = map_udp(shared, &udp, context, options);
        let tcp: Vec<_> = tcp.into_iter().flatten().map(|(hole, thread)| (hole, thread.join())).collect();
        (udp, tcp)
    });
    let (mut sockets, mut failures, mut leases) = (Vec::new(), Vec::new(), Vec::new());
    let mapped_udp = mapped_udp?;
    let answers = || mapped_udp.iter().filter_map(|mapped| mapped.answered);
    let udp_silent = answers().next().is_some() && !answers().any(|answered| answered);
    for ((hole, hold), MappedHole { mut endpoints, failures: failed, .. }) in udp.into_iter().zip(mapped_udp)
    {
        failures.extend(failed);
        if hole == Hole::UdpV4 {
            // A peer tries no more than sixteen, and these come last.
            endpoints.truncate(MAX_ENDPOINTS - relays.len());
            endpoints.extend(relays.iter().map(|(_, endpoint)| *endpoint));
        }
        sockets.push((hole, PunchSocket::Udp(hold), endpoints));
    }
    if !sockets.iter().any(|(hole, ..)| *hole == Hole::UdpV4)
        && let Some((relay, _)) = relays.first()
    {
        let endpoints = relays.iter().map(|(_, endpoint)| *endpoint).collect();
        sockets.push((Hole::UdpV4, PunchSocket::Udp(Hold::new(shared, relay.clone())), endpoints));
    }
    for (hole, mapped) in mapped_tcp {
        match mapped.unwrap_or_else(|_| Err(MapError::Socket(io::Error::other("the thread panicked")))) {
            Ok(mapped) => {
                failures.extend(mapped.failures);
                leases.extend(mapped.lease);
                sockets.push((hole, PunchSocket::Tcp(mapped.socket), mapped.endpoints));
            }
            Err(MapError::Interrupted) => return Err(RendezvousError::Interrupted),
            // A host without that family, mostly.
            Err(error) => tracing::debug!(%error, ?hole, "no TCP socket to punch from"),
        }
    }
    // Nobody can be told to punch towards nothing.
    sockets.retain(|(.., endpoints)| !endpoints.is_empty());
    let listeners = told_listeners(&listening, &sockets, context, options)?;
    Ok(Prepared { sockets, listeners, failures, leases, udp_silent })
}

/// Where the peer may come to us, unless we want nobody at our listeners.
fn told_listeners(
    listening: &Listening,
    sockets: &[(Hole, PunchSocket, Vec<MappedSocketAddr>)],
    context: &MappingContext,
    options: &RendezvousOptions,
) -> io::Result<Vec<(Scheme, SocketAddr)>> {
    if ![PathKind::Lan, PathKind::Direct].into_iter().any(|kind| options.ways.contains(kind)) {
        return Ok(Vec::new());
    }
    let mut listeners = options.also_at.clone();
    if options.listeners {
        listeners.extend(listener_addrs(listening, sockets, context)?);
    }
    Ok(listeners)
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

/// Asks the servers from the sockets, all at once.
fn map_udp(
    shared: &Arc<Shared>,
    sockets: &[(Hole, Hold)],
    context: &MappingContext,
    options: &RendezvousOptions,
) -> Result<Vec<MappedHole>, RendezvousError> {
    let slot = shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let mut machines: Vec<_> = sockets
        .iter()
        .map(|(_, hold)| {
            let mapper = context.mapper(hold.socket().local());
            (SharedMachine::new(shared, &slot, hold.socket(), mapper), None)
        })
        .collect();
    loop {
        match map_some(shared, &slot, &mut machines, options)? {
            ControlFlow::Break(()) => break,
            ControlFlow::Continue(()) => {}
        }
    }
    let mapped = sockets.iter().zip(machines).map(|((_, hold), (_, mapping))| {
        let Mapping { addresses, failures, .. } = mapping.unwrap_or_default();
        let answered = (!addresses.is_empty() || !failures.is_empty()).then_some(!addresses.is_empty());
        let mut endpoints = context.host_endpoints(hold.socket().local())?;
        for seen in addresses {
            // An address of this host that servers see as well has no NAT before it.
            if endpoints.iter().all(|known| known.addr != seen.addr) {
                endpoints.push(seen);
            }
        }
        Ok(MappedHole { endpoints, failures, answered })
    });
    mapped.collect()
}

type Mappers = [(SharedMachine<Mapper>, Option<Mapping>)];

/// One round: whatever came or is due; then waits if something is still awaited.
fn map_some(
    shared: &Shared,
    slot: &Arc<Slot>,
    machines: &mut Mappers,
    options: &RendezvousOptions,
) -> Result<ControlFlow<()>, RendezvousError> {
    let now = clock::now();
    for (machine, mapping) in machines.iter_mut() {
        if mapping.is_none() {
            *mapping = machine.turn(now);
        }
    }
    let waiting = machines.iter().filter(|(_, mapping)| mapping.is_none());
    let due: Vec<_> = waiting.map(|(machine, _)| machine.timeout()).collect();
    if due.is_empty() {
        return Ok(ControlFlow::Break(()));
    }
    if options.interrupter.as_ref().is_some_and(crate::Interrupter::is_interrupted) {
        return Err(RendezvousError::Interrupted);
    }
    // A mapper always has a deadline of its own.
    match shared.crank.wait(slot, due.into_iter().flatten().min()) {
        Waited::Closed => Err(RendezvousError::Closed),
        Waited::Ready | Waited::TimedOut => Ok(ControlFlow::Continue(())),
    }
}

fn map_tcp(ip: IpAddr, context: &MappingContext) -> Result<MappedTcpSocket, MapError> {
    let address = SocketAddr::new(ip, 0);
    let socket = reusable_tcp(address).map_err(|source| MapError::Bind { address, source })?;
    MappedTcpSocket::map(socket, context)
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
    punching: &[(Hole, PunchSocket, Vec<MappedSocketAddr>)],
    context: &MappingContext,
) -> io::Result<Vec<(Scheme, SocketAddr)>> {
    let is_punching = |addr: SocketAddr| {
        punching.iter().any(|(_, socket, _)| match socket {
            PunchSocket::Udp(hold) => hold.socket().local() == addr,
            PunchSocket::Tcp(_) => false,
        })
    };
    let udp = listening.udp.iter().map(|socket| (Scheme::Quic, socket.local()));
    let udp = udp.filter(|(_, addr)| !is_punching(*addr));
    let mut addrs = Vec::new();
    for (scheme, local) in udp.chain(listening.tcp.iter().map(|addr| (Scheme::Tcp, *addr))) {
        addrs.extend(context.host_endpoints(local)?.into_iter().map(|endpoint| (scheme, endpoint.addr)));
    }
    Ok(addrs)
}

/// As many as a rendezvous information has.
const MAX_ENDPOINTS: usize = 16;
