//! Connections whose paths may have to change, and which of them is tried to be given another one next.
//!
//! One attempt at a time with each peer, by the schedule of [`Improvement`]; the connections with it take turns.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use transport::PublicKey;

use super::improvement::{Attempted, Improvement};

/// A connection, and what is needed to find it another path.
pub(crate) trait Detoured: Clone {
    /// Where to look how it does.
    type View: ?Sized;

    /// Whose it is.
    fn peer(&self) -> PublicKey;

    /// Whether it is about the same connection.
    fn is_same(&self, other: &Self) -> bool;

    /// Whether we asked for the peer: one of the two is enough to leave a relay that works.
    fn is_dialled(&self) -> bool;

    /// How the connection does; `None` if it is over.
    fn health(&self, view: &Self::View) -> Option<Health>;
}

/// How a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    /// It goes over a relay.
    pub(crate) is_relayed: bool,
    /// Its peer does not answer any more.
    pub(crate) is_cut_off: bool,
}

impl Health {
    /// Whether the connection is to take another path.
    const fn wants(self, is_dialled: bool) -> bool {
        is_dialled && self.is_relayed || self.is_cut_off
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Detours<D> {
    peers: BTreeMap<PublicKey, OfPeer<D>>,
}

impl<D: Detoured> Detours<D> {
    /// One more connection is there.
    pub(crate) fn add(&mut self, now: Instant, detour: D, view: &D::View) {
        let peer = detour.peer();
        // Nobody tells that a connection has ended.
        self.look_again(now, view);
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, detours| !detours.open.is_empty());
        }
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            return tracing::debug!(%peer, "too many peers to look after; this one stays on its path");
        }
        let detours = self.peers.entry(peer).or_insert_with(|| OfPeer::new(now));
        let known = detours.open.iter_mut().find(|known| known.is_same(&detour));
        match known {
            // What was told last, by whoever dialled, is the best that is known.
            Some(known) if detour.is_dialled() || !known.is_dialled() => *known = detour,
            Some(_) => {}
            None => {
                if detours.open.len() >= CONNECTIONS {
                    detours.open.pop_front();
                }
                detours.open.push_back(detour);
            }
        }
        detours.look(now, view);
    }

    /// The paths of some have changed, or they are cut off.
    pub(crate) fn look_again(&mut self, now: Instant, view: &D::View) {
        self.peers.values_mut().for_each(|detours| detours.look(now, view));
    }

    /// The attempt with that peer is over.
    pub(crate) fn handle_end(&mut self, now: Instant, peer: PublicKey, attempted: Attempted, view: &D::View) {
        let Some(detours) = self.peers.get_mut(&peer) else { return };
        detours.is_useless = false;
        detours.improvement.handle_end(now, attempted);
        if attempted != Attempted::Led {
            // The next attempt is another's, if there is another.
            detours.open.rotate_left(usize::from(!detours.open.is_empty()));
        }
        detours.look(now, view);
    }

    /// The next attempt that is due, which counts as begun. Peers for whom nothing is to be done any more are forgotten in time.
    pub(crate) fn poll_start(&mut self, now: Instant, view: &D::View) -> Option<D> {
        for detours in self.peers.values_mut() {
            detours.improvement.handle_timeout(now);
            if detours.is_wanted && detours.improvement.is_due(now) {
                detours.look(now, view);
            }
        }
        self.peers.retain(|_, detours| !detours.is_over(now));
        if self.is_busy() {
            return None;
        }
        let is_due = |detours: &&mut OfPeer<D>| detours.is_wanted && detours.improvement.is_due(now);
        let due = self.peers.values_mut().find(is_due)?;
        let is_cut_off = |detour: &&D| detour.health(view).is_some_and(|health| health.is_cut_off);
        let cut_off = due.open.iter().find(is_cut_off);
        let detour = cut_off.or_else(|| due.open.iter().find(|detour| wants(*detour, view)))?.clone();
        if cut_off.is_some() {
            due.improvement.start_rescue(now);
        } else {
            due.improvement.start(now);
        }
        Some(detour)
    }

    fn is_busy(&self) -> bool {
        self.peers.values().filter(|detours| detours.improvement.is_running()).count() >= AT_A_TIME
    }

    /// A peer with whom an attempt is under way that is of no use, since a connection was cut off after it had begun: it is to be ended, and
    /// the next one is due at once. Ask until `None` after each look.
    pub(crate) fn poll_useless(&mut self) -> Option<PublicKey> {
        let useless = self.peers.iter_mut().find(|(_, detours)| detours.is_useless)?;
        useless.1.is_useless = false;
        Some(*useless.0)
    }

    /// When to ask for the next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let busy = self.is_busy();
        let looked_at = self.peers.values().filter(|detours| !busy || detours.improvement.is_running());
        looked_at.filter_map(OfPeer::poll_timeout).min()
    }

    /// This host has come into another network: what is under way is about the old one.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        for detours in self.peers.values_mut() {
            detours.improvement.handle_network_change(now);
        }
    }
}

impl<D> Default for Detours<D> {
    fn default() -> Self {
        Self { peers: BTreeMap::new() }
    }
}

/// Those with one peer.
#[derive(Debug)]
struct OfPeer<D> {
    improvement: Improvement,
    open: VecDeque<D>,
    /// Whether one of them is to take another path, and whether one is cut off, as of the last look.
    is_wanted: bool,
    is_cut_off: bool,
    /// The attempt under way does not look for what one needs that is cut off.
    is_useless: bool,
}

impl<D: Detoured> OfPeer<D> {
    fn new(now: Instant) -> Self {
        Self {
            improvement: Improvement::new(now),
            open: VecDeque::new(),
            is_wanted: false,
            is_cut_off: false,
            is_useless: false,
        }
    }

    fn look(&mut self, now: Instant, view: &D::View) {
        self.open.retain(|detour| detour.health(view).is_some());
        self.is_wanted = self.open.iter().any(|detour| wants(detour, view));
        let was_cut_off = self.is_cut_off;
        let is_cut_off = |detour: &D| detour.health(view).is_some_and(|health| health.is_cut_off);
        self.is_cut_off = self.open.iter().any(is_cut_off);
        if self.is_cut_off && !was_cut_off {
            self.is_useless = self.improvement.handle_cut_off(now);
        } else if was_cut_off && !self.is_cut_off {
            self.improvement.handle_answered_again();
        }
    }

    /// Whether it may be forgotten: there is no connection, and no failure that still counts.
    fn is_over(&self, now: Instant) -> bool {
        self.open.is_empty() && now >= self.improvement.forget_at()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.open.is_empty() {
            return Some(self.improvement.forget_at());
        }
        (self.is_wanted || self.improvement.is_running()).then(|| self.improvement.poll_timeout())
    }
}

fn wants<D: Detoured>(detour: &D, view: &D::View) -> bool {
    detour.health(view).is_some_and(|health| health.wants(detour.is_dialled()))
}

/// Peers that are looked after; each has some hundred bytes here.
const PEERS: usize = 256;
/// With one peer.
const CONNECTIONS: usize = 16;
/// Attempts under way, each on three threads for some seconds.
const AT_A_TIME: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A connection by its number, and how all do.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Numbered {
        number: u16,
        peer: u16,
        dialled: bool,
    }

    impl Detoured for Numbered {
        type View = BTreeMap<u16, Health>;

        fn peer(&self) -> PublicKey {
            let [high, low] = self.peer.to_be_bytes();
            let mut key = [low; 32];
            key[0] = high;
            PublicKey::from_bytes(key)
        }

        fn is_same(&self, other: &Self) -> bool {
            self.number == other.number
        }

        fn is_dialled(&self) -> bool {
            self.dialled
        }

        fn health(&self, view: &Self::View) -> Option<Health> {
            view.get(&self.number).copied()
        }
    }

    const RELAYED: Health = Health { is_relayed: true, is_cut_off: false };
    const WELL: Health = Health { is_relayed: false, is_cut_off: false };
    const CUT_OFF: Health = Health { is_relayed: false, is_cut_off: true };

    fn one(number: u16, peer: u16, dialled: bool) -> Numbered {
        Numbered { number, peer, dialled }
    }

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn started(detours: &mut Detours<Numbered>, now: Instant, view: &BTreeMap<u16, Health>) -> Vec<u16> {
        std::iter::from_fn(|| detours.poll_start(now, view)).map(|detour| detour.number).collect()
    }

    #[test]
    fn whoever_dialled_leaves_a_relay_and_both_rescue() {
        let (now, mut detours) = (start(), Detours::default());
        let mut view = BTreeMap::from([(1, RELAYED), (2, RELAYED), (3, WELL), (4, WELL)]);
        for (number, dialled) in [(1, true), (2, false), (3, true), (4, false)] {
            detours.add(now, one(number, number, dialled), &view);
        }
        assert_eq!(started(&mut detours, now, &view), [1]);
        assert_eq!(detours.poll_timeout(), Some(now + Duration::from_secs(60)), "nothing but its end");
        view.insert(3, CUT_OFF);
        view.insert(4, CUT_OFF);
        assert!(started(&mut detours, now, &view).is_empty(), "nobody has looked");
        detours.look_again(now, &view);
        assert_eq!(started(&mut detours, now, &view), [3, 4]);
    }

    #[test]
    fn an_attempt_for_less_gives_way_to_a_rescue_and_a_rescue_goes_on() {
        let (now, mut detours) = (start(), Detours::default());
        let peer = one(1, 9, true).peer();
        let mut view = BTreeMap::from([(1, RELAYED)]);
        detours.add(now, one(1, 9, true), &view);
        assert_eq!(started(&mut detours, now, &view), [1]);
        detours.look_again(now, &view);
        assert_eq!(detours.poll_useless(), None);
        view.insert(1, Health { is_relayed: true, is_cut_off: true });
        detours.look_again(now, &view);
        assert_eq!((detours.poll_useless(), detours.poll_useless()), (Some(peer), None));
        detours.handle_end(now, peer, Attempted::NotMet, &view);
        assert_eq!(started(&mut detours, now, &view), [1], "at once");
        for health in [RELAYED, CUT_OFF] {
            view.insert(1, health);
            detours.look_again(now, &view);
            assert_eq!(detours.poll_useless(), None);
        }
    }

    #[test]
    fn connections_with_one_peer_take_turns_and_the_ended_are_forgotten() {
        let (mut now, mut detours) = (start(), Detours::default());
        let mut view = BTreeMap::from([(1, RELAYED), (2, RELAYED), (3, RELAYED)]);
        for number in 1..=3 {
            detours.add(now, one(number, 9, true), &view);
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            now = detours.poll_timeout().unwrap().max(now);
            order.extend(started(&mut detours, now, &view));
            detours.handle_end(now, one(0, 9, true).peer(), Attempted::NotIntroduced, &view);
        }
        assert_eq!(order, [1, 2, 3, 1]);
        view.clear();
        detours.look_again(now, &view);
        let forgotten = detours.poll_timeout().unwrap();
        assert!(started(&mut detours, forgotten, &view).is_empty() && detours.peers.is_empty());
    }

    #[test]
    fn what_is_known_of_a_connection_is_what_its_dialler_told_last() {
        let (now, mut detours) = (start(), Detours::default());
        let view = BTreeMap::from([(1, WELL)]);
        for dialled in [false, true, false] {
            detours.add(now, one(1, 9, dialled), &view);
        }
        let kept = &detours.peers[&one(1, 9, true).peer()].open;
        assert_eq!(*kept, [one(1, 9, true)]);
    }

    #[test]
    fn no_more_peers_connections_and_attempts_than_there_is_room_for() {
        let (now, mut detours) = (start(), Detours::default());
        let view: BTreeMap<u16, Health> = (0..300).map(|number| (number, RELAYED)).collect();
        for number in 0..100 {
            detours.add(now, one(number, 0, true), &view);
        }
        assert_eq!(detours.peers.values().map(|of| of.open.len()).sum::<usize>(), CONNECTIONS);
        for peer in 1..300 {
            detours.add(now, one(peer, peer, true), &view);
        }
        assert_eq!(detours.peers.len(), PEERS);
        assert_eq!(started(&mut detours, now, &view).len(), AT_A_TIME);
    }
}
