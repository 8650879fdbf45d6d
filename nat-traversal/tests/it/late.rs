//! Addresses that the peers learn, and tell each other, while they punch.

use std::time::{Duration, Instant};

use nat_traversal::protocol::{
    Datagram, Machine, Obstacle, PunchEvent, PunchKeys, Seed, SocketIndex, Transmit, UdpPuncher,
};
use nat_traversal::testing::{Link, Nat, Running};
use nat_traversal::{AddrKind, MappedSocketAddr, PortRule};

use crate::world::{Site, World};

/// A puncher that is told everything a while after it began.
struct Later {
    puncher: UdpPuncher,
    told_at: Option<Instant>,
    ours: Vec<MappedSocketAddr>,
    theirs: Vec<MappedSocketAddr>,
}

impl Machine for Later {
    type Event = PunchEvent;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.puncher.handle_datagram(now, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.told_at.is_some_and(|at| at <= now) {
            self.told_at = None;
            self.puncher.learn(now, &self.ours, &self.theirs, false);
        }
        self.puncher.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.puncher.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.puncher.poll_timeout().into_iter().chain(self.told_at).min()
    }

    fn poll_event(&mut self) -> Option<PunchEvent> {
        self.puncher.poll_event()
    }
}

#[test]
fn two_that_knew_only_their_hosts_meet_once_they_have_told_each_other_more() {
    const NATS: &[Nat] = &[Nat::easy()];
    let site = Site { name: "easy", nats: NATS };
    let mut world = World::new(7, [site, site], Link::delay(Duration::from_millis(20)));
    let start = world.net.now();
    let told_at = start + Duration::from_millis(500);
    let key = |ours: &[u8], theirs: &[u8]| PunchKeys::derive(b"secret", ours, theirs).unwrap();
    let later = |side: usize, keys| {
        let (ours, theirs) = (world.peers[side].addresses.clone(), world.peers[1 - side].addresses.clone());
        let seed = world.seed.derive(["a", "b"][side]);
        let puncher = UdpPuncher::new(start, &ours[..1], &theirs[..1], keys, seed).more_to_come();
        Running::until(Later { puncher, told_at: Some(told_at), ours, theirs }, |_| true)
    };
    let (mut one, mut other) = (later(0, key(b"a", b"b")), later(1, key(b"b", b"a")));
    let hosts = [world.peers[0].host, world.peers[1].host];
    world.net.run(&mut [(hosts[0], &mut one), (hosts[1], &mut other)], Duration::from_secs(5));
    for peer in [&one, &other] {
        let (at, event) = peer.events()[0];
        assert!(matches!(event, PunchEvent::Punched { .. }), "{event:?}");
        assert!(at >= told_at && at <= told_at + Duration::from_millis(500), "{:?}", at - start);
    }
}

#[test]
fn nothing_is_hopeless_before_all_is_told() {
    let start = start();
    let mut puncher = puncher(start, true, &[], &[]).more_to_come();
    assert_eq!(puncher.poll_event(), None);
    puncher.learn(start, &[], &[], true);
    assert_eq!(puncher.poll_event(), None);
    puncher.learn(start, &[], &[], false);
    assert_eq!(puncher.poll_event(), Some(PunchEvent::Hopeless(Obstacle::NoAddress)));
}

#[test]
fn who_begins_after_the_peer_opens_nothing_and_a_way_is_told_when_it_is_heard() {
    let start = start();
    let (ours, theirs) = (public("198.51.100.1:1"), public("192.0.2.1:2"));
    let mut first = puncher(start, true, &ours, &theirs);
    let mut second = puncher(start, false, &theirs, &ours).peer_has_begun().tell_heard();
    first.handle_timeout(start);
    let opener = first.poll_transmit().unwrap();
    assert!(opener.hops.is_some(), "the first does not reach the peer's NAT");
    second.handle_timeout(start);
    assert_eq!(second.poll_transmit().unwrap().hops, None, "the second reaches it at once");
    // Whatever of the first arrives is a way, before any answer to our own check.
    let datagram = Datagram { socket: SocketIndex::MAIN, source: ours[0].addr, bytes: &opener.bytes };
    second.handle_datagram(start, datagram);
    let heard = PunchEvent::Heard { socket: SocketIndex::MAIN, peer: ours[0].addr };
    assert_eq!((second.poll_event(), second.poll_event()), (Some(heard), None));
}

#[test]
fn a_way_is_told_when_the_peer_answers_there_though_it_has_not_asked() {
    for leads in [true, false] {
        let (start, ours, theirs) = (start(), public("198.51.100.1:1"), public("192.0.2.1:2"));
        let mut asking = puncher(start, leads, &ours, &theirs).peer_has_begun().tell_heard();
        let mut asked = puncher(start, !leads, &theirs, &ours);
        asking.handle_timeout(start);
        let check = asking.poll_transmit().unwrap();
        let main = SocketIndex::MAIN;
        asked.handle_datagram(start, Datagram { socket: main, source: ours[0].addr, bytes: &check.bytes });
        // The answer arrives, and of all else nothing.
        let answer = asked.poll_transmit().unwrap();
        asking
            .handle_datagram(start, Datagram { socket: main, source: theirs[0].addr, bytes: &answer.bytes });
        let heard = PunchEvent::Heard { socket: main, peer: theirs[0].addr };
        assert_eq!((asking.poll_event(), asking.poll_event()), (Some(heard), None), "leads: {leads}");
        // Once.
        while let Some(more) = asked.poll_transmit() {
            asking.handle_datagram(
                start,
                Datagram { socket: main, source: theirs[0].addr, bytes: &more.bytes },
            );
        }
        assert_eq!(asking.poll_event(), None);
    }
}

#[test]
fn a_relay_on_the_internet_sends_nothing_to_addresses_of_a_private_network() {
    let start = start();
    let theirs = [public("192.168.2.11:4000"), public("192.0.2.1:2")].concat();
    for (relayed, reached) in [("203.0.113.10:61000", &theirs[1..]), ("10.0.0.3:61000", &theirs[..])] {
        let relay = SocketIndex(0xff00);
        let mut puncher = puncher(start, true, &[], &[]).more_to_come();
        puncher.add_relay(start, (relay, relayed.parse().unwrap()), &theirs, start, Duration::ZERO);
        // Whatever follows repeats what is known.
        puncher.learn(start, &public("198.51.100.1:1"), &theirs, false);
        let mut sent = std::collections::BTreeSet::new();
        for step in 0..40 {
            puncher.handle_timeout(start + Duration::from_millis(5 * step));
            let from_relay = std::iter::from_fn(|| puncher.poll_transmit()).filter(|one| one.socket == relay);
            sent.extend(from_relay.map(|one| one.destination));
        }
        assert_eq!(sent, reached.iter().map(|endpoint| endpoint.addr).collect());
    }
}

#[test]
fn a_way_over_two_relays_is_tried_last() {
    let (start, relay, later) = (start(), SocketIndex(0xff00), Duration::from_millis(250));
    let seen = MappedSocketAddr::reflexive("192.0.2.1:2".parse().unwrap(), PortRule::Stable);
    let at = "203.0.113.11:61000".parse().unwrap();
    let theirs = [
        MappedSocketAddr { addr: at, kind: AddrKind::Relayed, nat_restricted: true, ports: PortRule::Stable },
        seen,
    ];
    let mut puncher = puncher(start, true, &[], &[]).more_to_come();
    puncher.add_relay(start, (relay, "203.0.113.10:61000".parse().unwrap()), &theirs, start, later);
    puncher.learn(start, &public("198.51.100.1:1"), &theirs, false);
    let mut first = std::collections::BTreeMap::new();
    for step in 0..80 {
        let after = Duration::from_millis(5 * step);
        puncher.handle_timeout(start + after);
        for one in std::iter::from_fn(|| puncher.poll_transmit()).filter(|one| one.socket == relay) {
            first.entry(one.destination).or_insert(after);
        }
    }
    assert!(first[&seen.addr] < later && first[&at] >= later, "{first:?}");
}

#[test]
fn a_relay_is_used_at_once_where_nothing_else_can_work() {
    let start = start();
    let later = start + Duration::from_secs(1);
    let relay = SocketIndex(0xff00);
    let theirs = public("192.0.2.1:2");
    let mut hopeful =
        puncher(start, true, &public("198.51.100.1:1"), &theirs).also_from(relay, &theirs, later);
    hopeful.handle_timeout(start);
    assert_ne!(hopeful.poll_transmit().unwrap().socket, relay);
    let mut hopeless = puncher(start, true, &[], &theirs).also_from(relay, &theirs, later);
    hopeless.handle_timeout(start);
    assert_eq!(hopeless.poll_transmit().unwrap().socket, relay);
}

fn puncher(
    start: Instant,
    leads: bool,
    ours: &[MappedSocketAddr],
    theirs: &[MappedSocketAddr],
) -> UdpPuncher {
    let (mine, yours) = if leads { (b"b", b"a") } else { (b"a", b"b") };
    let keys = PunchKeys::derive(b"secret", mine, yours).unwrap();
    UdpPuncher::new(start, ours, theirs, keys, Seed::from(7))
}

fn public(address: &str) -> Vec<MappedSocketAddr> {
    vec![MappedSocketAddr::host(address.parse().unwrap())]
}

fn start() -> Instant {
    Instant::now()
}
