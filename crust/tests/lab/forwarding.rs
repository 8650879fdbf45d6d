//! A home router with miniupnpd lets peers in.

use std::{
    thread,
    time::{Duration, Instant},
};

use crust::{Config, ConnectOptions, Contact, Lan, PortMapMethod, Road, Scheme, Service, ServiceEvent};
use nat_lab::{Coturn, Igd, Lab, Link, Miniupnpd, Topology};

use crate::world::soon;

/// Two homes behind NATs that draw ports, which no hole leads through; the first has a router that forwards.
struct Homes {
    lab: Lab,
    /// Tells the router that its address works.
    coturn: Coturn,
    router: Option<Miniupnpd>,
}

impl Homes {
    fn new(further: &[&str]) -> Self {
        let link = Link::delay(Duration::from_millis(20));
        let lab = Topology::pair("hard", "hard").unwrap().links(link).build().unwrap();
        let coturn = lab.coturn(&[]).unwrap();
        let mut homes = Self { lab, coturn, router: None };
        homes.switch_on(further);
        homes
    }

    fn switch_on(&mut self, further: &[&str]) {
        self.router = Some(self.lab.miniupnpd("ra", Igd::V2, &self.coturn, further).unwrap());
    }

    fn serve(&self) -> Service {
        let config = Config::new().lan(Lan::Off);
        self.lab.node("a1").enter(|| Service::new_from_config(config).unwrap())
    }

    fn contact(&self, service: &Service) -> Contact {
        self.lab.node("a1").enter(|| service.controller.contact().unwrap())
    }

    /// Dials from another host, by one scheme, with nobody's help.
    fn dial(&self, host: &str, contact: &Contact, scheme: Scheme) -> Result<Road, crust::ConnectError> {
        let config = Config::new().lan(Lan::Off).listen([]);
        let client = self.lab.node(host).enter(|| Service::new_from_config(config).unwrap());
        let options = ConnectOptions::new().only([scheme]).deadline(PATIENCE);
        let stream = self.lab.node(host).enter(|| client.controller.connect_with(contact, &options))?;
        Ok(stream.path().kind.into())
    }

    /// Who dials it from the other home gets there.
    fn is_reached(&self, service: &Service) {
        for scheme in [Scheme::Quic, Scheme::Tcp] {
            let contact = self.contact(service);
            let road = thread::scope(|scope| {
                let accepting = scope.spawn(|| service.acceptor.accept_deadline(soon()));
                let road = self.dial("b1", &contact, scheme);
                road.inspect(|_| drop(accepting.join().unwrap().expect("it comes out of accept")))
            });
            assert_eq!(road.unwrap(), Road::Direct);
        }
    }

    /// The rules by which the router lets strangers in.
    fn rules(&self) -> String {
        let output = self.lab.node("ra").command("nft").args(["list", "ruleset"]).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let chain = text.lines().skip_while(|line| line.trim() != "chain upnp_in {").skip(1);
        chain.take_while(|line| line.trim() != "}").collect::<Vec<_>>().join("\n")
    }
}

/// The next event about a forwarded port.
fn next(service: &Service) -> ServiceEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = service.controller.events().recv_deadline(deadline).expect("an event about the router");
        let is_one = matches!(
            event,
            ServiceEvent::PortMapped { .. }
                | ServiceEvent::PortMapLost { .. }
                | ServiceEvent::PortMapFailed { .. }
        );
        if is_one {
            return event;
        }
    }
}

/// All at a time, as most of it is waiting for routers.
pub(crate) fn ports_are_forwarded() {
    let cases: [(&str, fn()); 4] = [
        ("by PCP, and given back", is_reached_and_given_back),
        ("by UPnP, and given back", is_reached_by_upnp),
        ("again after a restart of the router", outlives_the_restart_of_the_router),
        ("no more once the router is gone", goes_on_without_the_router),
    ];
    let failed = thread::scope(|scope| {
        let cases = cases.map(|(name, case)| (name, scope.spawn(case)));
        let failed = cases.into_iter().filter_map(|(name, case)| case.join().is_err().then_some(name));
        failed.collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "{failed:?}");
}

fn is_reached_and_given_back() {
    let homes = Homes::new(&[]);
    let service = homes.serve();
    assert!(service.controller.wait_port_mapped(Instant::now() + PATIENCE));
    let contact = homes.contact(&service);
    assert!(contact.introducers().is_empty());
    for _ in 0..2 {
        let event = next(&service);
        let ServiceEvent::PortMapped { external, method, .. } = event else { panic!("{event:?}") };
        assert_eq!((external.ip(), method), (OUTSIDE.parse().unwrap(), PortMapMethod::Pcp));
    }
    homes.is_reached(&service);
    assert_eq!(homes.rules().lines().count(), 2, "{}", homes.rules());

    let begun = Instant::now();
    drop(service);
    println!("  {:.0} ms for the end of the service", begun.elapsed().as_secs_f64() * 1e3);
    let deadline = Instant::now() + PATIENCE;
    while !homes.rules().is_empty() {
        assert!(Instant::now() < deadline, "{}", homes.rules());
    }
}

fn is_reached_by_upnp() {
    let homes = Homes::new(&[]);
    let rules = [
        "add table inet blocked; add chain inet blocked in { type filter hook input priority -200; }",
        "add rule inet blocked in udp dport 5351 drop",
    ];
    for rule in rules {
        assert!(homes.lab.node("ra").command("nft").arg(rule).status().unwrap().success());
    }
    let service = homes.serve();
    assert!(service.controller.wait_port_mapped(Instant::now() + PATIENCE));
    let event = next(&service);
    assert!(matches!(event, ServiceEvent::PortMapped { method: PortMapMethod::Upnp, .. }), "{event:?}");
    // The second port is asked for when the first is there.
    next(&service);
    homes.is_reached(&service);
    drop(service);
    let deadline = Instant::now() + PATIENCE;
    while !homes.rules().is_empty() {
        assert!(Instant::now() < deadline, "{}", homes.rules());
    }
}

fn outlives_the_restart_of_the_router() {
    let mut homes = Homes::new(&[]);
    let service = homes.serve();
    assert!(service.controller.wait_port_mapped(Instant::now() + PATIENCE));
    homes.is_reached(&service);
    let answered = Instant::now();
    // Clocks may differ by some seconds, within which a restart cannot be told (RFC 6887, section 8.5).
    while answered.elapsed() < EPOCH_TOLERANCE {
        homes.is_reached(&service);
    }
    // Without its list of leases, as a router that has been switched off.
    homes.router = None;
    homes.lab.node("ra").forget().unwrap();
    let lost = format!("lease_file={}", homes.lab.folder().join("others").display());
    homes.switch_on(&[&lost]);
    let deadline = Instant::now() + PATIENCE;
    while homes.rules().lines().count() < 2 {
        assert!(Instant::now() < deadline, "the restarted router was not asked again");
    }
    homes.is_reached(&service);
}

fn goes_on_without_the_router() {
    let mut homes = Homes::new(&["max_lifetime=12"]);
    let service = homes.serve();
    assert!(service.controller.wait_port_mapped(Instant::now() + PATIENCE));
    let mut outside = Vec::new();
    for _ in 0..2 {
        let event = next(&service);
        let ServiceEvent::PortMapped { external, .. } = event else { panic!("{event:?}") };
        outside.push(external);
    }
    homes.router = None;
    for _ in 0..2 {
        let event = next(&service);
        let ServiceEvent::PortMapLost { external, .. } = event else { panic!("{event:?}") };
        outside.retain(|known| *known != external);
    }
    assert!(outside.is_empty() || outside.len() == 1, "{outside:?}");
    let contact = homes.contact(&service);
    let is_outside = |text: String| text.contains(OUTSIDE);
    assert!(!contact.endpoints().iter().any(|endpoint| is_outside(endpoint.to_string())), "{contact}");
    // Those at home still get there.
    let road = homes.dial("a2", &contact, Scheme::Quic).unwrap();
    assert_eq!(road, Road::Lan);
}

/// The first router's address.
const OUTSIDE: &str = "198.51.100.2";
/// Far beyond what anything takes here, on any machine; miniupnpd itself needs up to twelve seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const EPOCH_TOLERANCE: Duration = Duration::from_secs(5);
