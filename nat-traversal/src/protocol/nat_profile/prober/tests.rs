use std::time::Duration;

use super::*;
use crate::protocol::StunServer;
use crate::protocol::nat_profile::Udp;
use crate::protocol::stun::ServerAddresses;
use crate::testing::{Link, Nat, Net, NodeId, PortChoice, Program, Rule, Running};

#[test]
fn a_server_with_two_addresses_tells_the_truth_about_every_nat() {
    let home = Link::delay(Duration::from_millis(20));
    for (name, nat) in nats() {
        for (hairpin, seed) in [(false, 1), (true, 2), (false, 3)] {
            let nat = Nat { hairpin, ..nat };
            let (profile, took) = measure(seed, &[nat], Servers::Two, home);
            assert_eq!(profile.mapping, Some(mapping_of(nat.mapping)), "{name} {hairpin}");
            assert_eq!(profile.filtering, Some(filtering_of(nat.filtering)), "{name} {hairpin}");
            assert_eq!(profile.ports, Some(ports_of(&nat)), "{name} {hairpin}");
            if nat.mapping == Rule::EndpointIndependent {
                assert_eq!(profile.hairpin, Some(hairpin), "{name}");
            }
            assert_ne!(profile.nat_levels.unwrap_or(1), 2, "{name}");
            assert_eq!((profile.udp, took <= MOST), (Some(Udp::Open), true), "{name} {took:?}");
        }
    }
}

#[test]
fn two_ordinary_servers_tell_what_they_can() {
    let home = Link::delay(Duration::from_millis(20));
    for (name, nat) in nats() {
        let (profile, took) = measure(1, &[nat], Servers::Ordinary(2), home);
        let stable = nat.mapping == Rule::EndpointIndependent;
        let expected = if stable { Mapping::EndpointIndependent } else { Mapping::AddressAndPortDependent };
        assert_eq!(profile.mapping, Some(expected), "{name}");
        assert_eq!((profile.filtering, profile.nat_levels), (None, None), "{name}");
        assert_eq!(profile.ports, Some(ports_of(&nat)), "{name}");
        assert!(took <= MOST, "{name} {took:?}");
    }
    let (profile, _) = measure(1, &[Nat::easy()], Servers::Ordinary(1), home);
    assert_eq!((profile.mapping, profile.ports), (None, Some(Ports::Preserved)), "one server tells little");
}

#[test]
fn a_carrier_nat_behind_the_home_router_is_noticed() {
    let home = Link::delay(Duration::from_millis(20));
    for (nats, levels) in [
        (&[][..], Some(0)),
        (&[Nat::easy()], Some(1)),
        (&[Nat::easy_random()], Some(1)),
        (&[Nat::address_cone()], Some(1)),
        (&[Nat::easy(), Nat::easy()], Some(2)),
        (&[Nat::easy(), Nat::easy_random()], Some(2)),
        (&[Nat::cone()], Some(1)),
        (&[Nat::cone(), Nat::cone()], Some(2)),
        (&[Nat::hard_by_address()], Some(1)),
        (&[Nat::easy(), Nat::hard_by_address()], Some(2)),
        // What cannot be known.
        (&[Nat { filtering: Rule::EndpointIndependent, ..Nat::easy_random() }], None),
        (&[Nat::hard()], None),
        (&[Nat::hard_sequential()], None),
    ] {
        let (profile, took) = measure(1, nats, Servers::Two, home);
        assert_eq!((profile.nat_levels, took <= MOST), (levels, true), "{nats:?} {took:?}");
        let routers = u8::try_from(nats.len()).unwrap();
        let distance = levels.filter(|levels| *levels > 0).map(|_| routers);
        assert_eq!(profile.nat_distance.filter(|_| routers > 0), distance, "{nats:?}");
    }
}

#[test]
fn the_truth_is_found_where_a_twentieth_of_all_packets_is_lost() {
    let lossy = Link::delay(Duration::from_millis(40)).loss(0.05);
    let mut wrong = 0;
    for seed in 0..40 {
        let (profile, took) = measure(seed, &[Nat::easy()], Servers::Two, lossy);
        let right = profile.mapping == Some(Mapping::EndpointIndependent)
            && profile.filtering == Some(Filtering::AddressAndPortDependent)
            && profile.nat_levels == Some(1);
        wrong += u32::from(!right);
        assert!(took <= MOST, "{took:?}");
    }
    assert!(wrong <= 2, "{wrong} of 40");
}

#[test]
fn without_answers_nothing_is_known_and_that_soon() {
    let home = Link::delay(Duration::from_millis(20));
    let blocked = Nat { blocks_udp: true, ..Nat::easy() };
    let (profile, took) = measure(1, &[blocked], Servers::Two, home);
    assert_eq!(profile, NatProfile::default());
    assert!(took <= ASKING, "{took:?}");
    let (profile, took) = measure(1, &[Nat::easy()], Servers::Ordinary(0), home);
    assert_eq!((profile, took), (NatProfile::default(), Duration::ZERO));
}

#[test]
fn a_server_cannot_point_at_our_own_network() {
    let mut prober = NatProber::new(crate::testing::epoch(), &[], &[], 1, Seed::from(1));
    let server: SocketAddr = "203.0.113.10:3478".parse().unwrap();
    for other in
        ["192.168.1.1:80", "127.0.0.1:80", "203.0.113.10:80", "203.0.113.11:3478", "[2001:db8::1]:80"]
    {
        prober.take_other(server, other.parse().unwrap());
        assert_eq!(prober.two, None, "{other}");
    }
    prober.take_other(server, "203.0.113.11:3479".parse().unwrap());
    assert!(prober.two.is_some());
}

/// All kinds that homes, companies and carriers have.
fn nats() -> Vec<(&'static str, Nat)> {
    let mut nats = vec![
        ("cone", Nat::cone()),
        ("acone", Nat::address_cone()),
        ("easy", Nat::easy()),
        ("easyrand", Nat::easy_random()),
        ("hardad", Nat::hard_by_address()),
        ("hard", Nat::hard()),
        ("hardseq", Nat::hard_sequential()),
    ];
    nats.push(("hardseq by two", Nat { ports: PortChoice::Sequential(2), ..Nat::hard() }));
    nats.push(("hard, lets everybody in", Nat { filtering: Rule::EndpointIndependent, ..Nat::hard() }));
    nats.push(("hardad by one", Nat { ports: PortChoice::Sequential(1), ..Nat::hard_by_address() }));
    nats
}

const fn mapping_of(rule: Rule) -> Mapping {
    match rule {
        Rule::EndpointIndependent => Mapping::EndpointIndependent,
        Rule::AddressDependent => Mapping::AddressDependent,
        Rule::AddressAndPortDependent => Mapping::AddressAndPortDependent,
    }
}

const fn filtering_of(rule: Rule) -> Filtering {
    match rule {
        Rule::EndpointIndependent => Filtering::EndpointIndependent,
        Rule::AddressDependent => Filtering::AddressDependent,
        Rule::AddressAndPortDependent => Filtering::AddressAndPortDependent,
    }
}

fn ports_of(nat: &Nat) -> Ports {
    match (nat.mapping, nat.ports) {
        (_, PortChoice::Sequential(step)) => Ports::Sequential(i16::try_from(step).unwrap()),
        (Rule::EndpointIndependent, PortChoice::Preserved) => Ports::Preserved,
        (Rule::EndpointIndependent, PortChoice::Random) => Ports::Stable,
        _ => Ports::Random,
    }
}

enum Servers {
    /// One with two addresses.
    Two,
    /// So many with one.
    Ordinary(u8),
}

/// What a laptop behind `nats`, the innermost first, finds out, and how long that takes.
fn measure(seed: u64, nats: &[Nat], servers: Servers, link: Link) -> (NatProfile, Duration) {
    let mut net = Net::new(Seed::from(seed));
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut programs: Vec<(NodeId, Running<StunServer>)> = Vec::new();
    match servers {
        Servers::Two => {
            let server = net.host(None, "203.0.113.10", Link::default());
            net.add_address(server, "203.0.113.11");
            let four = ["10:3478", "10:3479", "11:3478", "11:3479"]
                .map(|end| format!("203.0.113.{end}").parse::<SocketAddr>().unwrap());
            for address in four {
                net.bind_at(server, address);
            }
            addresses.push(four[0]);
            programs.push((server, Running::new(StunServer::new(ServerAddresses::Four(four)))));
        }
        Servers::Ordinary(count) => {
            for number in 0..count {
                let address = format!("203.0.113.{}", number + 1);
                let server = net.host(None, &address, Link::default());
                net.bind(server, 3478);
                addresses.push(SocketAddr::new(address.parse().unwrap(), 3478));
                programs.push((server, Running::new(StunServer::new(ServerAddresses::One))));
            }
        }
    }
    let mut behind = None;
    for (level, nat) in nats.iter().rev().enumerate() {
        let (address, link) =
            if level == 0 { ("198.51.100.2", link) } else { ("100.64.1.2", Link::default()) };
        behind = Some(net.nat(behind, address, link, *nat));
    }
    let (local, link) =
        if behind.is_some() { ("192.168.1.11", Link::default()) } else { ("198.51.100.2", link) };
    let laptop = net.host(behind, local, link);
    net.bind(laptop, 4000);
    let hosts = [SocketAddr::new(local.parse().unwrap(), 4000)];
    let start = net.now();
    let ports: Vec<u16> = (4001..).take(NatProber::FURTHER).collect();
    for port in &ports {
        net.bind(laptop, *port);
    }
    let prober = NatProber::new(start, &addresses, &hosts, 4000, Seed::from(seed)).further_ports(&ports);
    let mut prober = Running::until(prober, |_| true);
    let mut running: Vec<(NodeId, &mut dyn Program)> = vec![(laptop, &mut prober)];
    running.extend(programs.iter_mut().map(|(node, program)| (*node, program as &mut dyn Program)));
    net.run(&mut running, Duration::from_secs(10));
    let (at, profile) = &prober.events()[0];
    (profile.clone(), at.duration_since(start))
}

const MOST: Duration = NatProber::MOST;
