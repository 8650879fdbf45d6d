use super::*;
use crate::protocol::StunServer;
use crate::protocol::stun::ServerAddresses;
use crate::testing::{Link, Nat, Net, NodeId, PortChoice, Program, Running, epoch};

#[test]
fn the_port_rule_of_each_kind_of_nat_is_seen() {
    for seed in 0..20 {
        let rule = |nat| match &learn(seed, nat, 3, 0).1.addresses[..] {
            [one] => one.ports,
            several => panic!("seed {seed}: {several:?}"),
        };
        assert_eq!(rule(Nat::easy()), PortRule::Stable, "seed {seed}");
        assert_eq!(rule(Nat::easy_random()), PortRule::Stable, "seed {seed}");
        assert_eq!(rule(Nat::hard()), PortRule::Random, "seed {seed}");
        assert_eq!(rule(Nat::hard_by_address()), PortRule::Random, "seed {seed}");
        assert_eq!(rule(Nat::hard_sequential()), PortRule::Sequential(1), "seed {seed}");
        let by_two = Nat { ports: PortChoice::Sequential(2), ..Nat::hard_sequential() };
        assert_eq!(rule(by_two), PortRule::Sequential(2), "seed {seed}");
    }
}

#[test]
fn a_dead_server_is_told_and_does_not_hold_up_the_rest() {
    let (time, mapping) = learn(1, Nat::easy(), 2, 1);
    assert_eq!(time, Duration::from_millis(40) + Mapper::GRACE);
    assert_eq!(mapping.addresses.len(), 1);
    let [MapFailure::Late { server }] = mapping.failures[..] else { panic!("{:?}", mapping.failures) };
    assert_eq!(server.to_string(), "203.0.113.200:3478");
}

#[test]
fn with_all_servers_dead_the_deadline_ends_it() {
    let (time, mapping) = learn(1, Nat::easy(), 0, 2);
    assert_eq!(time, Duration::from_secs(3));
    assert_eq!(mapping.addresses, []);
    assert_eq!(mapping.failures.len(), 2);
}

#[test]
fn without_servers_it_is_over_at_once() {
    let (time, mapping) = learn(1, Nat::easy(), 0, 0);
    assert_eq!((time, mapping), (Duration::ZERO, Mapping::default()));
}

#[test]
fn one_server_that_lies_is_outvoted_and_named() {
    let (truth, lie) = ("198.51.100.2:4000".parse().unwrap(), "192.0.2.66:66".parse().unwrap());
    let servers: Vec<SocketAddr> = (1..=3).map(|n| format!("203.0.113.{n}:3478").parse().unwrap()).collect();
    let seen = vec![(servers[0], truth), (servers[1], lie), (servers[2], truth)];
    let mapping = Answers { seen, ..Answers::default() }.conclude();
    assert_eq!(mapping.addresses, [MappedSocketAddr::reflexive(truth, PortRule::Stable)]);
    assert_eq!(mapping.failures, [MapFailure::Disagrees { server: servers[1], claimed: lie }]);
}

#[test]
fn a_host_with_two_ways_out_has_two_addresses() {
    let servers: Vec<SocketAddr> = (1..=2).map(|n| format!("203.0.113.{n}:3478").parse().unwrap()).collect();
    let (one, two) = ("198.51.100.2:4000".parse().unwrap(), "192.0.2.2:4000".parse().unwrap());
    let mapping =
        Answers { seen: vec![(servers[0], one), (servers[1], two)], ..Answers::default() }.conclude();
    let unknown = |addr| MappedSocketAddr::reflexive(addr, PortRule::Unknown);
    assert_eq!(mapping.addresses, [unknown(one), unknown(two)]);
}

#[test]
fn ports_are_judged_by_their_gaps() {
    let cases: [(&[u16], _); 6] = [
        (&[4000], (4000, PortRule::Unknown)),
        (&[4000, 4000], (4000, PortRule::Stable)),
        (&[4001, 4000, 4002], (4002, PortRule::Sequential(1))),
        (&[4002, 4001, 4000], (4000, PortRule::Sequential(-1))),
        (&[4000, 4002, 4004], (4004, PortRule::Sequential(2))),
        (&[4000, 41_000, 9_000], (9_000, PortRule::Random)),
    ];
    for (ports, expected) in cases {
        assert_eq!(port_rule(ports), Some(expected), "{ports:?}");
    }
}

/// What a laptop behind `nat` learns from `alive` servers that answer and `dead` ones that do not.
fn learn(seed: u64, nat: Nat, alive: usize, dead: usize) -> (Duration, Mapping) {
    let mut net = Net::new(Seed::from(seed));
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut servers: Vec<(NodeId, Running<StunServer>)> = Vec::new();
    for number in 0..alive {
        let address = format!("203.0.113.{}", number + 1);
        let server = net.host(None, &address, Link::default());
        net.bind(server, 3478);
        addresses.push(SocketAddr::new(address.parse().unwrap(), 3478));
        servers.push((server, Running::new(StunServer::new(ServerAddresses::One))));
    }
    addresses.extend((0..dead).map(|n| SocketAddr::new([203, 0, 113, 200 + n as u8].into(), 3478)));
    let home = net.nat(None, "198.51.100.2", Link::delay(Duration::from_millis(20)), nat);
    let laptop = net.host(Some(home), "192.168.1.11", Link::default());
    net.bind(laptop, 4000);

    let start = net.now();
    let mapper = Mapper::new(start, &addresses, Seed::from(seed), start + Duration::from_secs(3));
    let mut mapper = Running::until(mapper, |_| true);
    let mut programs: Vec<(NodeId, &mut dyn Program)> = vec![(laptop, &mut mapper)];
    programs.extend(servers.iter_mut().map(|(node, program)| (*node, program as &mut dyn Program)));
    net.run(&mut programs, Duration::from_secs(10));
    let (time, mapping) = &mapper.events()[0];
    (time.duration_since(start), mapping.clone())
}

#[test]
fn the_event_comes_once() {
    let now = epoch();
    let mut mapper = Mapper::new(now, &[], Seed::from(1), now);
    mapper.handle_timeout(now);
    assert!(mapper.poll_event().is_some());
    assert!(mapper.poll_event().is_none() && mapper.poll_timeout().is_none());
}
