//! When the leader of a meeting begins QUIC on a way: on one sooner than the peer is heard by it, on another later than it could.
//!
//! ```text
//! where the peer is by the word of a third       at once, blindly: its NAT is open to us if it has begun
//!   heard there since, and no answer             once more, 100 ms later or when the way is proved
//! a hole                                         at once
//! a relay, and a hole for UDP may yet come       at once: the stream moves to that
//! a relay, and no hole but one for TCP can come  when that has failed, or 700 ms after the beginning: a stream over QUIC never moves to TCP
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use nat_traversal::{AddrKind, MappedSocketAddr, PortRule};

/// The peer's addresses for one socket of ours at which QUIC begins before the peer is heard, few: those at which somebody else sees it, if
/// both NATs keep their ports; and its relay, if the peer has said that it uses that at once.
pub(crate) fn blind_targets(
    ours: &[MappedSocketAddr],
    theirs: &[MappedSocketAddr],
    vouched: &[IpAddr],
    relay_at_once: bool,
) -> Vec<SocketAddr> {
    let keeps_port = |known: &&MappedSocketAddr| matches!(known.ports, PortRule::Stable | PortRule::Unknown);
    let is_seen = |their: &&MappedSocketAddr| {
        their.kind != AddrKind::Relayed && vouched.contains(&their.addr.ip()) && keeps_port(their)
    };
    let direct = theirs.iter().filter(is_seen).take(BLIND);
    let direct = direct.filter(|_| ours.iter().all(|our| keeps_port(&our)));
    let relayed = theirs.iter().filter(|their| relay_at_once && their.kind == AddrKind::Relayed).take(1);
    direct.chain(relayed).map(|their| their.addr).collect()
}

/// What a hole for TCP has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpHole {
    /// It is being punched.
    Punching,
    /// It is there, and TLS has begun on it.
    Found,
    /// There is none.
    Over,
}

/// What the two sides of a meeting have told each other of where their sockets of one scheme are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'t> {
    pub(crate) ours: &'t [MappedSocketAddr],
    pub(crate) theirs: &'t [MappedSocketAddr],
}

impl Told<'_> {
    /// Whether packets of both are known to get out.
    fn both_get_out(self) -> bool {
        [self.ours, self.theirs].iter().all(|side| side.iter().any(gets_out))
    }

    /// Whether a hole for TCP may come, which no spray helps to: a port that is drawn at random is only let in where all are.
    fn may_meet_by_tcp(self) -> bool {
        let is_random = |side: &[MappedSocketAddr]| side.iter().any(|known| known.ports == PortRule::Random);
        let is_outside = |side: &[MappedSocketAddr]| side.iter().any(is_global_host);
        let [ours, theirs] = [self.ours, self.theirs];
        self.both_get_out()
            && (!is_random(ours) || is_outside(theirs))
            && (!is_random(theirs) || is_outside(ours))
    }
}

/// Until when a relay is held back that could be used now, counted from the beginning of the meeting; `None` if it is not.
pub(crate) fn held_back_until(
    begun: Instant,
    relay_at_once: bool,
    udp: Told<'_>,
    tcp: Told<'_>,
    hole: TcpHole,
) -> Option<Instant> {
    let only_tcp_can_come = !udp.both_get_out() && tcp.may_meet_by_tcp();
    if relay_at_once || !only_tcp_can_come {
        return None;
    }
    match hole {
        TcpHole::Punching => Some(begun + TCP_HEAD_START),
        TcpHole::Found => Some(begun + TLS_HEAD_START),
        TcpHole::Over => None,
    }
}

/// Somebody outside has seen it or forwards it, or it is outside itself.
fn gets_out(known: &MappedSocketAddr) -> bool {
    matches!(known.kind, AddrKind::Reflexive | AddrKind::PortMapped) || is_global_host(known)
}

fn is_global_host(known: &MappedSocketAddr) -> bool {
    let is_global = match known.addr.ip() {
        IpAddr::V4(ip) => !ip.is_private() && !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unique_local() && !ip.is_unicast_link_local(),
    };
    known.kind == AddrKind::Host && is_global
}

/// Each costs two packets of 1,200 bytes until the peer is heard there, and as many after one, two and four seconds.
const BLIND: usize = 2;
/// After the peer was heard where QUIC had begun before, until its answer is thought lost: it has done the handshake's work by then.
pub(crate) const ANSWER: Duration = Duration::from_millis(100);
/// A hole for TCP takes two and a half round trips and TLS one and a half; with some of a continent's the peers have a stream within 1.5 s of
/// the call whatever comes of it.
const TCP_HEAD_START: Duration = Duration::from_millis(700);
/// The peer has been met, so that the rest is all but certain.
const TLS_HEAD_START: Duration = Duration::from_millis(1_000);

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> MappedSocketAddr {
        MappedSocketAddr::host("192.168.1.2:4000".parse().unwrap())
    }

    fn seen(ports: PortRule) -> MappedSocketAddr {
        MappedSocketAddr::reflexive("198.51.100.7:5000".parse().unwrap(), ports)
    }

    fn relay() -> MappedSocketAddr {
        let addr = "203.0.113.10:61000".parse().unwrap();
        MappedSocketAddr { addr, kind: AddrKind::Relayed, nat_restricted: true, ports: PortRule::Stable }
    }

    #[test]
    fn quic_begins_blindly_only_where_a_third_sees_the_peer_and_ports_are_kept() {
        let (ours, vouched) = ([host(), seen(PortRule::Stable)], [seen(PortRule::Stable).addr.ip()]);
        let theirs = [host(), seen(PortRule::Stable), relay()];
        let targets = |ours: &[_], theirs: &[_], vouched: &[_]| blind_targets(ours, theirs, vouched, false);
        assert_eq!(targets(&ours, &theirs, &vouched), [theirs[1].addr]);
        assert_eq!(targets(&ours, &theirs, &[]), [], "the peer's own word");
        assert_eq!(targets(&ours, &theirs, &["192.0.2.1".parse().unwrap()]), [], "another's address");
        for rule in [PortRule::Random, PortRule::Sequential(1)] {
            assert_eq!(targets(&ours, &[seen(rule)], &vouched), [], "{rule:?} at the peer");
            assert_eq!(targets(&[seen(rule)], &theirs, &vouched), [], "{rule:?} here");
        }
        let at = |port| SocketAddr::new(vouched[0], port);
        let many: Vec<_> =
            (1..20).map(|port| MappedSocketAddr::reflexive(at(port), PortRule::Stable)).collect();
        assert_eq!(targets(&ours, &many, &vouched).len(), BLIND);
    }

    #[test]
    fn a_relay_that_the_peer_uses_at_once_needs_no_port_that_is_kept() {
        let (ours, theirs) = ([seen(PortRule::Random)], [seen(PortRule::Random), relay(), relay()]);
        assert_eq!(blind_targets(&ours, &theirs, &[theirs[0].addr.ip()], true), [relay().addr]);
        assert_eq!(blind_targets(&ours, &theirs, &[theirs[0].addr.ip()], false), []);
    }

    /// When a relay that is there 300 ms after the beginning is used, if the hole for TCP is found and ends then.
    fn used_after(
        udp: [bool; 2],
        tcp: [bool; 2],
        found: Option<u64>,
        over: Option<u64>,
        at_once: bool,
    ) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
        let begun = Instant::now();
        let side = |gets_out| if gets_out { vec![host(), seen(PortRule::Stable)] } else { vec![host()] };
        let [[our_udp, their_udp], [our_tcp, their_tcp]] = [udp, tcp].map(|both| both.map(side));
        let udp = Told { ours: &our_udp, theirs: &their_udp };
        let tcp = Told { ours: &our_tcp, theirs: &their_tcp };
        let passed = |at: Option<u64>, now| at.is_some_and(|at| at <= now);
        (300..5_000)
            .find(|&now| {
                let hole = match (passed(found, now), passed(over, now)) {
                    (_, true) => TcpHole::Over,
                    (true, false) => TcpHole::Found,
                    (false, false) => TcpHole::Punching,
                };
                let until = held_back_until(begun, at_once, udp, tcp, hole);
                until.is_none_or(|until| until <= begun + Duration::from_millis(now))
            })
            .expect("it is used in the end")
    }

    #[test]
    fn a_relay_waits_for_tcp_where_no_udp_passes_and_never_for_long() {
        let (all, none, ours, theirs) = ([true; 2], [false; 2], [true, false], [false, true]);
        for blocked in [none, ours, theirs] {
            assert_eq!(used_after(blocked, all, None, None, false), 700, "nothing is heard by TCP");
            assert_eq!(used_after(blocked, all, Some(450), None, false), 1_000, "TLS comes to nothing");
            assert_eq!(used_after(blocked, all, Some(450), Some(520), false), 520, "TLS fails");
            assert_eq!(used_after(blocked, all, None, Some(310), false), 310, "it cannot be punched");
            assert_eq!(used_after(blocked, all, None, None, true), 300, "a relay was needed last time");
            for shut in [none, ours, theirs] {
                assert_eq!(used_after(blocked, shut, None, None, false), 300, "TCP does not pass either");
            }
        }
        assert_eq!(used_after(all, all, None, None, false), 300, "what is over QUIC can move later");
    }

    #[test]
    fn nobody_waits_for_tcp_where_ports_are_drawn_at_random() {
        let public = MappedSocketAddr::host("198.51.100.9:4000".parse().unwrap());
        let (random, stable) = ([host(), seen(PortRule::Random)], [host(), seen(PortRule::Stable)]);
        let may_meet = |ours: &[_], theirs: &[_]| Told { ours, theirs }.may_meet_by_tcp();
        assert!(may_meet(&stable, &stable) && may_meet(&random, &[public]) && may_meet(&[public], &random));
        assert!(!may_meet(&random, &stable) && !may_meet(&stable, &random) && !may_meet(&random, &random));
    }
}
