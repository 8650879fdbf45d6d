use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::time::Duration;

use super::interrupt::Interrupter;
use super::run::{RunError, Sockets, run};
use super::{clock, entropy, interfaces, stun_tcp};
use crate::protocol::nat_profile::{BindingLifetime, LifetimeProber, NatProber, NatProfile, Udp};

/// Measures what is between a socket of its own, bound to `bound`, and the internet.
pub(crate) fn measure(
    bound: SocketAddr,
    servers: &[SocketAddr],
    interrupter: &Interrupter,
) -> Result<NatProfile, RunError> {
    let socket = UdpSocket::bind(bound)?;
    let local = socket.local_addr()?;
    let mut hosts = interfaces::host_addresses(local)?;
    // For servers on this host.
    hosts.push(SocketAddr::from((Ipv4Addr::LOCALHOST, local.port())));
    let start = clock::now();
    let further: Vec<UdpSocket> = (0..NatProber::FURTHER)
        .map(|_| UdpSocket::bind(SocketAddr::new(bound.ip(), 0)))
        .collect::<Result<_, _>>()?;
    let ports: Vec<u16> = further
        .iter()
        .map(|socket| socket.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()?;
    let mut prober =
        NatProber::new(start, servers, &hosts, local.port(), entropy::seed()).further_ports(&ports);
    let mut sockets = Sockets::with_further(socket, further);
    // The prober ends by itself before; the driver's deadline is for a machine that does not.
    let end = start + NatProber::MOST + GRACE;
    let mut profile = run(&mut prober, &mut sockets, end, interrupter, ControlFlow::Break)?;
    if profile.udp.is_none() && !servers.is_empty() {
        // Whether the servers are out of reach or UDP is, TCP tells.
        let deadline = clock::now() + TCP_TIME;
        let answers = stun_tcp::learn(local, servers, entropy::seed(), deadline, interrupter)?;
        profile.udp = (!answers.addresses.is_empty()).then_some(Udp::Blocked);
    }
    Ok(profile)
}

/// Measures how long ports of sockets of its own live, one server after the other until one can help.
pub(crate) fn measure_lifetime(
    bound: SocketAddr,
    servers: &[SocketAddr],
    most: Duration,
    interrupter: &Interrupter,
) -> Result<BindingLifetime, RunError> {
    for server in servers {
        let start = clock::now();
        let mut prober = LifetimeProber::new(start, *server, most, entropy::seed());
        let mut sockets = Sockets::new(UdpSocket::bind(bound)?);
        let end = start + LifetimeProber::takes(most) + GRACE;
        let found = run(&mut prober, &mut sockets, end, interrupter, ControlFlow::Break)?;
        if found != BindingLifetime::Unknown {
            return Ok(found);
        }
    }
    Ok(BindingLifetime::Unknown)
}

const GRACE: Duration = Duration::from_secs(1);

/// One second was for UDP; this is what is left of three, less some for a busy machine.
const TCP_TIME: Duration = Duration::from_millis(1_500);
