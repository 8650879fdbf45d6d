use std::time::Duration;

use nat_traversal::NatProfile;
use nat_traversal::protocol::nat_profile::{Filtering, Mapping, Ports, Strategy, Udp, strategy};
use nat_traversal::testing::{Link, Nat, PortChoice, Rule};

use crate::world::{Site, World};

const NATS: [(&str, &[Nat]); 7] = [
    ("cone", &[Nat::cone()]),
    ("acone", &[Nat::address_cone()]),
    ("easy", &[Nat::easy()]),
    ("easyrand", &[Nat::easy_random()]),
    ("hardad", &[Nat::hard_by_address()]),
    ("hard", &[Nat::hard()]),
    ("hardseq", &[Nat::hard_sequential()]),
];

/// What is told of a pair of NATs comes true when they are punched, and in the time that the words promise.
#[test]
fn the_puncher_does_what_the_strategy_says() {
    let link = Link::delay(Duration::from_millis(20));
    for (name_a, a) in NATS {
        for (name_b, b) in NATS {
            let told = strategy(&profile(&a[0]), &profile(&b[0]));
            let sites = [(name_a, a), (name_b, b)].map(|(name, nats)| Site { name, nats });
            let outcome = World::new(1, sites, link).punch(Duration::ZERO, Duration::from_secs(30));
            let right = match told {
                Strategy::Direct | Strategy::Together | Strategy::Predict => {
                    outcome.is_direct() && outcome.took <= Duration::from_secs(2)
                }
                Strategy::Spray => outcome.is_direct() && outcome.took <= Duration::from_secs(25),
                Strategy::Hopeless(_) => outcome.is_hopeless() && outcome.took.is_zero(),
                Strategy::Tcp => false,
            };
            assert!(right, "{name_a} and {name_b}: told {told:?}, came to {outcome:?}");
        }
    }
}

/// What the prober measures of such a NAT, as its own tests show.
fn profile(nat: &Nat) -> NatProfile {
    let mapping = match nat.mapping {
        Rule::EndpointIndependent => Mapping::EndpointIndependent,
        Rule::AddressDependent => Mapping::AddressDependent,
        Rule::AddressAndPortDependent => Mapping::AddressAndPortDependent,
    };
    let filtering = match nat.filtering {
        Rule::EndpointIndependent => Filtering::EndpointIndependent,
        Rule::AddressDependent => Filtering::AddressDependent,
        Rule::AddressAndPortDependent => Filtering::AddressAndPortDependent,
    };
    let ports = match (nat.mapping, nat.ports) {
        (_, PortChoice::Sequential(step)) => Ports::Sequential(i16::try_from(step).unwrap()),
        (Rule::EndpointIndependent, PortChoice::Preserved) => Ports::Preserved,
        (Rule::EndpointIndependent, PortChoice::Random) => Ports::Stable,
        _ => Ports::Random,
    };
    NatProfile {
        mapping: Some(mapping),
        filtering: Some(filtering),
        ports: Some(ports),
        udp: Some(Udp::Open),
        ..NatProfile::default()
    }
}
