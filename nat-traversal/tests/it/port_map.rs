use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nat_traversal::{
    AddrKind, HolePunchServerAddr, MapError, MapFailure, MappedSocketAddr, MappedTcpSocket, MappedUdpSocket,
    MappingConfig, MappingContext, PortMapFailure, PortMapMethod, PortProtocol,
};
use socket2::{Domain, Socket, Type};

use crate::home_router::{EXTERNAL, HomeRouter, Upnp};

#[test]
fn each_protocol_opens_a_port_for_udp_and_for_tcp_and_closes_it_with_the_lease() {
    let cases = [
        ("127.9.1.1", Upnp::Works(1), true, true, PortMapMethod::Pcp),
        ("127.9.1.2", Upnp::Works(1), false, true, PortMapMethod::NatPmp),
        ("127.9.1.3", Upnp::Works(1), false, false, PortMapMethod::Upnp),
        ("127.9.1.4", Upnp::Works(2), false, false, PortMapMethod::Upnp),
    ];
    for (address, upnp, pcp, nat_pmp, method) in cases {
        let router = HomeRouter::start(address, upnp, |router| {
            (router.speaks_pcp, router.speaks_nat_pmp) = (pcp, nat_pmp);
            router.is_silent = !pcp && !nat_pmp;
        });
        let context = context(&router);
        let udp = MappedUdpSocket::map(udp(), &context).unwrap();
        let tcp = MappedTcpSocket::map(tcp(), &context).unwrap();
        for (endpoints, local, lease) in [
            (&udp.endpoints, udp.socket.local_addr().unwrap(), &udp.lease),
            (&tcp.endpoints, tcp.socket.local_addr().unwrap().as_socket().unwrap(), &tcp.lease),
        ] {
            let lease = lease.as_ref().unwrap_or_else(|| panic!("{address}: {:?}", udp.failures));
            let external = SocketAddr::new(EXTERNAL.parse().unwrap(), local.port());
            assert_eq!((lease.method(), lease.router()), (method, router.address));
            assert_eq!(lease.external(), Some(external));
            let mapped = MappedSocketAddr::port_mapped(external, false);
            assert_eq!(endpoints[..], [MappedSocketAddr::host(local), mapped]);
        }
        assert_eq!((udp.failures, tcp.failures), (vec![], vec![]));
        assert_eq!(router.by_pcp() + router.by_upnp().len(), 2);
        drop(udp.lease);
        assert!(tcp.lease.unwrap().release(Instant::now() + PATIENCE));
        router.wait_until_clean();
    }
}

#[test]
fn a_router_that_grants_only_permanent_leases_gets_them_and_is_asked_to_end_them() {
    let router = upnp_only("127.9.2.1", Upnp::OnlyPermanent);
    let mapped = MappedUdpSocket::map(udp(), &context(&router)).unwrap();
    let local = mapped.socket.local_addr().unwrap();
    assert_eq!(router.by_upnp(), [("UDP".to_owned(), local.port(), local.to_string(), 0)]);
    drop(mapped);
    router.wait_until_clean();
}

#[test]
fn a_port_that_another_host_has_is_replaced_by_another() {
    let router = upnp_only("127.9.2.2", Upnp::Occupied);
    let mapped = MappedUdpSocket::map(udp(), &context(&router)).unwrap();
    let external = mapped.lease.as_ref().unwrap().external().unwrap();
    assert_ne!(external.port(), mapped.socket.local_addr().unwrap().port());
    assert_eq!(router.by_upnp()[0].1, external.port());
}

#[test]
fn all_refusals_are_told_and_the_addresses_learned_otherwise_hold() {
    let router = HomeRouter::start("127.9.3.1", Upnp::Refuses, |router| router.refuses = Some(2));
    let mapped = MappedUdpSocket::map(udp(), &context(&router)).unwrap();
    let reasons: Vec<String> = mapped.failures.iter().map(reason).collect();
    assert_eq!(
        reasons[..2],
        ["PCP: 127.9.3.1 refuses: not authorized", "NAT-PMP: 127.9.3.1 refuses: not authorized"]
    );
    assert!(reasons[2].starts_with("UPnP: 127.9.3.1 refuses: "), "{reasons:?}");
    assert_eq!(mapped.endpoints.len(), 1);
    assert!(mapped.lease.is_none());
}

#[test]
fn noise_and_descriptions_without_end_are_no_routers() {
    for (address, upnp) in [("127.9.4.1", Upnp::Garbage), ("127.9.4.2", Upnp::Huge)] {
        let router = upnp_only(address, upnp);
        let begun = Instant::now();
        let mapped = MappedUdpSocket::map(udp(), &context(&router)).unwrap();
        println!("{upnp:?} was given up after {:?}", begun.elapsed());
        assert!(mapped.lease.is_none());
        let last = mapped.failures.last().unwrap();
        assert!(matches!(last, MapFailure::PortMap(PortMapFailure::NotFound { .. })), "{last:?}");
    }
}

#[test]
fn nobody_is_sent_to_another_host_by_a_router() {
    let victim = TcpListener::bind("127.9.5.2:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let router = upnp_only("127.9.5.1", Upnp::Elsewhere(victim.local_addr().unwrap()));
    let mapped = MappedUdpSocket::map(udp(), &context(&router)).unwrap();
    assert!(mapped.lease.is_none());
    assert_eq!(victim.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn who_is_late_is_not_waited_for_and_what_it_gives_is_given_back() {
    let router = upnp_only("127.9.6.1", Upnp::Hesitates);
    let config = config(&router).map_timeout(Duration::from_secs(2));
    let begun = Instant::now();
    let mapped = MappedUdpSocket::map(udp(), &MappingContext::new(config).unwrap()).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "the deadline of two seconds and some for a busy machine"
    );
    assert_eq!(mapped.failures, [MapFailure::PortMap(PortMapFailure::Late)]);
    router.answer();
    router.wait_until(|upnp, _| upnp == 1);
    router.wait_until_clean();
}

#[test]
fn an_interruption_ends_the_wait_for_a_router_and_takes_the_question_back() {
    let router = upnp_only("127.9.6.2", Upnp::Hesitates);
    let context = MappingContext::new(config(&router).map_timeout(PATIENCE)).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| MappedUdpSocket::map(udp(), &context));
        thread::park_timeout(Duration::from_millis(300));
        context.interrupter().interrupt();
        assert!(matches!(waiting.join().unwrap(), Err(MapError::Interrupted)));
    });
    router.answer();
    router.wait_until_clean();
}

#[test]
fn a_router_that_failed_is_not_asked_again_at_once() {
    let router = HomeRouter::start("127.9.7.1", Upnp::Off, |router| router.is_silent = true);
    let context = context(&router);
    let first = MappedUdpSocket::map(udp(), &context).unwrap();
    let begun = Instant::now();
    let second = MappedUdpSocket::map(udp(), &context).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500), "without asking: {:?}", begun.elapsed());
    assert_eq!(first.failures, second.failures);
    let silent = |method| MapFailure::PortMap(PortMapFailure::Silent { method, router: router.address });
    assert_eq!(first.failures[..2], [silent(PortMapMethod::Pcp), silent(PortMapMethod::NatPmp)]);
}

#[test]
fn a_lease_is_renewed_while_it_is_held_and_not_after() {
    let router =
        HomeRouter::start("127.9.8.1", Upnp::Off, |router| router.max_lifetime = Duration::from_secs(2));
    let mapped = MappedUdpSocket::map(udp(), &context(&router)).unwrap();
    let first = router.router().forwardings(Instant::now())[0].1.end;
    router
        .wait_until(|_, _| router.router().forwardings(Instant::now()).iter().any(|(_, it)| it.end > first));
    // A router that has restarted and says nothing: the next renewal makes the mapping again.
    router.router().restart(Instant::now(), false);
    router.wait_until(|_, pcp| pcp == 1);
    drop(mapped);
    router.wait_until_clean();
}

#[test]
fn a_gateway_that_the_user_found_is_used_without_a_search() {
    let router = upnp_only("127.9.9.1", Upnp::Works(1));
    let mut options = nat_traversal::igd::SearchOptions::default();
    options.bind_addr = "127.0.0.1:0".parse().unwrap();
    options.broadcast_address = SocketAddr::new(router.address, 1900);
    options.allowed_gateway_ips = vec![router.address];
    let gateway = nat_traversal::igd::search_gateway(options).unwrap();
    let context = MappingContext::new(MappingConfig::new().router("127.9.9.2".parse().unwrap())).unwrap();
    context.add_servers([HolePunchServerAddr::IgdGateway(gateway)]);
    let mapped = MappedUdpSocket::map(udp(), &context).unwrap();
    let lease = mapped.lease.unwrap();
    assert_eq!((lease.method(), lease.router()), (PortMapMethod::Upnp, router.address));
}

#[test]
fn a_port_is_asked_for_without_waiting_and_all_news_are_told() {
    let router = HomeRouter::start("127.9.11.1", Upnp::Off, |_| {});
    let context = context(&router);
    let (local, (tell, news)) = (udp().local_addr().unwrap(), mpsc::channel());
    let told = move || {
        let _ = tell.send(());
    };
    let mut pending = context.begin_map_port(local, PortProtocol::Udp, told).unwrap();
    let outcome = loop {
        news.recv_timeout(PATIENCE).unwrap();
        if let Some(outcome) = pending.poll() {
            break outcome;
        }
    };
    assert!(pending.poll().is_none(), "once");
    let lease = outcome.unwrap();
    let here = |external: &str| Some(SocketAddr::new(external.parse().unwrap(), local.port()));
    assert_eq!((lease.local(), lease.external()), (local, here(EXTERNAL)));

    let elsewhere = "198.51.100.99";
    router.router().external = elsewhere.parse().unwrap();
    lease.renew();
    while lease.external() != here(elsewhere) {
        news.recv_timeout(PATIENCE).unwrap();
    }

    lease.begin_release();
    router.wait_until_clean();
    assert!(lease.release(Instant::now() + PATIENCE));
    news.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_network_that_changed_is_asked_again_at_once() {
    let router = HomeRouter::start("127.9.11.3", Upnp::Refuses, |router| router.refuses = Some(2));
    let context = context(&router);
    let local = udp().local_addr().unwrap();
    let ask = || context.map_port(local, PortProtocol::Udp, Instant::now() + PATIENCE);
    ask().unwrap_err();
    router.router().refuses = None;
    ask().expect_err("it was asked a moment ago");
    context.network_changed();
    assert!(ask().unwrap().is_some());
}

#[test]
fn without_leave_no_router_is_asked() {
    let router = HomeRouter::start("127.9.10.1", Upnp::Works(1), |_| {});
    let context = MappingContext::new(config(&router).port_map(false)).unwrap();
    let mapped = MappedUdpSocket::map(udp(), &context).unwrap();
    assert_eq!((mapped.failures, router.by_pcp()), (vec![], 0));
    assert!(mapped.endpoints.iter().all(|endpoint| endpoint.kind == AddrKind::Host));
}

fn upnp_only(address: &str, upnp: Upnp) -> HomeRouter {
    HomeRouter::start(address, upnp, |router| router.is_silent = true)
}

fn context(router: &HomeRouter) -> MappingContext {
    MappingContext::new(config(router)).unwrap()
}

fn config(router: &HomeRouter) -> MappingConfig {
    let address: IpAddr = router.address;
    MappingConfig::new().router(address).map_timeout(PATIENCE)
}

fn reason(failure: &MapFailure) -> String {
    match failure {
        MapFailure::PortMap(failure) => failure.to_string(),
        other => other.to_string(),
    }
}

fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn tcp() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    #[cfg(unix)]
    socket.set_reuse_port(true).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket
}

/// Far beyond what loopback takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);
