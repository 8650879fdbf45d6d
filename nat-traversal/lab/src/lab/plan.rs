//! Who has which address and which cables.
//!
//! ```text
//!   a1 a2 ── ra ── ca ──┐            ┌── rb ── b1 b2
//!                      inet ── server
//!   LAN 192.168.1.0/24, carrier 100.64.10.0/24, outside 198.51.100.2 (a), 192.0.2.2 (b), 198.18.2.2 (c) …
//!   with IPv6: LAN 2001:db8:100::/64 (a), 2001:db8:101::/64 (b) …, server 2001:db8:5::10
//! ```

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Lab, LabError};
use crate::nat::Nat;
use crate::rules::Router;
use crate::topology::{Link, Topology};

/// What is to be done to build a topology.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) nodes: BTreeMap<String, NodePlan>,
    /// Nodes and the names of their ends.
    pub(super) cables: Vec<[(String, String); 2]>,
    /// Pairs of interfaces of the node [`WIRE`].
    pub(super) wires: Vec<(String, String, Link)>,
}

pub(super) struct NodePlan {
    pub(super) address: Ipv4Addr,
    /// Lines of `ip`, once all cables lie.
    pub(super) lines: Vec<String>,
    /// Interfaces that must send whole frames.
    pub(super) without_offload: Vec<String>,
    pub(super) router: Option<RouterPlan>,
}

pub(super) struct RouterPlan {
    pub(super) rules: String,
    pub(super) lifetime: Duration,
    pub(super) ipv6: bool,
}

impl Plan {
    pub(super) fn new(topology: &Topology) -> Result<Self, LabError> {
        let mut plan = Self::default();
        plan.node(INTERNET, Ipv4Addr::new(203, 0, 113, 1)).router =
            Some(RouterPlan { rules: String::new(), lifetime: Duration::ZERO, ipv6: topology.ipv6 });
        plan.node(SERVER, Lab::SERVER[0]);
        plan.link([(INTERNET, SERVER), (SERVER, "eth0")], topology.server_link);
        plan.line(INTERNET, "addr add 203.0.113.1/24 dev server");
        for address in Lab::SERVER {
            plan.line(SERVER, format!("addr add {address}/24 dev eth0"));
        }
        plan.line(SERVER, "route add default via 203.0.113.1");
        if topology.ipv6 {
            let net = Lab::SERVER_V6.to_string().replace("::10", "");
            plan.line(INTERNET, format!("addr add {net}::1/64 dev server nodad"));
            plan.line(SERVER, format!("addr add {}/64 dev eth0 nodad", Lab::SERVER_V6));
            plan.line(SERVER, format!("route add default via {net}::1"));
        }
        for number in 0..topology.sites.len() {
            plan.site(topology, number)?;
        }
        Ok(plan)
    }

    /// A site with its routers and hosts.
    fn site(&mut self, topology: &Topology, number: usize) -> Result<(), LabError> {
        let site = &topology.sites[number];
        let letter = letter(number)?;
        let outside = outside(number);
        let home = format!("r{letter}");
        let carrier = format!("c{letter}");
        let own = match &site.nats[..] {
            [] | [_] => false,
            [_, _] => true,
            _ => return Err(LabError::new(format!("site {letter} has more than two NATs"))),
        };
        let wan = if site.shares_carrier {
            self.behind_carrier("ca", 0, &home, number)?
        } else if own {
            let wan = self.outermost(&carrier, &letter, &outside, site.link);
            self.line(&carrier, "link add name lan type bridge mcast_snooping 0");
            self.line(&carrier, format!("addr add 100.64.{}.1/24 dev lan", carrier_net(number)));
            self.line(&carrier, "link set dev lan up");
            let lan = format!("100.64.{}.0/24", carrier_net(number));
            self.route(&carrier, site.nats.get(1), wan, &lan, false);
            self.behind_carrier(&carrier, number, &home, number)?
        } else {
            self.outermost(&home, &letter, &outside, site.link)
        };
        let public = site.nats.first().is_none_or(|nat| !nat.translates);
        let (net, first, bits) = match (public, topology.same_lan) {
            (true, _) => (outside.clone(), 128, 25),
            (false, true) => ("192.168.1".to_owned(), 0, 24),
            (false, false) => (format!("192.168.{}", number + 1), 0, 24),
        };
        if public {
            if own || site.shares_carrier {
                return Err(LabError::new(format!(
                    "site {letter} has public addresses behind a carrier's NAT"
                )));
            }
            self.line(INTERNET, format!("route add {net}.{first}/{bits} via {outside}.2"));
        }
        self.route(&home, site.nats.first(), wan, &format!("{net}.{first}/{bits}"), topology.ipv6);
        self.line(&home, "link add name lan type bridge mcast_snooping 0");
        self.line(&home, format!("addr add {net}.{}/{bits} dev lan", first + 1));
        self.line(&home, "link set dev lan up");
        let isolates = site.nats.first().is_some_and(|nat| nat.isolates);
        for host in 1..=HOSTS {
            let (name, port) = (format!("{letter}{host}"), format!("host{host}"));
            let address: Ipv4Addr =
                format!("{net}.{}", first + 10 + host).parse().expect("made of numbers below 256");
            self.node(&name, address);
            self.link([(&name, "eth0"), (&home, &port)], Link::default());
            self.bridge_port(&home, &port, isolates);
            self.line(&name, format!("addr add {address}/{bits} dev eth0"));
            self.line(&name, format!("route add default via {net}.{}", first + 1));
        }
        if topology.ipv6 && !own && !site.shares_carrier {
            self.ipv6(number, &letter, &home);
        }
        Ok(())
    }

    /// Public addresses of IPv6 for the hosts of a site.
    fn ipv6(&mut self, number: usize, letter: &str, home: &str) {
        let (way, lan) = (format!("2001:db8:ff{number:02x}"), ipv6_net(number));
        self.line(INTERNET, format!("addr add {way}::1/64 dev {letter} nodad"));
        self.line(INTERNET, format!("route add {lan}::/64 via {way}::2"));
        self.line(home, format!("addr add {way}::2/64 dev wan nodad"));
        self.line(home, format!("route add default via {way}::1"));
        self.line(home, format!("addr add {lan}::1/64 dev lan nodad"));
        for host in 1..=HOSTS {
            let name = format!("{letter}{host}");
            self.line(&name, format!("addr add {lan}::1{host}/64 dev eth0 nodad"));
            self.line(&name, format!("route add default via {lan}::1"));
        }
    }

    /// The router that is joined to the internet.
    fn outermost(&mut self, router: &str, letter: &str, net: &str, link: Link) -> Ipv4Addr {
        let wan: Ipv4Addr = format!("{net}.2").parse().expect("made of numbers below 256");
        self.node(router, wan);
        self.link([(INTERNET, letter), (router, "wan")], link);
        self.line(INTERNET, format!("addr add {net}.1/25 dev {letter}"));
        self.line(router, format!("addr add {wan}/25 dev wan"));
        self.line(router, format!("route add default via {net}.1"));
        wan
    }

    /// A home's router at a carrier's, whose customers cannot see each other.
    fn behind_carrier(
        &mut self,
        carrier: &str,
        owner: usize,
        home: &str,
        number: usize,
    ) -> Result<Ipv4Addr, LabError> {
        if !self.nodes.contains_key(carrier) {
            return Err(LabError::new("the first site has no carrier to share"));
        }
        let net = carrier_net(owner);
        let wan = Ipv4Addr::new(100, 64, net, 2 + u8::try_from(number).unwrap_or(u8::MAX));
        self.node(home, wan);
        self.link([(carrier, home), (home, "wan")], Link::default());
        self.bridge_port(carrier, home, true);
        self.line(home, format!("addr add {wan}/24 dev wan"));
        self.line(home, format!("route add default via 100.64.{net}.1"));
        Ok(wan)
    }

    fn route(&mut self, router: &str, nat: Option<&Nat>, wan: Ipv4Addr, lan: &str, ipv6: bool) {
        let seed = u32::try_from(RandomState::new().hash_one(router) >> 32).expect("32 bits are left");
        let rules = nat.map(|nat| Router { nat, wan, lan, seed }.rules()).unwrap_or_default();
        let lifetime = nat.map(|nat| nat.lifetime).unwrap_or_default();
        let node = self.nodes.get_mut(router).expect("made before");
        node.router = Some(RouterPlan { rules, lifetime, ipv6 });
    }

    fn bridge_port(&mut self, router: &str, port: &str, isolated: bool) {
        self.line(router, format!("link set dev {port} master lan"));
        if isolated {
            self.line(router, format!("link set dev {port} type bridge_slave isolated on"));
        }
    }

    /// A cable, or two with a wire between them if it does more than the kernel's.
    fn link(&mut self, [(node, name), (other, peer)]: [(&str, &str); 2], link: Link) {
        let end = |node: &str, name: &str| (node.to_owned(), name.to_owned());
        if link.is_plain() {
            self.cables.push([end(node, name), end(other, peer)]);
        } else {
            self.node(WIRE, Ipv4Addr::UNSPECIFIED);
            let (left, right) = (format!("{name}-l"), format!("{name}-r"));
            self.cables.push([end(node, name), end(WIRE, &left)]);
            self.cables.push([end(WIRE, &right), end(other, peer)]);
            for interface in [&left, &right] {
                self.line(WIRE, format!("link set dev {interface} up"));
            }
            for (node, name) in [(node, name), (other, peer)] {
                let node = self.nodes.get_mut(node).expect("made before");
                node.without_offload.push(name.to_owned());
            }
            self.wires.push((left, right, link));
        }
        for (node, name) in [(node, name), (other, peer)] {
            self.line(node, format!("link set dev {name} up"));
        }
    }

    fn line(&mut self, node: &str, line: impl Into<String>) {
        self.nodes.get_mut(node).expect("made before").lines.push(line.into());
    }

    fn node(&mut self, name: &str, address: Ipv4Addr) -> &mut NodePlan {
        self.nodes.entry(name.to_owned()).or_insert_with(|| NodePlan {
            address,
            lines: vec!["link set dev lo up".into()],
            without_offload: Vec::new(),
            router: None,
        })
    }
}

fn letter(number: usize) -> Result<String, LabError> {
    let letter = char::from(b'a' + u8::try_from(number).unwrap_or(u8::MAX - b'a'));
    // The names of other nodes begin with later letters.
    if number < MAX_SITES { Ok(letter.to_string()) } else { Err(LabError::new("more than eight sites")) }
}

/// The network of a site's outside address.
fn outside(number: usize) -> String {
    match number {
        0 => "198.51.100".into(),
        1 => "192.0.2".into(),
        _ => format!("198.18.{number}"),
    }
}

/// The network of a site's hosts.
fn ipv6_net(number: usize) -> String {
    format!("2001:db8:{}", 100 + number)
}

fn carrier_net(number: usize) -> u8 {
    10 * (1 + u8::try_from(number).unwrap_or(0))
}

const INTERNET: &str = "inet";
const SERVER: &str = "server";
pub(super) const WIRE: &str = "wire";
const HOSTS: u8 = 2;
const MAX_SITES: usize = 8;
