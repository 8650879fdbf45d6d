use std::net::{IpAddr, SocketAddr};

use super::{Hairpin, Kind, NEAR, NatProber, Outcome, Probe};
use crate::protocol::candidate::PortRule;
use crate::protocol::mapping::port_rule;
use crate::protocol::nat_profile::{Filtering, Mapping, NatProfile, Ports, Udp};

/// What follows from the answers.
impl NatProber {
    /// Who was asked from the main socket, and what it saw.
    pub(super) fn addresses(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let asked = self.probes.iter().filter(|probe| probe.kind == Kind::Address);
        let seen = asked.filter_map(|probe| match probe.outcome {
            Outcome::Answered(address) => Some((probe.destination, address)),
            Outcome::Pending | Outcome::Silent => None,
        });
        seen.collect()
    }

    pub(super) fn conclude(&self) -> NatProfile {
        let addresses = self.addresses();
        let mut profile = NatProfile::default();
        for (_, address) in &addresses {
            if !profile.public.contains(address) {
                profile.public.push(*address);
            }
        }
        if addresses.is_empty() {
            return profile;
        }
        profile.udp = Some(Udp::Open);
        profile.mapping = self.mapping(&addresses);
        profile.ports = self.ports(profile.mapping, &addresses);
        profile.filtering = self.filtering();
        profile.hairpin = match self.hairpin {
            // Without a NAT there is nothing to come back from, and with changing ports nothing to aim at.
            Hairpin::Works if profile.mapping != Some(Mapping::None) => Some(true),
            Hairpin::Fails if profile.mapping == Some(Mapping::EndpointIndependent) => Some(false),
            _ => None,
        };
        profile.nat_distance = self.distance(profile.mapping, profile.filtering);
        profile.nat_levels = match profile.mapping {
            Some(Mapping::None) => Some(0),
            _ => profile.nat_distance.map(|routers| routers.min(2)),
        };
        profile
    }

    /// How many routers away the outermost one is that had to be opened.
    fn distance(&self, mapping: Option<Mapping>, filtering: Option<Filtering>) -> Option<u8> {
        let nearest = |kind: fn(u8) -> Kind| {
            let passes = |probe: &&Probe| matches!(probe.outcome, Outcome::Answered(_));
            let passed = |hops: &u8| self.probes.iter().filter(passes).any(|probe| probe.kind == kind(*hops));
            // It passes one router fewer than it has hops.
            NEAR.into_iter().find(passed).map(|hops| hops - 1)
        };
        match (mapping, filtering) {
            (Some(Mapping::None | Mapping::EndpointIndependent), Some(Filtering::EndpointIndependent)) => {
                nearest(Kind::Blind)
            }
            (Some(Mapping::None | Mapping::EndpointIndependent), Some(_))
            | (Some(Mapping::AddressDependent), Some(Filtering::AddressAndPortDependent)) => {
                nearest(Kind::Near)
            }
            // What would open it goes out by another port than what asks, or it lets the answer in anyway.
            _ => None,
        }
    }

    pub(super) fn mapping(&self, addresses: &[(SocketAddr, SocketAddr)]) -> Option<Mapping> {
        let (_, first) = addresses[0];
        let all_same = addresses.iter().all(|(_, address)| *address == first);
        if all_same && self.hosts.contains(&first) {
            return Some(Mapping::None);
        }
        if all_same {
            return (addresses.len() > 1).then_some(Mapping::EndpointIndependent);
        }
        // Two destinations of one address tell whether ports matter.
        let of = |ip: IpAddr| addresses.iter().filter(move |(to, _)| to.ip() == ip).map(|(_, seen)| seen);
        let same_by_address =
            addresses.iter().all(|(destination, seen)| of(destination.ip()).all(|other| other == seen));
        let compared = addresses.iter().any(|(destination, _)| of(destination.ip()).count() > 1);
        Some(if same_by_address && compared {
            Mapping::AddressDependent
        } else {
            Mapping::AddressAndPortDependent
        })
    }

    fn ports(&self, mapping: Option<Mapping>, addresses: &[(SocketAddr, SocketAddr)]) -> Option<Ports> {
        let mut ports: Vec<u16> = addresses.iter().map(|(_, address)| address.port()).collect();
        if mapping.is_some_and(|mapping| mapping != Mapping::None && mapping != Mapping::EndpointIndependent)
        {
            ports.dedup();
            return match port_rule(&ports) {
                Some((_, PortRule::Sequential(step))) => Some(Ports::Sequential(step)),
                Some((_, PortRule::Random)) => Some(Ports::Random),
                // Another address, with the same port.
                _ => Some(Ports::Preserved),
            };
        }
        let preserved = ports.iter().all(|port| *port == self.local_port);
        Some(if preserved { Ports::Preserved } else { Ports::Stable })
    }

    fn filtering(&self) -> Option<Filtering> {
        let outcome = |kind| self.probes.iter().find(|probe| probe.kind == kind).map(|probe| probe.outcome);
        let answered = |outcome| matches!(outcome, Outcome::Answered(_));
        let (elsewhere, port) = (outcome(Kind::FromElsewhere)?, outcome(Kind::FromOtherPort)?);
        Some(if answered(elsewhere) {
            Filtering::EndpointIndependent
        } else if answered(port) {
            Filtering::AddressDependent
        } else {
            Filtering::AddressAndPortDependent
        })
    }
}
