use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::protocol::Random;

/// How a NAT behaves, in the words of [RFC 4787](https://www.rfc-editor.org/rfc/rfc4787).
///
/// The constructors are the types met in homes and at carriers; change single fields for the others.
///
/// ```
/// use nat_traversal::testing::{Nat, Rule};
///
/// let nat = Nat { hairpin: true, ..Nat::easy() };
/// assert_eq!(nat.mapping, Rule::EndpointIndependent);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// When a host's port keeps its outside port (RFC 4787, section 4.1).
    pub mapping: Rule,
    /// Whose packets come in through an outside port (RFC 4787, section 5).
    pub filtering: Rule,
    /// Which outside port a new mapping gets (RFC 4787, section 4.2).
    pub ports: PortChoice,
    /// How long a mapping lives after the last packet out.
    pub lifetime: Duration,
    /// Whether inside hosts reach each other by their outside addresses (RFC 4787, section 6).
    pub hairpin: bool,
    /// What becomes of a packet that nothing inside has asked for.
    pub unsolicited: Unsolicited,
    /// No UDP passes, as behind some company firewalls.
    pub blocks_udp: bool,
}

/// On what of the other end a NAT's choice depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// On nothing.
    EndpointIndependent,
    /// On its address.
    AddressDependent,
    /// On its address and port.
    AddressAndPortDependent,
}

/// Which outside port a new mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChoice {
    /// The inside port if it is free, else a random one.
    Preserved,
    /// The last port given plus this step.
    Sequential(u16),
    /// Any port above 1,023, each equally likely.
    Random,
    /// Any port of a block of so many, each equally likely: such as a carrier gives to one customer
    /// ([RFC 7422](https://www.rfc-editor.org/rfc/rfc7422)). Where it lies is up to the seed; when it is full, any port.
    Block(u16),
}

/// What becomes of a packet that nothing inside has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    /// It is dropped.
    Drop,
    /// The router takes it for itself and notes the flow, so that the next packet an inside host sends to that stranger
    /// from the same outside port gets another port. Linux does so where its firewall accepts the packet.
    Accept,
    /// It is refused: a connection with a RST, a datagram with an ICMP message, which is not modelled.
    Reject,
    /// It is dropped, and for half a minute nothing of that stranger comes in through that port, even if an inside host
    /// sends to it by then. Some routers do so against port scans.
    Blacklist,
}

impl Nat {
    /// Most home routers: endpoint-independent mapping with preserved ports, address- and port-dependent filtering.
    #[must_use]
    pub const fn easy() -> Self {
        Self {
            mapping: Rule::EndpointIndependent,
            filtering: Rule::AddressAndPortDependent,
            ports: PortChoice::Preserved,
            lifetime: Duration::from_secs(120),
            hairpin: false,
            unsolicited: Unsolicited::Drop,
            blocks_udp: false,
        }
    }

    /// As [`easy`](Self::easy), but the outside port is another than the inside one.
    #[must_use]
    pub const fn easy_random() -> Self {
        Self { ports: PortChoice::Random, ..Self::easy() }
    }

    /// Full cone: endpoint-independent mapping and filtering.
    #[must_use]
    pub const fn cone() -> Self {
        Self { filtering: Rule::EndpointIndependent, ..Self::easy() }
    }

    /// Restricted cone: endpoint-independent mapping, address-dependent filtering.
    #[must_use]
    pub const fn address_cone() -> Self {
        Self { filtering: Rule::AddressDependent, ..Self::easy() }
    }

    /// Symmetric: a random port for every destination.
    #[must_use]
    pub const fn hard() -> Self {
        Self { mapping: Rule::AddressAndPortDependent, ports: PortChoice::Random, ..Self::easy() }
    }

    /// Symmetric within a block: a random port of 2,048 for every destination.
    #[must_use]
    pub const fn hard_block() -> Self {
        Self { ports: PortChoice::Block(2_048), ..Self::hard() }
    }

    /// Symmetric by address: a random port for every destination address.
    #[must_use]
    pub const fn hard_by_address() -> Self {
        Self { mapping: Rule::AddressDependent, ports: PortChoice::Random, ..Self::easy() }
    }

    /// Symmetric with consecutive ports.
    #[must_use]
    pub const fn hard_sequential() -> Self {
        Self { mapping: Rule::AddressAndPortDependent, ports: PortChoice::Sequential(1), ..Self::easy() }
    }
}

impl Rule {
    /// What two destinations must have in common to be treated alike.
    const fn key(self, remote: SocketAddr) -> (Option<IpAddr>, u16) {
        match self {
            Self::EndpointIndependent => (None, 0),
            Self::AddressDependent => (Some(remote.ip()), 0),
            Self::AddressAndPortDependent => (Some(remote.ip()), remote.port()),
        }
    }
}

/// A protocol with ports of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Udp,
    Tcp,
}

impl Layer {
    /// A NAT that forgets datagrams after seconds keeps connections for longer: four minutes at least while they are being
    /// opened (RFC 5382, section 5).
    const fn shortest_lifetime(self) -> Duration {
        match self {
            Self::Udp => Duration::ZERO,
            Self::Tcp => Duration::from_secs(240),
        }
    }
}

impl Layer {
    /// The number in IANA's list of protocols.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }
}

/// The tables of one NAT at work.
#[derive(Debug)]
pub(super) struct Table {
    nat: Nat,
    mappings: BTreeMap<MappingKey, Mapping>,
    ports: BTreeMap<(Layer, u16), MappingKey>,
    /// Flows that the router took for itself ([`Unsolicited::Accept`]) and until when.
    taken: BTreeMap<(Layer, u16, SocketAddr), Instant>,
    last_sequential: u16,
    /// Where the block of a [`PortChoice::Block`] begins.
    block: u16,
    /// No mapping or taken flow ends before; spares a search through all of them with each packet.
    sweep: Option<Instant>,
}

/// The inside port and what its destinations have in common; a flow that had to leave its mapping has one of its own.
type MappingKey = (Layer, SocketAddr, (Option<IpAddr>, u16));

#[derive(Debug)]
struct Mapping {
    port: u16,
    used: Instant,
    peers: Vec<SocketAddr>,
}

impl Table {
    pub(super) fn new(nat: Nat, random: &mut Random) -> Self {
        let last_sequential = 20_000 + u16::try_from(random.below(20_000)).expect("below 20,000");
        let block = match nat.ports {
            PortChoice::Block(ports) => {
                FIRST_PORT + small(random.below(u64::from(PORTS - ports.min(PORTS) + 1)))
            }
            PortChoice::Preserved | PortChoice::Sequential(_) | PortChoice::Random => FIRST_PORT,
        };
        Self {
            nat,
            mappings: BTreeMap::new(),
            ports: BTreeMap::new(),
            taken: BTreeMap::new(),
            last_sequential,
            block,
            sweep: None,
        }
    }

    pub(super) const fn nat(&self) -> &Nat {
        &self.nat
    }

    /// Forgets everything, as a router does that restarts.
    pub(super) fn flush(&mut self) {
        self.mappings.clear();
        self.ports.clear();
        self.taken.clear();
    }

    /// The outside port for a packet on its way out.
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        layer: Layer,
        inside: SocketAddr,
        remote: SocketAddr,
        random: &mut Random,
    ) -> u16 {
        self.expire(now);
        let shared = (layer, inside, self.nat.mapping.key(remote));
        let alone = (layer, inside, Rule::AddressAndPortDependent.key(remote));
        let gives_way = self.nat.unsolicited == Unsolicited::Accept;
        let taken = |mapping: &Mapping| gives_way && self.is_taken(layer, mapping.port, remote);
        let displaced = self.mappings.get(&shared).is_some_and(taken);
        let key = if displaced || self.mappings.contains_key(&alone) { alone } else { shared };
        if !self.mappings.contains_key(&key) {
            let port = self.choose(layer, inside.port(), remote, displaced, random);
            self.ports.insert((layer, port), key);
            self.mappings.insert(key, Mapping { port, used: now, peers: Vec::new() });
        }
        let mapping = self.mappings.get_mut(&key).expect("inserted above");
        mapping.used = now;
        if !mapping.peers.contains(&remote) {
            mapping.peers.push(remote);
        }
        mapping.port
    }

    /// The inside address that a packet from outside is for, if the filter lets it in.
    pub(super) fn inbound(
        &mut self,
        now: Instant,
        layer: Layer,
        port: u16,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        self.expire(now);
        let filtering = self.nat.filtering;
        let found = self.ports.get(&(layer, port)).and_then(|key| {
            let open =
                self.mappings[key].peers.iter().any(|peer| filtering.key(*peer) == filtering.key(remote));
            let own_flow = key.2 == Rule::AddressAndPortDependent.key(remote)
                && self.nat.unsolicited != Unsolicited::Blacklist;
            (open && (own_flow || !self.is_taken(layer, port, remote))).then_some(key.1)
        });
        if found.is_none() && matches!(self.nat.unsolicited, Unsolicited::Accept | Unsolicited::Blacklist) {
            self.taken.insert((layer, port, remote), now + TAKEN_LIFETIME);
        }
        found
    }

    fn is_taken(&self, layer: Layer, port: u16, remote: SocketAddr) -> bool {
        self.taken.contains_key(&(layer, port, remote))
    }

    fn choose(
        &mut self,
        layer: Layer,
        inside: u16,
        remote: SocketAddr,
        displaced: bool,
        random: &mut Random,
    ) -> u16 {
        let free = |table: &Self, port: u16| {
            !table.ports.contains_key(&(layer, port)) && !table.is_taken(layer, port, remote)
        };
        match self.nat.ports {
            PortChoice::Preserved if !displaced && free(self, inside) => return inside,
            PortChoice::Sequential(step) => loop {
                self.last_sequential = self.last_sequential.wrapping_add(step).max(FIRST_PORT);
                if free(self, self.last_sequential) {
                    return self.last_sequential;
                }
            },
            PortChoice::Block(ports) if ports > 0 => {
                // A few draws find a free one unless nearly all are taken.
                for _ in 0..MAX_DRAWS {
                    let port = self.block + small(random.below(u64::from(ports.min(PORTS))));
                    if free(self, port) {
                        return port;
                    }
                }
            }
            PortChoice::Preserved | PortChoice::Random | PortChoice::Block(_) => {}
        }
        loop {
            let port = FIRST_PORT + small(random.below(u64::from(PORTS)));
            if free(self, port) {
                return port;
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        if self.sweep.is_some_and(|sweep| now <= sweep) {
            return;
        }
        let lifetime = self.nat.lifetime;
        let ports = &mut self.ports;
        self.mappings.retain(|key, mapping| {
            let alive = now <= mapping.used + lifetime.max(key.0.shortest_lifetime());
            if !alive {
                ports.remove(&(key.0, mapping.port));
            }
            alive
        });
        self.taken.retain(|_, until| now <= *until);
        let oldest = self.mappings.values().map(|mapping| mapping.used).min().unwrap_or(now) + lifetime;
        let taken = self.taken.values().min().copied();
        self.sweep = Some(taken.map_or(oldest, |taken| taken.min(oldest)).min(now + TAKEN_LIFETIME));
    }
}

/// What was drawn below a number of ports.
fn small(drawn: u64) -> u16 {
    u16::try_from(drawn).expect("below a number of ports")
}

/// Ports below are not given to mappings.
const FIRST_PORT: u16 = 1_024;

/// And so many are.
const PORTS: u16 = 64_512;

/// Draws from a block before it is taken for full.
const MAX_DRAWS: u32 = 256;

/// How long a router keeps a flow that it took for itself: Linux's default for datagrams that got no answer.
const TAKEN_LIFETIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
