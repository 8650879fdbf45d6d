//! `crust doctor` behind the kernel's NATs, and a real router that forwards ports. Linux, root, and what nat-lab needs;
//! elsewhere it prints `NOT RUN: …` and ends well, and the gate does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: crust doctor behind kernel NATs: network namespaces are Linux's");
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
    use std::time::Duration;

    use nat_lab::{Igd, Lab, Link, Site, Topology, parse_nats};
    use nat_traversal::HolePunchServer;
    use serde_json::Value;

    /// Mapping, filtering, ports with their step, hairpin, UDP, NATs and how the router forwards ports.
    const CASES: [(&str, bool, &str); 13] = [
        ("open", false, "none endpoint-independent preserved null null open 0 null"),
        ("fw", false, "none address-and-port-dependent preserved null null open 0 null"),
        ("cone", false, "endpoint-independent endpoint-independent preserved null false open 1 none"),
        ("acone", false, "endpoint-independent address-dependent preserved null false open 1 none"),
        ("easy", false, "endpoint-independent address-and-port-dependent preserved null false open 1 none"),
        ("easyrand", false, "endpoint-independent address-and-port-dependent stable null false open 1 none"),
        (
            "easy,hairpin",
            false,
            "endpoint-independent address-and-port-dependent preserved null true open 1 none",
        ),
        ("hardad", false, "address-dependent address-and-port-dependent random null null open 1 none"),
        (
            "hard",
            false,
            "address-and-port-dependent address-and-port-dependent random null null open null none",
        ),
        (
            "hardseq",
            false,
            "address-and-port-dependent address-and-port-dependent sequential 1 null open null none",
        ),
        ("cgnat", false, "endpoint-independent address-and-port-dependent preserved null false open 2 none"),
        ("udpblock", false, "null null null null null blocked null none"),
        ("hard", true, "address-and-port-dependent address-and-port-dependent random null null open 1 pcp"),
    ];

    pub(crate) fn main() -> ExitCode {
        if let Err(reason) = Lab::check() {
            println!("NOT RUN: crust doctor behind kernel NATs: {reason}");
            return ExitCode::SUCCESS;
        }
        // Most of the time is spent waiting for what does not come.
        let failed = thread::scope(|scope| {
            let cases = CASES.map(|case| (case, scope.spawn(move || examine(case.0, case.1))));
            let mut failed = 0;
            for ((nats, forwards, expected), case) in cases {
                let found = case.join().unwrap_or_else(|_| "panicked".into());
                let right = found == expected;
                let word = if right { "ok" } else { "FAILED" };
                let router = if forwards { " with miniupnpd" } else { "" };
                println!("test crust doctor behind {nats}{router} ... {word}: {found}");
                if !right {
                    println!("    expected: {expected}");
                    failed += 1;
                }
            }
            failed
        });
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        println!("test result: {verdict}. {} passed; {failed} failed; 0 ignored", CASES.len() - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn examine(nats: &str, forwards: bool) -> String {
        let site = Site::new(parse_nats(nats).unwrap());
        let link = Link::delay(Duration::from_millis(20));
        let lab = Topology::new().site(site).links(link).build().unwrap();
        let router = forwards.then(|| {
            let coturn = lab.coturn(&[]).unwrap();
            (lab.miniupnpd("ra", Igd::V2, &coturn, &[]).unwrap(), coturn)
        });
        // coturn has the usual ports.
        let [first, second] = [0, 1].map(|index| SocketAddr::from((Lab::SERVER[index], 4478 + index as u16)));
        let _server = lab.node("server").enter(|| HolePunchServer::bind_two(first, second).unwrap());
        let home = tempfile::tempdir().unwrap();
        let output = lab
            .node("a1")
            .command(env!("CARGO_BIN_EXE_crust"))
            .args(["doctor", "--json", "--no-lan", "--stun", &first.to_string()])
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .output()
            .unwrap();
        drop(router);
        let event: Value = serde_json::from_slice(&output.stdout).unwrap();
        let fields =
            ["mapping", "filtering", "ports", "port_step", "hairpin", "udp", "nat_levels", "port_mapper"];
        let shown = |field| match &event[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        fields.map(shown).join(" ")
    }
}
