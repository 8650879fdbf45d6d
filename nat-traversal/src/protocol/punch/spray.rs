use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::plan;
use crate::protocol::{Random, SocketIndex};

/// Two peers of whom one has random ports meet by chance, and chance is good because it has many tries: with 256 ports
/// open to us of 64,512, each knock at a random port hits with one in 252. After 175 knocks it is more likely than not,
/// after 2,048 it has failed once in 3,900 times.
///
/// No port is knocked at twice, and every other knock is near the port that a server saw last. Where all ports are equally
/// likely, the order is of no matter; where a NAT has a range or a block for its hosts, or counts while others take ports in between,
/// most of the 256 are near.
#[derive(Debug)]
pub(super) struct SprayTimer {
    kind: plan::Spray,
    due: Instant,
    sent: u32,
    hops: u8,
    /// When the openers go out once more, now all the way.
    again: Instant,
    /// Ports not yet tried, those near the last known one and the others, shuffled as they are drawn; empty until the first draw.
    near: Vec<u16>,
    far: Vec<u16>,
}

/// One packet of a spray.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shot {
    pub(super) from: SocketIndex,
    pub(super) to: SocketAddr,
    /// How many routers it may pass; `None` for as many as there are.
    pub(super) hops: Option<u8>,
}

impl SprayTimer {
    /// A spray that begins then. Openers pass so many routers at first.
    pub(super) fn new(kind: plan::Spray, due: Instant, hops: u8) -> Self {
        Self { kind, due, sent: 0, hops, again: due + DYING, near: Vec::new(), far: Vec::new() }
    }

    /// This one with openers that pass so many routers.
    pub(super) fn opener_hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    /// When to ask [`next`](Self::next); `None` when all is sent.
    pub(super) fn timeout(&self) -> Option<Instant> {
        (self.sent < self.limit()).then_some(self.due)
    }

    /// The next packet that is due.
    pub(super) fn next(&mut self, now: Instant, random: &mut Random) -> Option<Shot> {
        if self.sent >= self.limit() || now < self.due {
            return None;
        }
        self.sent += 1;
        match self.kind {
            plan::Spray::Open(peer) => {
                let number = 1 + (self.sent - 1) % SOCKETS;
                let dies = self.sent <= SOCKETS;
                self.due = match self.sent {
                    SOCKETS => self.again.max(now + OPENING_PACE),
                    _ if dies => self.beat(now, OPENING_PACE),
                    _ => self.beat(now, ARRIVING_PACE),
                };
                let from = SocketIndex(u16::try_from(number).expect("at most SOCKETS"));
                Some(Shot { from, to: peer, hops: dies.then_some(self.hops) })
            }
            plan::Spray::Knock(peer) => {
                self.due = self.beat(now, KNOCKING_PACE);
                let to = SocketAddr::new(peer.ip(), self.draw(peer.port(), random));
                Some(Shot { from: SocketIndex::MAIN, to, hops: None })
            }
        }
    }

    /// When the next is due: a beat after this one was, however late a busy machine is with it. One that slept must not burst, and
    /// goes on from now.
    fn beat(&self, now: Instant, pace: Duration) -> Instant {
        let late = now.saturating_duration_since(self.due);
        if late < LATE { self.due + pace } else { now + pace }
    }

    const fn limit(&self) -> u32 {
        match self.kind {
            plan::Spray::Open(_) => 2 * SOCKETS,
            plan::Spray::Knock(_) => KNOCKS,
        }
    }

    /// A port that has not been tried, where the NAT gave out `last` before.
    fn draw(&mut self, last: u16, random: &mut Random) -> u16 {
        if self.near.is_empty() && self.far.is_empty() {
            (self.near, self.far) = (FIRST_PORT..=u16::MAX).partition(|port| port.abs_diff(last) <= NEAR);
        }
        let prefers_near = self.sent % 2 == 1;
        let ports = if self.far.is_empty() || prefers_near && !self.near.is_empty() {
            &mut self.near
        } else {
            &mut self.far
        };
        let index = random.below(ports.len() as u64);
        ports.swap_remove(usize::try_from(index).expect("below a length in memory"))
    }
}

/// How long the plain checks, or those of predicted ports, have for themselves.
pub(super) const fn patience(possible: plan::Possible) -> Duration {
    match possible.kind {
        _ if possible.predicts => PREDICTION_PATIENCE,
        plan::Spray::Open(_) => OPENING_PATIENCE,
        plan::Spray::Knock(_) => KNOCKING_PATIENCE,
    }
}

/// How long the plain checks have for themselves. Pairs that need no spray meet within it, mostly.
const KNOCKING_PATIENCE: Duration = Duration::from_millis(300);

/// The opening begins sooner, since it takes half a second, nobody but our own NAT sees it, and until it is over most knocks are
/// in vain. Pairs that need none and are not far from each other have met by then.
const OPENING_PATIENCE: Duration = Duration::from_millis(150);

/// The checks of predicted ports are over when the third of each has had its time.
const PREDICTION_PATIENCE: Duration = Duration::from_millis(1_000);

/// Sockets that the side with random ports opens. More would meet sooner, but home routers hold a few thousand mappings.
pub(super) const SOCKETS: u32 = 256;

/// The opening is over in half a second: chance is small before it is complete. That fast only because these packets die on
/// the way: they are for our own NAT, and a peer's router that takes a stranger's packet for itself, or shuts the stranger
/// out for it, must not see them before the peer has knocked.
const OPENING_PACE: Duration = Duration::from_millis(2);

/// How many routers an opener of a spray may pass if nothing is known of our NAT: the one at home and those of a carrier,
/// and not the dozen that lie between two providers. It passes more than a plain opener because it is not known for such a
/// NAT how far away it is: what tells that needs a port that stays.
pub(super) const SPRAY_HOPS: u8 = 5;

/// So long the dying openers have for themselves: by then 99 in 100 have met whose NAT they reached. For a NAT that is farther
/// away all go out once more, over the rest of the time; so many ports were knocked at by then that half of these peers meet
/// within two seconds. A router that takes strangers' packets for itself is met no more by what comes then.
const DYING: Duration = Duration::from_secs(14);
const ARRIVING_PACE: Duration = Duration::from_millis(25);

/// Knocks in all. More would look like a port scan, and gain little: see [`SprayTimer`].
pub(super) const KNOCKS: u32 = 2_048;

/// 100 knocks a second at most, for the same reason: in any second, also if the first of it was late.
const KNOCKING_PACE: Duration = Duration::from_micros(10_100);

/// A packet that is less late than this delays none of those behind it.
const LATE: Duration = Duration::from_millis(10);

/// NATs give no ports below.
const FIRST_PORT: u16 = 1_024;

/// So far from the last known port half of the knocks go: blocks of ports that carriers give to one customer have some hundreds to
/// some thousands (RFC 7422).
const NEAR: u16 = 1_024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::Seed;
    use crate::testing::epoch;

    #[test]
    fn knocks_go_to_different_ports_of_one_address_at_most_100_a_second() {
        let peer: SocketAddr = "198.51.100.2:4000".parse().unwrap();
        let knocks = all(plan::Spray::Knock(peer));
        assert_eq!(knocks.len(), 2_048);
        let ports: BTreeSet<u16> = knocks.iter().map(|(_, shot)| shot.to.port()).collect();
        assert_eq!((ports.len(), ports.iter().all(|port| *port >= 1_024)), (2_048, true));
        let near = ports.iter().filter(|port| port.abs_diff(peer.port()) <= NEAR).count();
        assert!((1_024..1_100).contains(&near), "every other one, and some of the others: {near}");
        let whole =
            |shot: &Shot| shot.from == SocketIndex::MAIN && shot.to.ip() == peer.ip() && shot.hops.is_none();
        assert!(knocks.iter().all(|(_, shot)| whole(shot)));
        for window in knocks.windows(101) {
            assert!(window[100].0 - window[0].0 >= Duration::from_secs(1));
        }
    }

    #[test]
    fn a_busy_machine_keeps_the_beat_and_the_bound() {
        let start = epoch();
        let mut random = Random::new(Seed::from(3));
        let knock = plan::Spray::Knock("198.51.100.2:4000".parse().unwrap());
        let mut spray = SprayTimer::new(knock, start, SPRAY_HOPS);
        let mut sent = Vec::new();
        while let Some(due) = spray.timeout() {
            let now = due + Duration::from_micros(random.below(9_990));
            assert!(spray.next(now, &mut random).is_some());
            sent.push(now);
        }
        assert!(sent[2_047] - start < Duration::from_millis(20_700), "{:?}", sent[2_047] - start);
        for window in sent.windows(101) {
            assert!(window[100] - window[0] >= Duration::from_secs(1));
        }
    }

    #[test]
    fn the_nearest_ports_of_all_are_drawn_without_end_of_their_kind() {
        for last in [1, 1_024, 30_000, u16::MAX] {
            let mut random = Random::new(Seed::from(2));
            let knock = plan::Spray::Knock(SocketAddr::from(([198, 51, 100, 2], last)));
            let mut spray = SprayTimer::new(knock, epoch(), SPRAY_HOPS);
            // As far as the ports go, which is farther than the knocks do.
            let ports: BTreeSet<u16> = (0..64_512)
                .map(|sent| {
                    spray.sent = sent;
                    spray.draw(last, &mut random)
                })
                .collect();
            assert_eq!((ports.len(), ports.first(), ports.last()), (64_512, Some(&1_024), Some(&65_535)));
        }
    }

    #[test]
    fn each_of_256_sockets_opens_one_port_to_the_peer_and_knocks_later() {
        let peer: SocketAddr = "198.51.100.2:4000".parse().unwrap();
        let openers = all(plan::Spray::Open(peer));
        assert!(openers.iter().all(|(_, shot)| shot.from != SocketIndex::MAIN && shot.to == peer));
        let (dying, arriving) = openers.split_at(256);
        for (half, hops) in [(dying, Some(SPRAY_HOPS)), (arriving, None)] {
            let sockets: BTreeSet<SocketIndex> = half.iter().map(|(_, shot)| shot.from).collect();
            assert_eq!((half.len(), sockets.len()), (256, 256));
            assert!(half.iter().all(|(_, shot)| shot.hops == hops));
        }
        assert!(dying[255].0 - dying[0].0 < Duration::from_millis(600));
        assert!(arriving[0].0 - dying[0].0 >= DYING);
        for window in arriving.windows(101) {
            assert!(
                window[100].0 - window[0].0 >= Duration::from_secs(1),
                "no more than 100 a second arrive"
            );
        }
    }

    #[test]
    fn after_a_sleep_it_goes_on_at_its_pace() {
        let start = epoch();
        let mut random = Random::new(Seed::from(1));
        let knock = plan::Spray::Knock("198.51.100.2:1".parse().unwrap());
        let mut spray = SprayTimer::new(knock, start, SPRAY_HOPS);
        let late = start + Duration::from_secs(60);
        assert!(spray.next(late, &mut random).is_some());
        assert!(spray.next(late, &mut random).is_none());
    }

    fn all(kind: plan::Spray) -> Vec<(Instant, Shot)> {
        let mut random = Random::new(Seed::from(1));
        let mut spray = SprayTimer::new(kind, epoch(), SPRAY_HOPS);
        let mut sent = Vec::new();
        while let Some(due) = spray.timeout() {
            sent.push((due, spray.next(due, &mut random).unwrap()));
        }
        sent
    }
}
