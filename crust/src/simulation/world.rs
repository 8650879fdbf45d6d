//! Services behind NATs of any kind, the servers that help them, and time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nat_traversal::{
    protocol::{Seed, StunServer, stun::ServerAddresses, turn::TurnCredentials},
    testing::{Link, Nat, Net, NodeId, Program, Relay, RelayRules, Running},
};
use transport::{Identity, PathKind, PublicKey, testing::StreamId};

use super::service::{Happening, Service};

/// What stands between a service and the internet, the innermost first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    pub(super) name: &'static str,
    pub(super) nats: &'static [Nat],
}

/// A network with two peers, two introducers, three STUN servers and perhaps a relay.
pub(super) struct World {
    pub(super) net: Net,
    pub(super) peers: [Service; 2],
    pub(super) introducers: Vec<Service>,
    hosts: [NodeId; 2],
    /// The outermost NAT of each peer, if it has one.
    pub(super) nats: [Option<NodeId>; 2],
    introducer_hosts: Vec<NodeId>,
    stun: Vec<(NodeId, Running<StunServer>)>,
    relay: Option<(NodeId, Running<Relay>)>,
    seed: Seed,
    /// Networks that peers have moved to.
    moves: u8,
    /// Peers and introducers that do nothing and hear nothing, and the relay.
    silent: [bool; 2],
    dead: Vec<bool>,
    relay_is_up: bool,
    /// How each peer is joined to what is next to it.
    joined: [(Option<NodeId>, String, Link); 2],
}

/// What came of a call.
pub(super) type Outcome = Result<(StreamId, PathKind), String>;

/// How a world is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) sites: [Site; 2],
    pub(super) link: Link,
    pub(super) relay: bool,
    pub(super) introducers: usize,
}

impl Plan {
    pub(super) fn new(a: Site, b: Site) -> Self {
        Self { sites: [a, b], link: link(), relay: true, introducers: 1 }
    }
}

impl World {
    pub(super) fn new(seed: u64, plan: &Plan) -> Self {
        let seed = Seed::from(seed);
        let mut net = Net::new(seed.derive("net"));
        let near = Link::delay(Duration::from_millis(20));
        let (stun, servers) = stun_servers(&mut net);
        let credentials = TurnCredentials::new("user", "secret");
        let relay = plan.relay.then(|| {
            let host = net.host(None, "203.0.113.20", near);
            (host, Running::new(Relay::new(&mut net, host, credentials.clone(), RelayRules::default())))
        });
        let relay_addr = SocketAddr::from(([203, 0, 113, 20], STUN_PORT));
        let (introducers, introducer_hosts) = introducers(&mut net, &seed, plan.introducers, &servers);
        let mut nats = [None; 2];
        let mut hosts = Vec::new();
        let mut joined = Vec::new();
        let peers = [0_u8, 1].map(|side| {
            let index = usize::from(side);
            let Place { host, local, outermost, innermost, link } =
                place(&mut net, side, plan.sites[index], plan.link);
            (nats[index], _) = (outermost, hosts.push(host));
            joined.push((innermost, local.ip().to_string(), link));
            let identity = Identity::from_seed([side + 1; 32]);
            let seed = seed.derive(["a", "b"][index]);
            let service = Service::new(net.now(), identity, local, &servers, side, &seed);
            if plan.relay { service.relayed_by(relay_addr, credentials.clone()) } else { service }
        });
        let hosts = [hosts[0], hosts[1]];
        let (silent, dead) = ([false; 2], vec![false; introducers.len()]);
        let mut world = Self {
            net,
            peers,
            introducers,
            hosts,
            nats,
            introducer_hosts,
            stun,
            relay,
            seed,
            moves: 0,
            silent,
            dead,
            relay_is_up: true,
            joined: joined.try_into().expect("two peers"),
        };
        let now = world.now();
        for introducer in &world.introducers {
            let (addr, key) = (introducer.local, introducer.key());
            for (side, peer) in world.peers.iter_mut().enumerate() {
                // The one who dials asks; the other is attached.
                peer.know(now, addr, key, side == 1);
            }
        }
        world
    }

    pub(super) fn now(&self) -> Instant {
        self.net.now()
    }

    pub(super) fn key(&self, side: usize) -> PublicKey {
        self.peers[side].key()
    }

    /// Goes on until `done`, at most for `patience`; tells whether it was done. Looks every ten milliseconds.
    pub(super) fn run(&mut self, patience: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now() + patience;
        loop {
            if done(self) {
                return true;
            }
            let now = self.now();
            if now >= end {
                return false;
            }
            self.step((end - now).min(LOOK));
        }
    }

    fn step(&mut self, most: Duration) {
        let until = self.now() + most;
        let Self {
            net,
            peers,
            introducers,
            hosts,
            introducer_hosts,
            stun,
            relay,
            silent,
            dead,
            relay_is_up,
            ..
        } = self;
        let mut programs: Vec<(NodeId, &mut dyn Program)> = Vec::new();
        for ((host, peer), _) in hosts.iter().zip(peers).zip(silent).filter(|(_, silent)| !**silent) {
            programs.push((*host, peer));
        }
        let living = introducer_hosts.iter().zip(introducers).zip(dead).filter(|(_, dead)| !**dead);
        for ((host, introducer), _) in living {
            programs.push((*host, introducer));
        }
        for (host, server) in stun {
            programs.push((*host, server));
        }
        if let Some((host, relay)) = relay.as_mut().filter(|_| *relay_is_up) {
            programs.push((*host, relay));
        }
        net.run(&mut programs, most);
        // Where nothing is left to happen, time passes all the same.
        if net.now() < until {
            let rest = until - net.now();
            net.receive(hosts[0], rest);
        }
    }

    /// Lets the second peer attach.
    pub(super) fn attach(&mut self) -> bool {
        self.run(Duration::from_secs(10), |world| {
            world.peers[1].log.iter().any(|(_, what)| *what == Happening::Attached)
        })
    }

    /// The first peer calls the second, by its introducers alone.
    pub(super) fn call(&mut self, patience: Duration) -> u64 {
        let (now, peer) = (self.now(), self.key(1));
        self.peers[0].connect(now, peer, &[], patience)
    }

    /// What came of a call, and after how long.
    pub(super) fn outcome(&self, call: u64) -> Option<(Instant, Outcome)> {
        self.peers[0].log.iter().find_map(|(at, what)| match what {
            Happening::Connected(id, stream, kind) if *id == call => Some((*at, Ok((*stream, *kind)))),
            Happening::NotConnected(id, reason) if *id == call => Some((*at, Err(reason.clone()))),
            _ => None,
        })
    }

    /// The stream that the second peer has accepted last.
    pub(super) fn accepted(&self) -> Option<StreamId> {
        self.peers[1].accepted.last().copied()
    }

    /// What the peers have told since then; where `TRACE` is set, every packet is printed as well.
    pub(super) fn history(&self, since: Instant) -> String {
        if std::env::var_os("TRACE").is_some() {
            let begun = self.net.elapsed().saturating_sub(self.now().duration_since(since));
            for entry in self.net.trace().iter().filter(|entry| entry.at >= begun) {
                let (at, bytes) = (entry.at.saturating_sub(begun).as_millis(), entry.payload_bytes);
                let (from, to) = (entry.source, entry.destination);
                println!("{at:>6} ms {from} -> {to}: {bytes} bytes, {:?}", entry.passage);
            }
        }
        let all = self.peers.iter().enumerate().flat_map(|(side, peer)| {
            let later = peer.log.iter().filter(move |(at, _)| *at >= since);
            later.map(move |(at, what)| (*at, side, what))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(at, ..)| *at);
        let line = |(at, side, what): (Instant, usize, &Happening)| {
            format!("\n  {:>6} ms, side {side}: {what:?}", at.duration_since(since).as_millis())
        };
        all.into_iter().map(line).collect()
    }

    /// Takes a peer into another network.
    pub(super) fn relocate(&mut self, side: usize, site: Site) {
        let now = self.now();
        self.moves += 1;
        let number = 100 + self.moves;
        let outside = format!("198.51.100.{number}");
        let inside = format!("192.168.{number}.11");
        let (behind, address) = match site.nats {
            [] => (None, outside),
            nats => {
                let mut behind = None;
                for (level, nat) in nats.iter().rev().enumerate() {
                    let between = format!("100.64.{number}.2");
                    let (address, link) =
                        if level == 0 { (&outside, link()) } else { (&between, Link::default()) };
                    behind = Some(self.net.nat(behind, address, link, *nat));
                }
                (behind, inside)
            }
        };
        let link = if behind.is_some() { Link::default() } else { link() };
        self.net.relocate(self.hosts[side], behind, &address, link);
        self.joined[side] = (behind, address.clone(), link);
        self.nats[side] = behind;
        let local = SocketAddr::new(address.parse().unwrap(), PORT);
        self.peers[side].network_changed(now, local);
    }

    /// The NAT of a peer forgets all it knows.
    pub(super) fn rebind(&mut self, side: usize) {
        if let Some(nat) = self.nats[side] {
            self.net.flush(nat);
        }
    }

    /// Nothing gets through to a peer any more, nor out; it does not see why.
    pub(super) fn cut(&mut self, side: usize) {
        let (behind, address, link) = &self.joined[side];
        self.net.relocate(self.hosts[side], *behind, address, link.loss(1.0));
    }

    /// It does again.
    pub(super) fn mend(&mut self, side: usize) {
        let (behind, address, link) = &self.joined[side];
        self.net.relocate(self.hosts[side], *behind, address, *link);
    }

    /// The relay goes down, or comes up and knows nothing.
    pub(super) fn relay_is_up(&mut self, is_up: bool) {
        self.relay_is_up = is_up;
        if let Some((_, relay)) = &mut self.relay {
            relay.machine_mut().restart();
        }
    }

    /// An introducer dies without a word; what is sent to it is not answered.
    pub(super) fn kill_introducer(&mut self, index: usize) {
        self.dead[index] = true;
    }

    /// It is back, and knows nobody.
    pub(super) fn restart_introducer(&mut self, index: usize) {
        let now = self.now();
        let seed = self.seed.derive(&format!("introducer {index} at {:?}", self.net.elapsed()));
        let identity = Identity::from_seed([30 + u8::try_from(index).unwrap(); 32]);
        let local = self.introducers[index].local;
        self.introducers[index] = Service::new(now, identity, local, &[], 3, &seed).host();
        self.dead[index] = false;
    }

    /// A peer hears and says nothing any more.
    pub(super) fn silence(&mut self, side: usize) {
        self.silent[side] = true;
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            let left = end - self.now();
            self.step(left.min(Duration::from_secs(1)));
        }
    }
}

/// Services that introduce others, and their hosts.
fn introducers(
    net: &mut Net,
    seed: &Seed,
    count: usize,
    servers: &[SocketAddr],
) -> (Vec<Service>, Vec<NodeId>) {
    let (mut introducers, mut hosts) = (Vec::new(), Vec::new());
    for number in 0..count {
        let last = 30 + u8::try_from(number).unwrap();
        let local = SocketAddr::from(([203, 0, 113, last], PORT));
        let host = net.host(None, &local.ip().to_string(), Link::delay(Duration::from_millis(20)));
        net.bind(host, PORT);
        let identity = Identity::from_seed([last; 32]);
        let seed = seed.derive(&format!("introducer {number}"));
        introducers.push(Service::new(net.now(), identity, local, servers, 3, &seed).host());
        hosts.push(host);
    }
    (introducers, hosts)
}

/// Three servers that tell others their addresses.
fn stun_servers(net: &mut Net) -> (Vec<(NodeId, Running<StunServer>)>, Vec<SocketAddr>) {
    let (mut stun, mut servers) = (Vec::new(), Vec::new());
    for number in 10_u8..13 {
        let at = SocketAddr::from(([203, 0, 113, number], STUN_PORT));
        let host = net.host(None, &at.ip().to_string(), Link::delay(Duration::from_millis(20)));
        net.bind(host, STUN_PORT);
        stun.push((host, Running::new(StunServer::new(ServerAddresses::One))));
        servers.push(at);
    }
    (stun, servers)
}

/// A host behind the NATs of a site, with a socket.
struct Place {
    host: NodeId,
    local: SocketAddr,
    outermost: Option<NodeId>,
    innermost: Option<NodeId>,
    link: Link,
}

fn place(net: &mut Net, side: u8, site: Site, link: Link) -> Place {
    let outside = ["198.51.100.2", "192.0.2.2"][usize::from(side)];
    let inside = ["192.168.1.11", "192.168.2.11"][usize::from(side)];
    let (mut innermost, mut outermost) = (None, None);
    for (level, nat) in site.nats.iter().rev().enumerate() {
        let between = format!("100.64.{side}.2");
        let (address, link) = if level == 0 { (outside, link) } else { (&between[..], Link::default()) };
        innermost = Some(net.nat(innermost, address, link, *nat));
        outermost = outermost.or(innermost);
    }
    let (address, link) = if innermost.is_some() { (inside, Link::default()) } else { (outside, link) };
    let host = net.host(innermost, address, link);
    net.bind(host, PORT);
    let local = SocketAddr::new(address.parse().unwrap(), PORT);
    Place { host, local, outermost, innermost, link }
}

/// Twenty milliseconds to the middle of the internet, and ten routers.
pub(super) fn link() -> Link {
    Link::delay(Duration::from_millis(20)).hops(5)
}

/// Where services listen.
const PORT: u16 = 345;
const STUN_PORT: u16 = 3_478;
const LOOK: Duration = Duration::from_millis(10);
