use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::protocol::candidate::{AddrKind, MappedSocketAddr, PortRule, is_global, usable};

/// Where to knock, by what is known of both sides' NATs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// Addresses of the peer, the most promising first.
    pub(super) targets: Vec<SocketAddr>,
    /// What to do if they do not answer soon, at the first address of which a third says that the peer is there.
    pub(super) sprays: Vec<Possible>,
    /// Why nothing of this can work, if so.
    pub(super) obstacle: Option<Obstacle>,
    /// Both sides have the same outside address, so that packets between the two would have to be turned round by its NAT.
    pub(super) same_nat: bool,
}

/// A spray that may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Possible {
    pub(super) kind: Spray,
    /// It is for the case that a port was predicted and was not the one.
    pub(super) predicts: bool,
}

/// How to meet a peer when the NAT of one side gives every destination a port of its own at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spray {
    /// Our ports are random: many sockets of ours open many ports to the peer's one.
    Open(SocketAddr),
    /// The peer's ports are random: one socket of ours knocks at many ports of its address.
    Knock(SocketAddr),
}

impl Spray {
    /// Who gets its packets.
    pub(super) const fn target(self) -> IpAddr {
        match self {
            Self::Open(peer) | Self::Knock(peer) => peer.ip(),
        }
    }
}

/// What stands in the way of a direct connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The peer named no address that we could send to.
    #[error("the peer has no address that we can reach: it needs a STUN server, or another address family")]
    NoAddress,
    /// Both NATs give every destination another port, and at least one of them at random.
    #[error("both NATs change ports unpredictably: map a port on one router (UPnP, PCP) or use a relay")]
    BothUnpredictable,
    /// No packet of the peer arrived.
    #[error("no packet of the peer arrived: it may not have begun, or a firewall drops what it or we send")]
    NothingHeard,
    /// Both are behind one NAT, which does not send packets back inside (hairpin), and do not reach each other within.
    #[error(
        "both have the same outside address, whose NAT sends nothing back inside, and cannot reach each other within: \
         use a relay, or a network that does not keep its hosts apart"
    )]
    SameNat,
    /// Someone refused our connections, and the peer's did not arrive.
    #[error(
        "connections are refused: the peer may not have begun, or its router refuses instead of dropping"
    )]
    Refused,
    /// The ports of one side are random, so that many would have to be tried, and nobody but the peer says that it is at that address.
    #[error(
        "many ports of the peer's address would have to be tried, and no third says that the peer is there: \
         use an introducer that both reach over the internet, or a relay"
    )]
    NotVouched,
    /// The peer's packets arrive here, and ours do not arrive there.
    #[error("the peer's packets arrive, but ours do not get to it")]
    NotAnswered,
}

/// Makes the plan. The same code runs on both sides with the roles exchanged, so their plans fit.
pub(super) fn plan(ours: &[MappedSocketAddr], theirs: &[MappedSocketAddr]) -> Plan {
    let usable = usable(ours, theirs);
    if usable.is_empty() {
        return Plan { obstacle: Some(Obstacle::NoAddress), ..Plan::default() };
    }
    let is_ours = |ip| ours.iter().any(|our| our.kind == AddrKind::Reflexive && our.addr.ip() == ip);
    let mut plan = Plan { same_nat: theirs.iter().any(|their| is_ours(their.addr.ip())), ..Plan::default() };
    let mut met = false;
    for candidate in &usable {
        let our_rule = rule_towards(ours, candidate);
        for target in targets(candidate) {
            if plan.targets.iter().filter(|known| known.ip() == target.ip()).count() < PORTS_PER_ADDRESS {
                plan.targets.push(target);
            }
        }
        let counts = |rule| matches!(rule, PortRule::Sequential(_));
        met |= match (our_rule, candidate.ports) {
            // Two random ports next to each other look counted, and others behind a NAT that counts may be quicker.
            (PortRule::Random | PortRule::Sequential(_), PortRule::Stable | PortRule::Unknown) => {
                if may_filter(candidate) {
                    let kind = Spray::Open(candidate.addr);
                    plan.sprays.push(Possible { kind, predicts: counts(our_rule) });
                }
                true
            }
            (PortRule::Stable | PortRule::Unknown, PortRule::Random | PortRule::Sequential(_)) => {
                let kind = Spray::Knock(candidate.addr);
                plan.sprays.push(Possible { kind, predicts: counts(candidate.ports) });
                true
            }
            (PortRule::Random, PortRule::Random | PortRule::Sequential(_))
            | (PortRule::Sequential(_), PortRule::Random) => false,
            _ => true,
        };
    }
    if !met {
        plan.obstacle = Some(Obstacle::BothUnpredictable);
    }
    plan
}

/// The addresses to try for one candidate: itself, or the next ports of a NAT that counts.
fn targets(candidate: &MappedSocketAddr) -> Vec<SocketAddr> {
    let PortRule::Sequential(step) = candidate.ports else { return vec![candidate.addr] };
    // Not the last port itself: it belongs to a server. And two NATs that count meet only if both sides send to the
    // first, second, third … next port in this order, for then the n-th packet leaves from the n-th next port.
    let next = |count: i32| {
        let port = i32::from(candidate.addr.port()) + i32::from(step) * count;
        let port = u16::try_from(port).ok().filter(|port| *port >= FIRST_PORT)?;
        Some(SocketAddr::new(candidate.addr.ip(), port))
    };
    (1..=PREDICTED).filter_map(next).collect()
}

/// What our NAT does with ports on the way to this candidate; on the same network there is none between.
fn rule_towards(ours: &[MappedSocketAddr], candidate: &MappedSocketAddr) -> PortRule {
    if candidate.kind == AddrKind::Host && !is_global(candidate.addr.ip()) {
        return PortRule::Stable;
    }
    let same_family = |our: &&MappedSocketAddr| our.addr.is_ipv4() == candidate.addr.is_ipv4();
    let reflexive = ours.iter().filter(same_family).find(|our| our.kind == AddrKind::Reflexive);
    reflexive.map_or(PortRule::Stable, |our| our.ports)
}

/// Whether something may stand before it that lets in only whom it has spoken to: a NAT, or a firewall before a public
/// address.
fn may_filter(candidate: &MappedSocketAddr) -> bool {
    candidate.kind == AddrKind::Reflexive
        || (candidate.kind == AddrKind::Host && is_global(candidate.addr.ip()))
}

/// Ports tried at one IP address: those guessed, and some that the peer names. Many candidates that count, all of one
/// victim, would be a spray as well.
pub(super) const PORTS_PER_ADDRESS: usize = 16;

/// Ports guessed for a NAT that counts: other hosts behind it open connections meanwhile.
const PREDICTED: i32 = 10;

/// NATs give no ports below.
const FIRST_PORT: u16 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [PortRule; 4] =
        [PortRule::Stable, PortRule::Unknown, PortRule::Sequential(1), PortRule::Random];

    #[test]
    fn each_pair_of_nats_has_its_strategy() {
        for ours in RULES {
            for theirs in RULES {
                let plan = plan(&side("192.168.1.11", 1, ours), &side("192.168.2.11", 2, theirs));
                let stable = |rule| matches!(rule, PortRule::Stable | PortRule::Unknown);
                let their_address: SocketAddr = "198.51.100.2:40000".parse().unwrap();
                let spray = match (ours, theirs) {
                    (ours, theirs) if stable(ours) == stable(theirs) => None,
                    (_, theirs) if stable(theirs) => Some(Spray::Open(their_address)),
                    _ => Some(Spray::Knock(their_address)),
                };
                let predicts = [ours, theirs].contains(&RULES[2]);
                let expected: Vec<Possible> =
                    spray.map(|kind| Possible { kind, predicts }).into_iter().collect();
                assert_eq!(plan.sprays, expected, "{ours:?} {theirs:?}");
                let hopeless = !stable(ours) && !stable(theirs) && (ours, theirs) != (RULES[2], RULES[2]);
                let obstacle = hopeless.then_some(Obstacle::BothUnpredictable);
                assert_eq!(plan.obstacle, obstacle, "{ours:?} {theirs:?}");
            }
        }
    }

    #[test]
    fn a_public_address_may_have_a_firewall_before_it() {
        let ours = side("192.168.1.11", 1, PortRule::Random);
        let theirs = [MappedSocketAddr::host("203.0.113.66:4000".parse().unwrap())];
        assert_eq!(spray(&ours, &theirs), Some(Spray::Open(theirs[0].addr)));
        assert!(matches!(spray(&theirs, &ours), Some(Spray::Knock(_))));
    }

    #[test]
    fn a_peer_on_the_same_network_needs_no_luck_with_ports() {
        let ours = side("192.168.1.11", 1, PortRule::Random);
        let theirs = side("192.168.1.12", 1, PortRule::Random);
        let plan = plan(&ours, &theirs);
        assert_eq!((plan.obstacle, plan.targets[0].to_string()), (None, "192.168.1.12:4000".to_owned()));
    }

    #[test]
    fn the_next_ports_of_a_nat_that_counts_are_tried_in_order() {
        let counting = |port, step| {
            let address = SocketAddr::new("198.51.100.2".parse().unwrap(), port);
            let ports = targets(&MappedSocketAddr::reflexive(address, PortRule::Sequential(step)));
            ports.iter().map(SocketAddr::port).collect::<Vec<_>>()
        };
        assert_eq!(counting(40_000, 1)[..3], [40_001, 40_002, 40_003]);
        assert_eq!(counting(40_000, -2)[..3], [39_998, 39_996, 39_994]);
        assert_eq!(counting(65_534, 1), [65_535], "no port above the last");
        assert_eq!(counting(1_025, -1), [1_024], "and none below the first");
    }

    #[test]
    fn a_peer_without_an_address_for_us_is_told_at_once() {
        let theirs = [MappedSocketAddr::host("[2001:db8::1]:1".parse().unwrap())];
        let plan = plan(&side("192.168.1.11", 1, PortRule::Stable), &theirs);
        assert_eq!(plan.obstacle, Some(Obstacle::NoAddress));
    }

    fn spray(ours: &[MappedSocketAddr], theirs: &[MappedSocketAddr]) -> Option<Spray> {
        plan(ours, theirs).sprays.first().map(|possible| possible.kind)
    }

    fn side(host: &str, site: u8, ports: PortRule) -> Vec<MappedSocketAddr> {
        let outside = SocketAddr::from(([198, 51, 100, site], 40_000));
        vec![
            MappedSocketAddr::host(SocketAddr::new(host.parse().unwrap(), 4000)),
            MappedSocketAddr::reflexive(outside, ports),
        ]
    }
}
