//! Ports forwarded by the real miniupnpd on a router of a laboratory: IGD 1 and 2, PCP and NAT-PMP. Linux, root, and what
//! nat-lab needs; elsewhere it prints `NOT RUN: …` and ends well, and the gate does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: ports of real routers: network namespaces are Linux's");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::process::ExitCode;
    use std::thread;
    use std::time::{Duration, Instant};

    use nat_lab::{Igd, Lab, Topology};
    use nat_traversal::{MappedTcpSocket, MappedUdpSocket, MappingConfig, MappingContext, PortMapMethod};

    /// Which protocols the router is left with, and which of them has to be found.
    const CASES: [(&str, Igd, &[&str], PortMapMethod); 4] = [
        ("PCP", Igd::V2, &[], PortMapMethod::Pcp),
        // The first byte after the UDP header is the version, 2 for PCP.
        ("NAT-PMP", Igd::V2, &["udp dport 5351 @th,64,8 2 drop"], PortMapMethod::NatPmp),
        ("UPnP IGD 1", Igd::V1, &["udp dport 5351 drop"], PortMapMethod::Upnp),
        ("UPnP IGD 2", Igd::V2, &["udp dport 5351 drop"], PortMapMethod::Upnp),
    ];

    /// The same for the firewall before addresses of IPv6.
    const PINHOLES: [(&str, &[&str], PortMapMethod); 2] = [
        ("PCP, to an IPv6 firewall", &[], PortMapMethod::Pcp),
        ("UPnP WANIPv6FirewallControl", &["udp dport 5351 drop"], PortMapMethod::Upnp),
    ];

    pub(crate) fn main() -> ExitCode {
        if let Err(reason) = Lab::check() {
            println!("NOT RUN: ports of real routers: {reason}");
            return ExitCode::SUCCESS;
        }
        // The daemon takes seconds to find out whether it may serve.
        let outcomes: Vec<bool> = thread::scope(|scope| {
            let cases: Vec<_> = CASES
                .iter()
                .map(|(name, igd, blocked, method)| (name, scope.spawn(|| forwards(*igd, blocked, *method))))
                .collect();
            let pinholes = PINHOLES
                .iter()
                .map(|(name, blocked, method)| (name, scope.spawn(|| opens_ipv6(blocked, *method))));
            let pinholes: Vec<_> = pinholes.collect();
            cases
                .into_iter()
                .chain(pinholes)
                .map(|(name, case)| {
                    let outcome = case.join();
                    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                    println!(
                        "test miniupnpd forwards by {name} ... {word} {}",
                        outcome.as_deref().unwrap_or("")
                    );
                    outcome.is_ok()
                })
                .collect()
        });
        let passed = outcomes.iter().filter(|passed| **passed).count();
        let failed = outcomes.len() - passed;
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn forwards(igd: Igd, blocked: &[&str], method: PortMapMethod) -> String {
        let lab = Topology::pair("easy", "easy").unwrap().build().unwrap();
        let coturn = lab.coturn(&[]).unwrap();
        let router = lab.miniupnpd("ra", igd, &coturn, &[]).unwrap();
        block(&lab, blocked);
        let context = MappingContext::new(MappingConfig::new().map_timeout(PATIENCE)).unwrap();
        let begun = Instant::now();
        let udp = lab.node("a1").enter(|| MappedUdpSocket::new(&context).unwrap());
        let took = begun.elapsed();
        let tcp = lab.node("a1").enter(|| MappedTcpSocket::new(&context).unwrap());

        let lease = udp.lease.unwrap_or_else(|| panic!("{:?}", udp.failures));
        assert_eq!(lease.method(), method);
        let external = lease.external().unwrap();
        assert_eq!(external.ip(), "198.51.100.2".parse::<std::net::IpAddr>().unwrap());
        assert!(gets_in(&lab, external, &udp.socket), "a stranger at {external}");
        let answered = Instant::now();

        let tcp_lease = tcp.lease.unwrap_or_else(|| panic!("{:?}", tcp.failures));
        tcp.socket.listen(8).unwrap();
        let listener = TcpListener::from(tcp.socket);
        let tcp_external = tcp_lease.external().unwrap();
        lab.node("server").enter(|| TcpStream::connect_timeout(&tcp_external, PATIENCE).unwrap());
        listener.accept().unwrap();

        let mended = (method == PortMapMethod::Pcp || method == PortMapMethod::NatPmp).then(|| {
            // Clocks may differ by some seconds, within which a restart cannot be told (RFC 6887, section 8.5).
            while answered.elapsed() < EPOCH_TOLERANCE {
                assert!(gets_in(&lab, external, &udp.socket), "still a stranger at {external}");
            }
            // Without its list of leases, as a router that has been switched off.
            drop(router);
            lab.node("ra").forget().unwrap();
            let lost = format!("lease_file={}", lab.folder().join("others").display());
            let again = lab.miniupnpd("ra", igd, &coturn, &[&lost]).unwrap();
            let begun = Instant::now();
            while !gets_in(&lab, lease.external().unwrap_or(external), &udp.socket) {
                assert!(begun.elapsed() < PATIENCE, "the restarted router was not asked again");
            }
            (begun.elapsed(), again)
        });

        drop(lease);
        assert!(tcp_lease.release(Instant::now() + PATIENCE));
        lab.node("ra").forget().unwrap();
        assert!(!gets_in(&lab, external, &udp.socket), "the port is closed again");
        let restart = mended.map(|(took, _)| format!(", mended {} ms after a restart", took.as_millis()));
        format!("in {} ms{}", took.as_millis(), restart.unwrap_or_default())
    }

    fn opens_ipv6(blocked: &[&str], method: PortMapMethod) -> String {
        let lab = Topology::pair("easy", "easy").unwrap().ipv6().build().unwrap();
        let coturn = lab.coturn(&[]).unwrap();
        let mut router = lab.miniupnpd("ra", Igd::V2, &coturn, &[]).unwrap();
        block(&lab, blocked);
        let context = MappingContext::new(MappingConfig::new().map_timeout(PATIENCE)).unwrap();
        let begun = Instant::now();
        let udp = lab.node("a1").enter(|| {
            let socket = UdpSocket::bind("[::]:0").unwrap();
            MappedUdpSocket::map(socket, &context).unwrap()
        });
        let took = begun.elapsed();
        let lease = udp.lease.unwrap_or_else(|| panic!("{:?}: {}", udp.failures, router.process.said()));
        assert_eq!(lease.method(), method);
        let external = lease.external().unwrap();
        let inside: Vec<SocketAddr> = udp.endpoints.iter().map(|endpoint| endpoint.addr).collect();
        assert!(inside.contains(&external), "{external} is of {inside:?}");
        assert!(gets_in(&lab, external, &udp.socket), "a stranger at {external}");
        let other = lab.node("a1").enter(|| UdpSocket::bind("[::]:0").unwrap());
        let closed = SocketAddr::new(external.ip(), other.local_addr().unwrap().port());
        assert!(!gets_in(&lab, closed, &other), "another port");
        assert!(lease.release(Instant::now() + PATIENCE));
        lab.node("ra").forget_flows().unwrap();
        assert!(!gets_in(&lab, external, &udp.socket), "the port is closed again");
        format!("in {} ms", took.as_millis())
    }

    /// Has the router not hear this.
    fn block(lab: &Lab, packets: &[&str]) {
        let chain =
            "add table inet blocked; add chain inet blocked in { type filter hook input priority -200; }";
        let rules = packets.iter().map(|packets| format!("add rule inet blocked in {packets}"));
        for rule in [chain.to_owned()].into_iter().chain(rules) {
            assert!(lab.node("ra").command("nft").arg(rule).status().unwrap().success());
        }
    }

    /// Whether a datagram of a stranger arrives; a few are sent, as the first may wait for a hardware address.
    fn gets_in(lab: &Lab, external: SocketAddr, socket: &UdpSocket) -> bool {
        let ip =
            if external.is_ipv4() { Lab::SERVER[1].into() } else { std::net::IpAddr::from(Lab::SERVER_V6) };
        let stranger = lab.node("server").enter(|| UdpSocket::bind((ip, 0)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        (0..5).any(|_| {
            stranger.send_to(b"knock", external).unwrap();
            socket.recv(&mut [0; 16]).is_ok_and(|length| length == 5)
        })
    }

    /// Far beyond what it takes, on any machine.
    const PATIENCE: Duration = Duration::from_secs(30);
    const EPOCH_TOLERANCE: Duration = Duration::from_secs(5);
}
