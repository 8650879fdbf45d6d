use super::*;
use crate::protocol::Seed;

const A: &str = "192.168.1.11:4000";
const FAR: &str = "203.0.113.10:3478";
const FAR_OTHER_PORT: &str = "203.0.113.10:3479";
const FAR_OTHER_ADDRESS: &str = "203.0.113.11:3478";

#[test]
fn each_mapping_rule_keeps_ports_as_rfc_4787_says() {
    let cases = [
        (Rule::EndpointIndependent, [true, true]),
        (Rule::AddressDependent, [true, false]),
        (Rule::AddressAndPortDependent, [false, false]),
    ];
    for (mapping, expected) in cases {
        let mut nat = Bench::new(Nat { mapping, ports: PortChoice::Random, ..Nat::easy() });
        let first = nat.out(0, FAR);
        assert_eq!(nat.out(0, FAR), first, "{mapping:?}");
        let kept = [nat.out(0, FAR_OTHER_PORT) == first, nat.out(0, FAR_OTHER_ADDRESS) == first];
        assert_eq!(kept, expected, "{mapping:?}");
    }
}

#[test]
fn each_filtering_rule_lets_in_whom_rfc_4787_says() {
    let cases = [
        (Rule::EndpointIndependent, [true, true, true]),
        (Rule::AddressDependent, [true, true, false]),
        (Rule::AddressAndPortDependent, [true, false, false]),
    ];
    for (filtering, expected) in cases {
        let mut nat = Bench::new(Nat { filtering, ..Nat::easy() });
        let port = nat.out(0, FAR);
        let passes = [FAR, FAR_OTHER_PORT, FAR_OTHER_ADDRESS].map(|from| nat.comes_in(0, port, from));
        assert_eq!(passes, expected, "{filtering:?}");
    }
}

#[test]
fn ports_are_preserved_stepped_or_drawn() {
    assert_eq!(Bench::new(Nat::easy()).out(0, FAR), 4000);

    let mut sequential = Bench::new(Nat::hard_sequential());
    let first = sequential.out(0, FAR);
    assert_eq!(sequential.out(0, FAR_OTHER_PORT), first + 1);
    assert_eq!(sequential.out(0, FAR_OTHER_ADDRESS), first + 2);

    let mut random = Bench::new(Nat::hard());
    let ports = [FAR, FAR_OTHER_PORT, FAR_OTHER_ADDRESS].map(|to| random.out(0, to));
    assert!(ports[0].abs_diff(ports[1]) > 1 && ports[1].abs_diff(ports[2]) > 1, "{ports:?}");

    let mut block = Bench::new(Nat { ports: PortChoice::Block(8), ..Nat::hard() });
    let ports: Vec<u16> = (0..9).map(|port| block.out(0, &format!("203.0.113.10:{port}"))).collect();
    let spread = ports[..8].iter().max().unwrap() - ports[..8].iter().min().unwrap();
    assert_eq!(spread, 7, "all eight of the block, then another: {ports:?}");
    assert!(ports[8].abs_diff(ports[0]) > 7, "{ports:?}");
}

#[test]
fn a_mapping_ends_when_nothing_has_gone_out_for_its_lifetime() {
    let mut nat = Bench::new(Nat { lifetime: Duration::from_secs(30), ..Nat::easy() });
    let port = nat.out(0, FAR);
    nat.out(20, FAR);
    assert!(nat.comes_in(50, port, FAR), "30 s after the last packet out");
    assert!(!nat.comes_in(51, port, FAR), "packets in do not keep it alive");
}

#[test]
fn an_accepted_stranger_takes_the_port_for_itself_for_a_while() {
    let mut nat = Bench::new(Nat { unsolicited: Unsolicited::Accept, ..Nat::easy() });
    let port = nat.out(0, FAR);
    assert!(!nat.comes_in(0, port, FAR_OTHER_ADDRESS));
    assert_ne!(nat.out(1, FAR_OTHER_ADDRESS), port, "the flow is the router's own now");
    assert_eq!(nat.out(1, FAR), port, "other flows keep their port");
}

/// A table, its clock and its randomness.
struct Bench {
    table: Table,
    random: Random,
    start: Instant,
}

impl Bench {
    fn new(nat: Nat) -> Self {
        let mut random = Random::new(Seed::from(1));
        Self { table: Table::new(nat, &mut random), random, start: Instant::now() }
    }

    fn out(&mut self, second: u64, to: &str) -> u16 {
        let now = self.start + Duration::from_secs(second);
        self.table.outbound(now, Layer::Udp, address(A), address(to), &mut self.random)
    }

    fn comes_in(&mut self, second: u64, port: u16, from: &str) -> bool {
        let now = self.start + Duration::from_secs(second);
        self.table.inbound(now, Layer::Udp, port, address(from)) == Some(address(A))
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
