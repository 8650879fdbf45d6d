use std::fmt;

use super::{Filtering, Mapping, NatProfile, Obstacle, Udp};
use crate::protocol::PortRule;

/// How two peers come together over UDP, by what is known of their NATs. The puncher goes by the same rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// One side lets everybody in at an address that is known: the other one just sends.
    Direct,
    /// Both send at the same time, each to the port that servers see of the other.
    Together,
    /// As that, but the ports of at least one side are guessed: they follow each other.
    Predict,
    /// One side opens many ports, the other one knocks at many, until two meet.
    Spray,
    /// UDP does not pass, so that TCP is dialled from both sides at the same time.
    Tcp,
    /// None of this works, and why.
    Hopeless(Obstacle),
}

/// How two peers with these NATs come together. What is not known of a NAT is taken for the usual.
#[must_use]
pub fn strategy(ours: &NatProfile, theirs: &NatProfile) -> Strategy {
    if ours.udp == Some(Udp::Blocked) || theirs.udp == Some(Udp::Blocked) {
        return Strategy::Tcp;
    }
    if is_open(ours) || is_open(theirs) {
        return Strategy::Direct;
    }
    let lenient = |profile: &NatProfile| {
        matches!(profile.filtering, Some(Filtering::EndpointIndependent | Filtering::AddressDependent))
    };
    match (ours.port_rule(), theirs.port_rule()) {
        (PortRule::Stable | PortRule::Unknown, PortRule::Stable | PortRule::Unknown) => Strategy::Together,
        // The side that keeps its port lets in whoever comes from an address that it has sent to, whatever the port.
        (PortRule::Stable, _) if lenient(ours) => Strategy::Together,
        (_, PortRule::Stable) if lenient(theirs) => Strategy::Together,
        (PortRule::Random, PortRule::Stable | PortRule::Unknown)
        | (PortRule::Stable | PortRule::Unknown, PortRule::Random) => Strategy::Spray,
        (PortRule::Random, _) | (_, PortRule::Random) => Strategy::Hopeless(Obstacle::BothUnpredictable),
        (PortRule::Sequential(_), _) | (_, PortRule::Sequential(_)) => Strategy::Predict,
    }
}

/// Whether everybody gets in at a known address.
fn is_open(profile: &NatProfile) -> bool {
    let known = matches!(profile.mapping, Some(Mapping::None | Mapping::EndpointIndependent));
    known && profile.filtering == Some(Filtering::EndpointIndependent)
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("directly, since one side lets everybody in"),
            Self::Together => f.write_str("directly, when both send at the same time"),
            Self::Predict => f.write_str("mostly directly, by guessing the next port"),
            Self::Spray => f.write_str("mostly directly, within some seconds, by trying many ports"),
            Self::Tcp => f.write_str("over TCP, when both dial at the same time"),
            Self::Hopeless(_) => f.write_str("only over a relay, or a port that a router forwards"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::nat_profile::Ports;

    #[test]
    fn each_pair_of_nats_has_its_strategy() {
        use Strategy::{Direct, Predict, Spray, Together};
        let hopeless = Strategy::Hopeless(Obstacle::BothUnpredictable);
        let names = ["open", "fw", "cone", "acone", "easy", "hardad", "hard", "hardseq", "udpblock"];
        let expected = [
            [Direct, Direct, Direct, Direct, Direct, Direct, Direct, Direct],
            [Direct, Together, Direct, Together, Together, Spray, Spray, Predict],
            [Direct, Direct, Direct, Direct, Direct, Direct, Direct, Direct],
            [Direct, Together, Direct, Together, Together, Together, Together, Together],
            [Direct, Together, Direct, Together, Together, Spray, Spray, Predict],
            [Direct, Spray, Direct, Together, Spray, hopeless, hopeless, hopeless],
            [Direct, Spray, Direct, Together, Spray, hopeless, hopeless, hopeless],
            [Direct, Predict, Direct, Together, Predict, hopeless, hopeless, Predict],
        ];
        for (row, ours) in names.iter().enumerate() {
            for (column, theirs) in names.iter().enumerate() {
                let expected = expected.get(row).and_then(|row| row.get(column)).copied();
                let found = strategy(&profile(ours), &profile(theirs));
                assert_eq!(found, expected.unwrap_or(Strategy::Tcp), "{ours} {theirs}");
            }
        }
    }

    #[test]
    fn what_is_not_known_is_taken_for_the_usual() {
        assert_eq!(strategy(&NatProfile::default(), &NatProfile::default()), Strategy::Together);
        assert_eq!(strategy(&NatProfile::default(), &profile("hard")), Strategy::Spray);
    }

    fn profile(name: &str) -> NatProfile {
        use Filtering as F;
        use Mapping as M;
        let (mapping, filtering, ports) = match name {
            "open" => (M::None, F::EndpointIndependent, Ports::Preserved),
            "fw" => (M::None, F::AddressAndPortDependent, Ports::Preserved),
            "cone" => (M::EndpointIndependent, F::EndpointIndependent, Ports::Preserved),
            "acone" => (M::EndpointIndependent, F::AddressDependent, Ports::Preserved),
            "easy" | "udpblock" => (M::EndpointIndependent, F::AddressAndPortDependent, Ports::Preserved),
            "hardad" => (M::AddressDependent, F::AddressAndPortDependent, Ports::Random),
            "hard" => (M::AddressAndPortDependent, F::AddressAndPortDependent, Ports::Random),
            "hardseq" => (M::AddressAndPortDependent, F::AddressAndPortDependent, Ports::Sequential(1)),
            other => panic!("no profile {other}"),
        };
        let udp = Some(if name == "udpblock" { Udp::Blocked } else { Udp::Open });
        NatProfile {
            mapping: Some(mapping),
            filtering: Some(filtering),
            ports: Some(ports),
            udp,
            ..NatProfile::default()
        }
    }
}
