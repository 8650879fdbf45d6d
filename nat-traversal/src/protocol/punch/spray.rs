use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::plan;
use crate::protocol::{Random, SocketIndex};

/// Two peers of whom one has random ports meet by chance, and chance is good because it has many tries: with 256 ports
/// open to us of 64,512, each knock at a random port hits with one in 252. After 174 knocks it is more likely than not,
/// after 2,048 it has failed once in 3,000 times.
#[derive(Debug)]
pub(super) struct SprayTimer {
    kind: plan::Spray,
    due: Instant,
    sent: u32,
    /// Ports not yet tried, shuffled as they are drawn; empty until the first draw.
    ports: Vec<u16>,
}

impl SprayTimer {
    /// A spray that begins if the plain checks have brought nothing by then.
    pub(super) fn new(kind: plan::Spray, start: Instant) -> Self {
        Self { kind, due: start + PATIENCE, sent: 0, ports: Vec::new() }
    }

    /// When to ask [`next`](Self::next); `None` when all is sent.
    pub(super) fn timeout(&self) -> Option<Instant> {
        (self.sent < self.limit()).then_some(self.due)
    }

    /// The next packet that is due: from which socket, and where to.
    pub(super) fn next(&mut self, now: Instant, random: &mut Random) -> Option<(SocketIndex, SocketAddr)> {
        if self.sent >= self.limit() || now < self.due {
            return None;
        }
        self.sent += 1;
        // From now on, not from when it was due: a process that slept must not burst.
        match self.kind {
            plan::Spray::Open(peer) => {
                self.due = now + OPENING_PACE;
                Some((SocketIndex(u16::try_from(self.sent).expect("at most SOCKETS")), peer))
            }
            plan::Spray::Knock(peer) => {
                self.due = now + KNOCKING_PACE;
                Some((SocketIndex::MAIN, SocketAddr::new(peer.ip(), self.draw(random))))
            }
        }
    }

    const fn limit(&self) -> u32 {
        match self.kind {
            plan::Spray::Open(_) => SOCKETS,
            plan::Spray::Knock(_) => KNOCKS,
        }
    }

    /// A port that has not been tried.
    fn draw(&mut self, random: &mut Random) -> u16 {
        if self.ports.is_empty() {
            self.ports = (FIRST_PORT..=u16::MAX).collect();
        }
        let index = random.below(self.ports.len() as u64);
        self.ports.swap_remove(usize::try_from(index).expect("below a length in memory"))
    }
}

/// How long the plain checks have for themselves. Pairs that need no spray meet within it, mostly.
const PATIENCE: Duration = Duration::from_millis(400);

/// Sockets that the side with random ports opens. More would meet sooner, but home routers hold a few thousand mappings.
pub(super) const SOCKETS: u32 = 256;

/// The opening is over in half a second: chance is small before it is complete.
const OPENING_PACE: Duration = Duration::from_millis(2);

/// Knocks in all. More would look like a port scan, and gain little: see [`SprayTimer`].
pub(super) const KNOCKS: u32 = 2_048;

/// 100 knocks a second, for the same reason.
const KNOCKING_PACE: Duration = Duration::from_millis(10);

/// NATs give no ports below.
const FIRST_PORT: u16 = 1_024;

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
        let ports: BTreeSet<u16> = knocks.iter().map(|(_, _, to)| to.port()).collect();
        assert_eq!(ports.len(), 2_048);
        assert!(knocks.iter().all(|(_, from, to)| *from == SocketIndex::MAIN && to.ip() == peer.ip()));
        for window in knocks.windows(101) {
            assert!(window[100].0 - window[0].0 >= Duration::from_secs(1));
        }
    }

    #[test]
    fn each_of_256_sockets_opens_one_port_to_the_peer() {
        let peer: SocketAddr = "198.51.100.2:4000".parse().unwrap();
        let openers = all(plan::Spray::Open(peer));
        let sockets: BTreeSet<SocketIndex> = openers.iter().map(|(_, from, _)| *from).collect();
        assert_eq!((openers.len(), sockets.len()), (256, 256));
        assert!(openers.iter().all(|(_, from, to)| *from != SocketIndex::MAIN && *to == peer));
    }

    #[test]
    fn after_a_sleep_it_goes_on_at_its_pace() {
        let start = epoch();
        let mut random = Random::new(Seed::from(1));
        let mut spray = SprayTimer::new(plan::Spray::Knock("198.51.100.2:1".parse().unwrap()), start);
        let late = start + Duration::from_secs(60);
        assert!(spray.next(late, &mut random).is_some());
        assert!(spray.next(late, &mut random).is_none());
    }

    fn all(kind: plan::Spray) -> Vec<(Instant, SocketIndex, SocketAddr)> {
        let mut random = Random::new(Seed::from(1));
        let mut spray = SprayTimer::new(kind, epoch());
        let mut sent = Vec::new();
        while let Some(due) = spray.timeout() {
            let (from, to) = spray.next(due, &mut random).unwrap();
            sent.push((due, from, to));
        }
        sent
    }
}
