//! Two peers behind NATs of any kind that punch for TCP, and the servers that tell them their addresses.

use std::net::SocketAddr;
use std::time::Duration;

use nat_traversal::MappedSocketAddr;
use nat_traversal::protocol::{Obstacle, PunchKeys, Seed, TcpPunchEvent, TcpPuncher};
use nat_traversal::testing::{Link, Net, NodeId, Program, TcpMapping, TcpPunching, TcpStun};

use crate::world::{Peer, Site, place};

pub(crate) struct TcpWorld {
    pub(crate) net: Net,
    pub(crate) peers: [Peer; 2],
    pub(crate) seed: Seed,
}

/// How a punch went.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TcpOutcome {
    pub(crate) events: [Option<TcpPunchEvent>; 2],
    /// Our and the peer's address of each side's connection.
    pub(crate) ends: [Option<(SocketAddr, SocketAddr)>; 2],
    pub(crate) obstacles: [Obstacle; 2],
    pub(crate) took: Duration,
}

impl TcpOutcome {
    pub(crate) fn is_direct(&self) -> bool {
        self.events.iter().all(|event| matches!(event, Some(TcpPunchEvent::Punched(_))))
    }

    /// Whether either both sides have a connection or none has.
    pub(crate) fn is_agreed(&self) -> bool {
        self.ends[0].is_some() == self.ends[1].is_some()
    }

    pub(crate) fn is_hopeless(&self) -> bool {
        self.events.iter().all(|event| matches!(event, Some(TcpPunchEvent::Hopeless(_))))
    }
}

impl TcpWorld {
    /// Builds the network and lets both peers learn the addresses of their ports, by three servers.
    pub(crate) fn new(seed: u64, sites: [Site; 2], link: Link) -> Self {
        let seed = Seed::from(seed);
        let mut net = Net::new(seed.derive("net"));
        let hosts = [0, 1].map(|side| place(&mut net, side, sites[usize::from(side)], link));
        Self::map(net, seed, hosts)
    }

    /// Lets hosts that are there already learn their addresses.
    pub(crate) fn map(mut net: Net, seed: Seed, hosts: [(NodeId, SocketAddr); 2]) -> Self {
        let mut servers: Vec<(NodeId, TcpStun)> = Vec::new();
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for number in 10..13 {
            let ip = format!("203.0.113.{number}");
            let server = net.host(None, &ip, Link::delay(Duration::from_millis(20)));
            let address = SocketAddr::new(ip.parse().unwrap(), 3478);
            addresses.push(address);
            servers.push((server, TcpStun::new(address)));
        }
        let now = net.now();
        let mut mappings = [0, 1].map(|side| {
            let seed = seed.derive(["map a", "map b"][side]);
            TcpMapping::new(now, hosts[side].1, &addresses, seed, now + Duration::from_secs(5))
        });
        let mut programs: Vec<(NodeId, &mut dyn Program)> =
            servers.iter_mut().map(|(node, server)| (*node, server as &mut dyn Program)).collect();
        for ((host, _), mapping) in hosts.iter().zip(&mut mappings) {
            programs.push((*host, mapping));
        }
        net.run(&mut programs, Duration::from_secs(10));
        let peers = [0, 1].map(|side| {
            let (host, local) = hosts[side];
            let mut addresses = vec![MappedSocketAddr::host(local)];
            let seen = &mappings[side].mapping().unwrap().addresses;
            addresses.extend(seen.iter().filter(|seen| seen.addr != local));
            Peer { host, addresses }
        });
        Self { net, peers, seed }
    }

    /// Lets both peers punch, the second beginning `skew` after the first.
    pub(crate) fn punch(&mut self, skew: Duration, patience: Duration) -> TcpOutcome {
        let [a, b] = &self.peers;
        let start = self.net.now();
        let key = |ours: &[u8], theirs: &[u8]| PunchKeys::derive(b"secret", ours, theirs).unwrap();
        let punching = |at, ours: &Peer, theirs: &Peer, keys, name| {
            let seed = self.seed.derive(name);
            let puncher = TcpPuncher::new(at, &ours.addresses, &theirs.addresses, keys, seed);
            TcpPunching::new(ours.addresses[0].addr, puncher)
        };
        let mut first = punching(start, a, b, key(b"a", b"b"), "a");
        let mut second = punching(start + skew, b, a, key(b"b", b"a"), "b");
        let (host_a, host_b) = (a.host, b.host);
        if !skew.is_zero() {
            self.net.run(&mut [(host_a, &mut first)], skew);
        }
        self.net.run(&mut [(host_a, &mut first), (host_b, &mut second)], patience);
        let last = [&first, &second].iter().filter_map(|peer| peer.outcome()).map(|(at, _)| at).max();
        TcpOutcome {
            events: [&first, &second].map(|peer| peer.outcome().map(|(_, event)| event)),
            ends: [&first, &second].map(TcpPunching::punched),
            obstacles: [&first, &second].map(|peer| peer.puncher().obstacle()),
            took: last.unwrap_or_else(|| self.net.now()).duration_since(start + skew),
        }
    }
}
