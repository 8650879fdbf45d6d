use std::net::{IpAddr, SocketAddr};

use nat_traversal::HolePunchServerAddr;
use transport::{NamedEndpoint, PublicKey, Scheme};

/// A peer that introduces others to each other: where it is, and where it tells others their outside addresses.
///
/// It carries small sealed messages between peers that are attached to it and those who look for them. It learns who looks for
/// whom and when, and neither's addresses beyond the one that each connects from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introducer {
    /// Where it listens, all of one key.
    pub(crate) endpoints: Vec<NamedEndpoint>,
    /// The port at which it answers STUN, over UDP and TCP; it does at the next one too.
    pub(crate) stun_port: Option<u16>,
}

impl Introducer {
    /// One that is reached there.
    #[must_use]
    pub fn new(endpoint: impl Into<NamedEndpoint>) -> Self {
        Self { endpoints: vec![endpoint.into()], stun_port: None }
    }

    /// The introducers behind these endpoints: those of one key are one.
    pub(crate) fn grouped(endpoints: impl IntoIterator<Item = NamedEndpoint>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for endpoint in endpoints {
            match all.iter_mut().find(|known| known.key() == endpoint.public_key()) {
                Some(known) => known.merge(Self::new(endpoint)),
                None => all.push(Self::new(endpoint)),
            }
        }
        all
    }

    /// Adds what another description of the same introducer knows.
    pub(crate) fn merge(&mut self, other: Self) {
        self.stun_port = other.stun_port.or(self.stun_port);
        for endpoint in other.endpoints {
            if !self.endpoints.contains(&endpoint) && self.endpoints.len() < MAX_ENDPOINTS {
                self.endpoints.push(endpoint);
            }
        }
    }

    /// Names the port at which it answers STUN, as it does at the next. Default: unknown until we are attached to it.
    #[must_use]
    pub fn stun_port(mut self, port: u16) -> Self {
        self.stun_port = (port != 0).then_some(port);
        self
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.endpoints[0].public_key()
    }

    /// Where it answers STUN if its address is `ip`: at two ports, as one answer would not show that a NAT gives each
    /// destination a port of its own.
    pub(crate) fn stun_servers(&self, ip: IpAddr) -> impl Iterator<Item = HolePunchServerAddr> {
        let ports = self.stun_port.into_iter().flat_map(|port| [Some(port), port.checked_add(1)]);
        ports.flatten().map(move |port| HolePunchServerAddr::Stun(SocketAddr::new(ip, port)))
    }

    /// Where to dial it, IPv4 first: it tells peers that are to punch to us where it sees us come from, and where NATs draw
    /// ports at random, that is over IPv4. By TCP before that if no UDP passes here.
    pub(crate) fn in_dialling_order(&self, without_udp: bool) -> Vec<NamedEndpoint> {
        let mut ordered = self.endpoints.clone();
        ordered.sort_by_key(|named| {
            let over_udp = without_udp && named.scheme() == Scheme::Quic;
            (over_udp, named.to_endpoint().is_some_and(|endpoint| endpoint.addr().is_ipv6()))
        });
        ordered
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoints(&self) -> &[NamedEndpoint] {
        &self.endpoints
    }
}

/// Both schemes over both families, by an address or a name each.
const MAX_ENDPOINTS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introducer_is_dialled_over_ipv4_first() {
        let key = PublicKey::from_bytes([3; 32]);
        let texts = ["quic://[2001:db8::1]:1", "quic://192.0.2.1:1", "tcp://a.test:1", "tcp://192.0.2.1:2"];
        let endpoints = texts.map(|text| format!("{text}?pubkey={key}").parse::<NamedEndpoint>().unwrap());
        let [introducer] = &Introducer::grouped(endpoints.clone())[..] else { panic!("one of one key") };
        let [v6, rest @ ..] = &endpoints;
        assert_eq!(introducer.in_dialling_order(false), [rest, std::slice::from_ref(v6)].concat());
        let [over_udp, over_tcp @ ..] = rest;
        let expected = [over_tcp, &[over_udp.clone(), v6.clone()][..]].concat();
        assert_eq!(introducer.in_dialling_order(true), expected, "where no UDP passes");
    }
}
