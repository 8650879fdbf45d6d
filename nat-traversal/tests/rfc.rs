//! The names of the RFC, with its signatures: a change of any of them does not compile.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nat_traversal::{
    AddrKind, HolePunchServer, HolePunchServerAddr, MapError, MapFailure, MappedSocketAddr, MappedTcpSocket,
    MappedUdpSocket, MappingConfig, MappingContext, NatProfile, PortLease, PrivRendezvousInfo,
    PubRendezvousInfo, PunchError, PunchedUdpSocket, gen_rendezvous_info, tcp_punch_hole,
};
use socket2::{Domain, Socket, Type};

/// The RFC's own program: two peers who can tell each other a line of text send each other datagrams. What it does with
/// `new`, on all interfaces, the tests in laboratories call; here it is done on loopback.
fn meets_a_peer(
    servers: [SocketAddr; 2],
    tell: &Sender<String>,
    hear: &Receiver<String>,
) -> Result<(UdpSocket, SocketAddr), Box<dyn std::error::Error>> {
    let context = MappingContext::new(MappingConfig::new())?;
    context.add_servers(servers.map(HolePunchServerAddr::Stun));

    let mapped = MappedUdpSocket::map(UdpSocket::bind("127.0.0.1:0")?, &context)?;
    let (ours, public): (PrivRendezvousInfo, PubRendezvousInfo) = gen_rendezvous_info(mapped.endpoints);
    tell.send(public.to_string())?;
    let theirs: PubRendezvousInfo = hear.recv()?.parse()?;

    let deadline = Instant::now() + PATIENCE;
    let PunchedUdpSocket { socket, peer_addr, .. } =
        PunchedUdpSocket::punch_hole(mapped.socket, ours, &theirs, &context, deadline)?;
    socket.send_to(b"hello", peer_addr)?;
    Ok((socket, peer_addr))
}

#[test]
fn the_program_of_the_rfc_runs() {
    let servers = [server(), server()];
    let addresses = servers.each_ref().map(|server| server.addresses()[0].addr);
    let ((tell_a, hear_a), (tell_b, hear_b)) = (channel(), channel());
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            let (socket, peer) = meets_a_peer(addresses, &tell_a, &hear_b).unwrap();
            exchange(&socket, peer);
        });
        let (socket, peer) = meets_a_peer(addresses, &tell_b, &hear_a).unwrap();
        exchange(&socket, peer);
        other.join().unwrap();
    });
}

#[test]
fn so_does_the_one_for_tcp() {
    let context = MappingContext::new(MappingConfig::new()).unwrap();
    let [(one, a, public_a), (two, b, public_b)] = [(); 2].map(|()| {
        let mapped: MappedTcpSocket = MappedTcpSocket::map(reusable(), &context).unwrap();
        let (ours, public) = gen_rendezvous_info(mapped.endpoints);
        (mapped.socket, ours, public)
    });
    let deadline = Instant::now() + PATIENCE;
    thread::scope(|scope| {
        let other = scope.spawn(|| tcp_punch_hole(one, a, &public_b, &context, deadline));
        let stream: TcpStream = tcp_punch_hole(two, b, &public_a, &context, deadline).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), other.join().unwrap().unwrap().local_addr().unwrap());
    });
}

/// The names that are not called above, on loopback or, where that would speak on other networks, not at all.
#[test]
fn every_name_is_there() {
    let server: HolePunchServer = server();
    let MappedSocketAddr { addr, kind, nat_restricted, .. } = server.addresses()[0];
    assert_eq!((kind, nat_restricted), (AddrKind::Host, false));
    let context = MappingContext::new(MappingConfig::new().server(addr).port_map(false)).unwrap();
    let profile: NatProfile = context.nat_profile().unwrap();
    assert!(profile.udp.is_some());

    let _new: fn(&MappingContext) -> Result<MappedUdpSocket, MapError> = MappedUdpSocket::new;
    let _new: fn(&MappingContext) -> Result<MappedTcpSocket, MapError> = MappedTcpSocket::new;
    let _serve: fn(&MappingContext) -> Result<HolePunchServer, _> = HolePunchServer::new;
    let _gateway: fn(nat_traversal::igd::Gateway) -> HolePunchServerAddr = HolePunchServerAddr::IgdGateway;

    let mapped = MappedUdpSocket::map(UdpSocket::bind("127.0.0.1:0").unwrap(), &context).unwrap();
    let (failures, lease): (Vec<MapFailure>, Option<PortLease>) = (mapped.failures, mapped.lease);
    assert!(failures.is_empty() && lease.is_none());

    context.interrupter().interrupt();
    let (ours, _) = gen_rendezvous_info(mapped.endpoints);
    let (_, theirs) = gen_rendezvous_info(vec![MappedSocketAddr::host(addr)]);
    let punched =
        PunchedUdpSocket::punch_hole(mapped.socket, ours, &theirs, &context, Instant::now() + PATIENCE);
    assert!(matches!(punched, Err(PunchError::Interrupted)));
}

#[cfg(feature = "turn")]
#[test]
fn relays_have_names_too() {
    use nat_traversal::{RelayError, RelayedUdpSocket, TurnServer};

    let server: TurnServer = "turn:127.0.0.1:3478".parse().unwrap();
    assert!(matches!(HolePunchServerAddr::Turn(server), HolePunchServerAddr::Turn(_)));
    type Allocate = fn(&MappingContext, &TurnServer, Instant) -> Result<RelayedUdpSocket, RelayError>;
    let _allocate: Allocate = RelayedUdpSocket::allocate;
}

fn server() -> HolePunchServer {
    HolePunchServer::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn reusable() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    #[cfg(unix)]
    socket.set_reuse_port(true).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket
}

/// Greets until the peer has greeted and been greeted: a datagram that comes while the peer's punch still runs is lost.
fn exchange(socket: &UdpSocket, peer: SocketAddr) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut heard, mut is_heard, mut buffer) = (false, false, [0; 1_500]);
    while !(heard && is_heard) {
        assert!(Instant::now() < deadline, "heard {heard}, is heard {is_heard}");
        socket.send_to(if heard { b"heard" } else { b"hello" }, peer).unwrap();
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        is_heard |= &buffer[..length] == b"heard";
        heard |= matches!(&buffer[..length], b"hello" | b"heard");
    }
    socket.send_to(b"heard", peer).unwrap();
}

/// Far beyond what loopback takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);
