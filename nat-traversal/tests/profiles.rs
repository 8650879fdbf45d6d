//! What is measured of the kernel's NATs agrees with what they are. Linux, root, and what nat-lab needs; elsewhere it
//! prints `NOT RUN: …` and ends well, and the gate does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: profiles of kernel NATs: network namespaces are Linux's");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::SocketAddr;
    use std::process::ExitCode;
    use std::thread;
    use std::time::{Duration, Instant};

    use nat_lab::{Lab, Link, Nat, Site, Topology, parse_nats};
    use nat_traversal::protocol::nat_profile::{BindingLifetime, Udp};
    use nat_traversal::{HolePunchServer, MappingConfig, MappingContext, NatProfile};

    /// Mapping, filtering, ports, hairpin and levels; `-` is not measured.
    const CASES: [(&str, &str); 18] = [
        ("open", "none endpoint-independent preserved - 0"),
        ("fw", "none address-and-port-dependent preserved - 0"),
        ("cone", "endpoint-independent endpoint-independent preserved no 1"),
        ("acone", "endpoint-independent address-dependent preserved no 1"),
        ("easy", "endpoint-independent address-and-port-dependent preserved no 1"),
        ("easyrand", "endpoint-independent address-and-port-dependent stable no 1"),
        ("hardad", "address-dependent address-and-port-dependent random - 1"),
        ("hard", "address-and-port-dependent address-and-port-dependent random - -"),
        ("hardseq", "address-and-port-dependent address-and-port-dependent sequential - -"),
        ("cgnat", "endpoint-independent address-and-port-dependent preserved no 2"),
        ("cgnathard", "address-and-port-dependent address-and-port-dependent random - -"),
        ("cone,hairpin", "endpoint-independent endpoint-independent preserved yes 1"),
        ("acone,hairpin", "endpoint-independent address-dependent preserved yes 1"),
        ("easy,hairpin", "endpoint-independent address-and-port-dependent preserved yes 1"),
        ("easyrand,hairpin", "endpoint-independent address-and-port-dependent stable yes 1"),
        ("easy,reject", "endpoint-independent address-and-port-dependent preserved no 1"),
        ("easy,accept", "endpoint-independent address-and-port-dependent preserved no 1"),
        ("udpblock", "blocked"),
    ];

    pub(crate) fn main() -> ExitCode {
        if let Err(reason) = Lab::check() {
            println!("NOT RUN: profiles of kernel NATs: {reason}");
            return ExitCode::SUCCESS;
        }
        // Most of the time is spent waiting for what does not come.
        let failed = thread::scope(|scope| {
            let lifetimes: Vec<_> =
                ["easy", "cone", "hard", "cgnat"].map(|nats| (nats, scope.spawn(|| lifetime(nats)))).into();
            let cases: Vec<_> =
                CASES.map(|(nats, expected)| (nats, expected, scope.spawn(|| measure(nats)))).into();
            let mut failed = 0;
            for (nats, expected, case) in cases {
                let (found, took) = case.join().unwrap_or_else(|_| ("panicked".into(), Duration::ZERO));
                let right = found == expected && took <= MOST;
                let word = if right { "ok" } else { "FAILED" };
                println!("test profile of {nats} ... {word}: {found}, in {} ms", took.as_millis());
                if !right {
                    println!("    expected: {expected}");
                    failed += 1;
                }
            }
            for (nats, case) in lifetimes {
                let found = case.join();
                let right = matches!(found, Ok(BindingLifetime::Between(open, closed))
                    if open <= LIFETIME + STEP && closed + STEP >= LIFETIME);
                let word = if right { "ok" } else { "FAILED" };
                println!("test lifetime of {nats} ... {word}: {found:?}");
                failed += usize::from(!right);
            }
            failed
        });
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        println!("test result: {verdict}. {} passed; {failed} failed; 0 ignored", CASES.len() + 4 - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn measure(nats: &str) -> (String, Duration) {
        let site = Site::new(parse_nats(nats).unwrap());
        let link = Link::delay(Duration::from_millis(20));
        let lab = Topology::new().site(site).links(link).build().unwrap();
        let [first, second] = [0, 1].map(|index| SocketAddr::from((Lab::SERVER[index], 3478 + index as u16)));
        let _server = lab.node("server").enter(|| HolePunchServer::bind_two(first, second).unwrap());
        let context = MappingContext::new(MappingConfig::new().server(first)).unwrap();
        let begun = Instant::now();
        let profile = lab.node("a1").enter(|| context.nat_profile().unwrap());
        (summary(&profile), begun.elapsed())
    }

    /// Of ports that the kernel forgets after [`LIFETIME`].
    fn lifetime(nats: &str) -> BindingLifetime {
        let forgets = |nat| Nat { lifetime: LIFETIME, ..nat };
        let nats: Vec<Nat> = parse_nats(nats).unwrap().into_iter().map(forgets).collect();
        let lab = Topology::new().site(Site::new(nats)).build().unwrap();
        let address = SocketAddr::from((Lab::SERVER[0], 3478));
        let _server = lab.node("server").enter(|| HolePunchServer::bind(address).unwrap());
        let context = MappingContext::new(MappingConfig::new().server(address)).unwrap();
        lab.node("a1").enter(|| context.binding_lifetime(STEP * 24).unwrap())
    }

    fn summary(profile: &NatProfile) -> String {
        if profile.udp == Some(Udp::Blocked) {
            return "blocked".into();
        }
        let shown = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        [
            shown(profile.mapping.map(|it| it.to_string())),
            shown(profile.filtering.map(|it| it.to_string())),
            shown(profile.ports.map(|it| it.to_string())),
            shown(profile.hairpin.map(|it| if it { "yes" } else { "no" }.into())),
            shown(profile.nat_levels.map(|it| it.to_string())),
        ]
        .join(" ")
    }

    /// What the kernel is told, and how exactly it is looked for. The kernel counts whole seconds.
    const LIFETIME: Duration = Duration::from_secs(6);
    const STEP: Duration = Duration::from_millis(500);

    /// Three seconds, and one more for a machine that does all of this at once.
    const MOST: Duration = Duration::from_secs(4);
}
