//! Two peers behind NATs of any kind, and the servers that tell them their addresses.

use std::net::SocketAddr;
use std::time::Duration;

use nat_traversal::protocol::stun::ServerAddresses;
use nat_traversal::protocol::{Mapper, PunchEvent, PunchKeys, Seed, StunServer, UdpPuncher};
use nat_traversal::testing::{Link, Nat, Net, NodeId, Program, Running};
use nat_traversal::{MappedSocketAddr, PunchOptions};

/// What stands between a peer and the internet, the innermost first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) nats: &'static [Nat],
}

/// A peer: its host and what it has learned of its addresses.
pub(crate) struct Peer {
    pub(crate) host: NodeId,
    pub(crate) addresses: Vec<MappedSocketAddr>,
}

pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) peers: [Peer; 2],
    pub(crate) seed: Seed,
    /// What is known of how far away the outermost NATs are.
    pub(crate) opener_hops: Option<u8>,
    /// What both may do. At first, to spray as if the two had exchanged their lines by hand.
    pub(crate) options: PunchOptions,
}

/// How a punch went.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) events: [Option<PunchEvent>; 2],
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn is_direct(&self) -> bool {
        self.events.iter().all(|event| matches!(event, Some(PunchEvent::Punched { .. })))
    }

    pub(crate) fn is_hopeless(&self) -> bool {
        self.events.iter().all(|event| matches!(event, Some(PunchEvent::Hopeless(_))))
    }
}

impl World {
    /// Builds the network and lets both peers learn their addresses, by three servers.
    pub(crate) fn new(seed: u64, sites: [Site; 2], link: Link) -> Self {
        let seed = Seed::from(seed);
        let mut net = Net::new(seed.derive("net"));
        let hosts = [0, 1].map(|side| place(&mut net, side, sites[usize::from(side)], link));
        Self::map(net, seed, hosts)
    }

    /// Lets hosts that are there already learn their addresses.
    pub(crate) fn map(net: Net, seed: Seed, hosts: [(NodeId, SocketAddr); 2]) -> Self {
        let servers =
            [0; 3].map(|_| Box::new(Running::new(StunServer::new(ServerAddresses::One))) as Box<dyn Program>);
        Self::map_by(net, seed, hosts, servers.into())
    }

    /// The same by these servers.
    pub(crate) fn map_by(
        mut net: Net,
        seed: Seed,
        hosts: [(NodeId, SocketAddr); 2],
        servers: Vec<Box<dyn Program>>,
    ) -> Self {
        let mut addresses = Vec::new();
        let mut servers: Vec<(NodeId, Box<dyn Program>)> = (10_u8..)
            .zip(servers)
            .map(|(number, program)| {
                let address = SocketAddr::from(([203, 0, 113, number], 3478));
                let server =
                    net.host(None, &address.ip().to_string(), Link::delay(Duration::from_millis(20)));
                net.bind(server, 3478);
                addresses.push(address);
                (server, program)
            })
            .collect();
        let now = net.now();
        let mut mappers = [0, 1].map(|side| {
            let seed = seed.derive(["map a", "map b"][side]);
            Running::until(Mapper::new(now, &addresses, seed, now + Duration::from_secs(5)), |_| true)
        });
        let mut programs: Vec<(NodeId, &mut dyn Program)> =
            servers.iter_mut().map(|(node, server)| (*node, server.as_mut() as &mut dyn Program)).collect();
        for ((host, _), mapper) in hosts.iter().zip(&mut mappers) {
            programs.push((*host, mapper));
        }
        net.run(&mut programs, Duration::from_secs(10));
        let peers = [0, 1].map(|side| {
            let (host, local) = hosts[side];
            let mut addresses = vec![MappedSocketAddr::host(local)];
            let seen = &mappers[side].events()[0].1.addresses;
            addresses.extend(seen.iter().filter(|seen| seen.addr != local));
            Peer { host, addresses }
        });
        Self { net, peers, seed, opener_hops: None, options: PunchOptions::new().spray_unvouched(true) }
    }

    /// Lets both peers punch, the second beginning `skew` after the first.
    pub(crate) fn punch(&mut self, skew: Duration, patience: Duration) -> Outcome {
        let [a, b] = &self.peers;
        let start = self.net.now();
        let key = |ours: &[u8], theirs: &[u8]| PunchKeys::derive(b"secret", ours, theirs).unwrap();
        let ended = |_: &PunchEvent| true;
        let puncher = |at, ours: &Peer, theirs: &Peer, keys, name| {
            let puncher =
                UdpPuncher::new(at, &ours.addresses, &theirs.addresses, keys, self.seed.derive(name));
            let puncher = puncher.options(&self.options);
            let puncher = match self.opener_hops {
                Some(hops) => puncher.opener_hops(hops),
                None => puncher,
            };
            Running::until(puncher, ended)
        };
        let mut first = puncher(start, a, b, key(b"a", b"b"), "a");
        let mut second = puncher(start + skew, b, a, key(b"b", b"a"), "b");
        let (host_a, host_b) = (a.host, b.host);
        if !skew.is_zero() {
            self.net.run(&mut [(host_a, &mut first)], skew);
        }
        self.net.run(&mut [(host_a, &mut first), (host_b, &mut second)], patience);
        let last = [&first, &second].iter().flat_map(|peer| peer.events().first()).map(|(at, _)| *at).max();
        Outcome {
            events: [&first, &second].map(|peer| peer.events().first().map(|(_, event)| *event)),
            took: last.unwrap_or_else(|| self.net.now()).duration_since(start + skew),
        }
    }
}

/// Two homes, each with a NAT of its own, behind one carrier's NAT.
pub(crate) fn place_behind_one_carrier(net: &mut Net, carrier: Nat, link: Link) -> [(NodeId, SocketAddr); 2] {
    let carrier = net.nat(None, "198.51.100.2", link, carrier);
    [("100.64.10.2", "192.168.1.11"), ("100.64.20.2", "192.168.2.11")].map(|(outside, inside)| {
        let home = net.nat(Some(carrier), outside, Link::default(), Nat::easy());
        let host = net.host(Some(home), inside, Link::default());
        net.bind(host, 4000);
        (host, SocketAddr::new(inside.parse().unwrap(), 4000))
    })
}

/// A host behind the NATs of a site, with a socket.
pub(crate) fn place(net: &mut Net, side: u8, site: Site, link: Link) -> (NodeId, SocketAddr) {
    let outside = ["198.51.100.2", "192.0.2.2"][usize::from(side)];
    let inside = ["192.168.1.11", "192.168.2.11"][usize::from(side)];
    let mut behind = None;
    for (level, nat) in site.nats.iter().rev().enumerate() {
        let between = format!("100.64.{side}.2");
        let (address, link) = if level == 0 { (outside, link) } else { (&between[..], Link::default()) };
        behind = Some(net.nat(behind, address, link, *nat));
    }
    let (address, link) = if behind.is_some() { (inside, Link::default()) } else { (outside, link) };
    let host = net.host(behind, address, link);
    net.bind(host, 4000);
    (host, SocketAddr::new(address.parse().unwrap(), 4000))
}
