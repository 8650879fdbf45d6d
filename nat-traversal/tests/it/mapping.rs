use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nat_traversal::protocol::nat_profile::BindingLifetime;
use nat_traversal::{
    AddrKind, HolePunchServer, HolePunchServerAddr, MapError, MapFailure, MappedTcpSocket, MappedUdpSocket,
    MappingConfig, MappingContext,
};

#[test]
fn a_udp_socket_is_mapped_by_two_servers_and_can_be_used_after() {
    let servers = [server(), server()];
    let context = context(&servers.each_ref().map(address));
    let mapped = MappedUdpSocket::map(bound_udp(), &context).unwrap();
    let local = mapped.socket.local_addr().unwrap();
    assert_eq!(mapped.failures, []);
    let [endpoint] = mapped.endpoints[..] else { panic!("{:?}", mapped.endpoints) };
    assert_eq!((endpoint.addr, endpoint.kind), (local, AddrKind::Host), "no NAT stands before loopback");

    let peer = bound_udp();
    peer.send_to(b"hello", local).unwrap();
    let mut buffer = [0; 16];
    mapped.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(mapped.socket.recv_from(&mut buffer).unwrap(), (5, peer.local_addr().unwrap()));
}

#[test]
fn a_server_that_is_down_is_named_and_the_other_still_helps() {
    let (alive, dead) = (server(), bound_udp());
    let dead = dead.local_addr().unwrap();
    let context = MappingContext::new(MappingConfig::new().map_timeout(Duration::from_millis(300))).unwrap();
    context.add_servers([address(&alive), dead].map(HolePunchServerAddr::Stun));
    let mapped = MappedUdpSocket::map(bound_udp(), &context).unwrap();
    assert_eq!(mapped.failures, [MapFailure::Late { server: dead }]);
    assert_eq!(mapped.endpoints.len(), 1);
}

#[test]
fn a_tcp_port_is_mapped_and_can_listen_after() {
    let servers = [server(), server()];
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let context = context(&[address(&servers[0]), closed, address(&servers[1])]);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    #[cfg(unix)]
    socket.set_reuse_port(true).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let mapped = MappedTcpSocket::map(socket, &context).unwrap();
    assert_eq!(mapped.failures, [MapFailure::Connection { server: closed }]);
    let local = mapped.socket.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(mapped.endpoints.iter().map(|endpoint| endpoint.addr).collect::<Vec<_>>(), [local]);

    mapped.socket.listen(1).unwrap();
    TcpStream::connect_timeout(&local, Duration::from_secs(10)).unwrap();
}

#[test]
fn an_interruption_ends_a_mapping_that_waits() {
    let dead = bound_udp();
    let config = MappingConfig::new().server(dead.local_addr().unwrap()).map_timeout(Duration::from_secs(60));
    let context = MappingContext::new(config).unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| MappedUdpSocket::map(bound_udp(), &context));
        // The first request shows that the call waits.
        dead.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        dead.recv_from(&mut [0; 256]).unwrap();
        context.interrupter().interrupt();
        assert!(matches!(waiting.join().unwrap(), Err(MapError::Interrupted)));
    });
    assert!(start.elapsed() < Duration::from_secs(20), "long before its deadline of a minute");
}

#[test]
fn an_interruption_ends_a_measurement_of_lifetimes() {
    let server = bound_udp();
    let context = context(&[server.local_addr().unwrap()]);
    let start = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| context.binding_lifetime(Duration::from_secs(600)));
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        server.recv_from(&mut [0; 256]).unwrap();
        context.interrupter().interrupt();
        assert!(matches!(waiting.join().unwrap(), Err(MapError::Interrupted)));
    });
    assert!(start.elapsed() < Duration::from_secs(20), "long before its ten minutes");
}

#[test]
fn without_a_server_that_helps_no_lifetime_is_known() {
    assert_eq!(
        context(&[]).binding_lifetime(Duration::from_secs(600)).unwrap(),
        BindingLifetime::Unknown,
        "and nothing is waited for"
    );
}

#[test]
fn an_unspecified_socket_has_the_addresses_of_the_interfaces_but_not_loopback() {
    let mapped = MappedUdpSocket::new(&context(&[])).unwrap();
    let port = mapped.socket.local_addr().unwrap().port();
    for endpoint in &mapped.endpoints {
        assert_eq!(endpoint.addr.port(), port);
        assert!(!endpoint.addr.ip().is_loopback() && !endpoint.addr.ip().is_unspecified());
    }
}

fn server() -> HolePunchServer {
    HolePunchServer::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn address(server: &HolePunchServer) -> SocketAddr {
    server.addresses()[0].addr
}

fn context(servers: &[SocketAddr]) -> MappingContext {
    let config = servers.iter().fold(MappingConfig::new(), |config, server| config.server(*server));
    MappingContext::new(config.map_timeout(Duration::from_secs(20)).port_map(false)).unwrap()
}

fn bound_udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}
